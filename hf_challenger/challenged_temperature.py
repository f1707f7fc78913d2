"""A temperature without held-out labels: how sure should a model be, once rows are as hard for it as new ones?

A fine-tuned network knows its training rows by heart, so that temperature scaling (Guo et al. 2017) needs rows it has not
seen. Training rows become such rows when their evidence is hidden, drawn in proportion to its relevance, until the model is right about them
as often as it may be expected to be about new ones (:mod:`.expected_accuracy`).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from .attribution.state import attribution_state
from .calibration import fit_temperature
from .challenge import Challenger
from .checks import on_all_processes
from .errors import ChallengerError, ChallengerWarning
from .losses import IGNORED
from .options import ChallengeOptions
from .outputs import logits_of

HIGHEST = 99.0  # of the temperatures that are believed
SUREST = 0.5  # and the lowest
FEW = 50  # rows: so many tell half of what many would tell of how much surer a model should be
HALVINGS = 6  # of the range of shares in which the one to hide is looked for


def challenged_temperature(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    accuracy: float,
    options: Any = None,
    processing_class: Any = None,
    selection: str = "sample",
    seed: int = 0,
    process: tuple[int, int] = (0, 1),
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
    rows: int | None = None,
) -> float:
    """The temperature T that fits the logits of challenged *training* rows; ``logits / T`` is calibrated.

    So much is hidden that the share of rows that the model gets right comes nearest to ``accuracy``; nothing, if it is below that
    as it is. A model is made surer with caution, since it knows a training row better than a new one even without its evidence, and
    since few rows tell little: of n rows, a temperature T below 1 counts as T to the power of n / 2(n + 50), the square root for
    many; at least 1/2, and not at all where all rows are right. One attribution and seven forward passes a row. The model and all
    random states are left as they were; :func:`~.temperature.apply_temperature` folds T into the model.

    Args:
        model: a trained classifier, unwrapped.
        batches: of training rows, as the model takes them, each with its ``labels`` ``(rows,)``; -100 is left out.
        accuracy: on new rows, as far as it can be known; in (0, 1].
        options: as for :class:`Challenger`: what tells relevance, and how units are hidden.
        processing_class: the tokenizer.
        selection: which units are hidden, as ``challenge_selection``.
        seed: of the draws, which are keyed by the position of a row, so that batches of another size give the same.
        process: which of how many processes this is; batches are dealt out to them in turn.
        gather: collects rows of all processes.
        rows: of all processes, without those that fill up the last batches. None: all that come.

    Raises:
        ChallengerError: where ``accuracy`` is no share, no rows come, labels and logits do not fit a classification, or no
            temperature fits: the model is no better than chance on the challenged rows, or its logits are very large.
    """
    if not 0 < accuracy <= 1:
        raise ChallengerError(f"accuracy={accuracy!r} is not a share of rows, above 0 and at most 1.")
    everything = replace(ChallengeOptions.of(options), challenge_threshold=0.0, challenge_selection=selection)
    challenger = Challenger(model, everything, processing_class, seed)
    with attribution_state(model):

        def read() -> list[tuple[Callable[[float], dict[str, Any]], Tensor]]:
            found = []
            size = None  # of all batches but, maybe, the last
            for number, batch in enumerate(batches):
                size = len(batch["labels"]) if size is None else size
                inputs = {k: v for k, v in batch.items() if k != "labels"}
                dose = challenger.doses(inputs, batch["labels"], (number * process[1] + process[0]) * size)
                found.append((dose, batch["labels"]))
            return found

        found = on_all_processes(read, gather, next(model.parameters()).device)
        labels = torch.cat([gather(answers).cpu() for _, answers in found])[:rows]
        known = labels != IGNORED

        def logits(share: float) -> Tensor:
            with torch.no_grad():
                return torch.cat([gather(logits_of(model(**dose(share)), model).float()).cpu() for dose, _ in found])[:rows]

        def right(scores: Tensor) -> float:
            return float((scores.argmax(1) == labels)[known].double().mean())

        tried = [logits(0.0)]
        low, high = 0.0, 1.0
        for _ in range(HALVINGS if right(tried[0]) > accuracy else 0):
            middle = (low + high) / 2
            tried.append(logits(middle))
            low, high = (middle, high) if right(tried[-1]) > accuracy else (low, middle)
    nearest = min(tried, key=lambda scores: abs(right(scores) - accuracy))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChallengerWarning)  # it warns of rows that are all right, too
        temperature = fit_temperature(nearest, labels)
    if temperature > HIGHEST:
        raise ChallengerError(
            f"The temperature that fits the challenged training rows is above {HIGHEST:.0f}: the model is right about"
            f" {right(nearest):.0%} of them, which is no better than chance, or its logits are very large."
        )
    if temperature >= 1:
        return temperature
    told = int(known.sum())
    return 1.0 if right(nearest) == 1 else max(SUREST, temperature ** (told / (told + FEW) / 2))
