"""A temperature without held-out labels: how sure is a trained model of its own training rows once their evidence is hidden?

A fine-tuned network knows its training rows by heart, so that temperature scaling (Guo et al. 2017) needs rows it has not
seen. A training row without its most relevant units is such a row, as near as it gets: what the model learned by heart is
gone, and what is left is right about as often as on new rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .attribution.state import attribution_state
from .calibration import fit_temperature
from .challenger import Challenger
from .losses import IGNORED
from .options import ChallengeOptions
from .outputs import logits_of

# The share of a row's units that is hidden, drawn in proportion to positive relevance: chosen on development sets,
# benchmarks/README.md.
HIDDEN_SHARE = 0.33


def challenged_temperature(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    options: Any = None,
    processing_class: Any = None,
    label_name: str = "labels",
    rate: float = HIDDEN_SHARE,
    selection: str = "sample",
    seed: int = 0,
    process: tuple[int, int] = (0, 1),
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> float:
    """The temperature T > 0 that fits the model's logits on challenged *training* rows best; ``logits / T`` is calibrated.

    One attribution and one forward pass a batch. The model and all random states are left as they were;
    :func:`~.temperature.apply_temperature` folds T into the model.

    Args:
        model: a trained classifier, unwrapped.
        batches: of training rows, as the model takes them, each with its labels ``(rows,)``; -100 is left out.
        options: as for :class:`Challenger`. Which rows are challenged, and how their losses are weighted, plays no part.
        processing_class: the tokenizer.
        label_name: key of the labels.
        rate: share of a row's units that is hidden.
        selection: which ones, as ``challenge_selection``.
        seed: of the draws, which are keyed by the position of a row, so that batches of another size give the same.
        process: which of how many processes this is; batches are dealt out to them in turn.
        gather: collects rows of all processes.

    Raises:
        ChallengerError: where no row could be challenged, or labels and logits do not fit a classification.

    Warns:
        ChallengerWarning: where no temperature fits, as :func:`~.calibration.fit_temperature` does.
    """
    everything = replace(
        ChallengeOptions.of(options),
        challenge_share=1.0,
        challenge_weight=None,
        challenge_mix="replace",
        challenge_threshold=0.0,
        challenge_budget=1.0,
        challenge_rate=rate,
        challenge_selection=selection,
    )
    challenger = Challenger(model, everything, processing_class, seed)
    scores, answers = [], []
    size = None  # of all batches but, maybe, the last
    for number, batch in enumerate(batches):
        labels = batch[label_name]
        size = len(labels) if size is None else size
        first_row = (number * process[1] + process[0]) * size
        inputs = {k: v for k, v in batch.items() if k != label_name}
        mixed = challenger.challenge(inputs, labels, step=0, first_row=first_row)
        with attribution_state(model), torch.no_grad():
            logits = logits_of(model(**mixed.inputs), model)
        # Rows that stayed clean, having too few units, tell nothing.
        scores.append(gather(logits.float()).cpu())
        answers.append(gather(labels.masked_fill(~mixed.challenged, IGNORED)).cpu())
    return fit_temperature(torch.cat(scores), torch.cat(answers))
