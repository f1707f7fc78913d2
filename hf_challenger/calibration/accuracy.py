"""How often a fine-tuned model will be right on new rows: an estimate that costs one forward pass, before training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attribution.state import attribution_state
from ..checks import on_all_processes
from ..errors import ChallengerError
from ..last_layer import last_layer_of
from ..losses import IGNORED

# Ridge penalties relative to features of mean length 1: five powers of ten span weak to strong, and the best is kept.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
# Fine-tuning removes this share of the probe's error, times its skill: between a half (TREC) and nothing (SST-2) was measured.
ERROR_REMOVED = 0.5
# Every trained model is expected to close this share of the gap from chance to 1: at 0, confidences would be made equal.
LEAST_SKILL = 0.1
# Inputs with more numbers a row are not probed themselves: a linear probe on large images says little, and costs memory.
LARGEST_INPUT = 10_000


def expected_accuracy(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
    rows: int | None = None,
) -> float:
    """The accuracy to expect on new rows, from a linear probe of the features that the model has *before* fine-tuning.

    The probe is a ridge regression onto the classes. Its leave-one-out accuracy a has a closed form (Allen, Technometrics
    1974). With c the share of the largest class, its skill is s = (a - c)/(1 - c), which is Cohen's κ. The estimate is
    1 - (1 - a)(1 - s/2), and at least c + .1(1 - c).

    The features of token ids are the last hidden states, averaged over the attended tokens, where the model returns them.
    Otherwise they are what enters the last linear layer; of float inputs also these themselves, if they predict better (an
    untrained network).

    Args:
        model: before training. It is left as it was, and so are all random states.
        batches: training rows, as the model takes them, with ``labels`` ``(rows,)``; -100 is left out.
        gather: collects rows of all processes.
        rows: of all processes, without those that fill up the last batches. None: all that come.

    Returns:
        A share of rows in (0, 1].

    Raises:
        ChallengerError: if there are no rows, neither hidden states nor a last linear layer, if features are not one vector a
            row, if no class has two rows, or if all rows are of one class.
    """

    def read() -> list[tuple[Tensor, Tensor, Tensor]]:
        found = []
        for batch in batches:
            inputs = {k: v for k, v in batch.items() if k != "labels"}
            tokens = isinstance(inputs.get("input_ids"), Tensor) and not inputs["input_ids"].is_floating_point()
            features = _mean_of_tokens(model, inputs) if tokens else _entering_the_last_layer(model, inputs)
            if len(features) != len(batch["labels"]):
                raise ChallengerError(
                    f"The features of {type(model).__name__} for {len(batch['labels'])} labelled rows have the shape"
                    f" {tuple(features.shape)}; one vector a row is expected."
                )
            own = features[:, :0] if tokens else _float_inputs(inputs, features)
            found.append((features, own, batch["labels"]))
        return found

    with attribution_state(model), torch.no_grad():
        found = on_all_processes(read, gather, next(model.parameters()).device)
        labels = torch.cat([gather(answers).cpu() for *_, answers in found])[:rows]
        widths = torch.cat([gather(torch.full_like(answers, own.shape[1])).cpu() for _, own, answers in found])
        kinds = (0, 1) if len(widths) and 0 < widths.min() == widths.max() else (0,)  # series may have several lengths
        probed = [torch.cat([gather(row[kind]).double().cpu() for row in found])[:rows] for kind in kinds]
    known = labels != IGNORED
    labels = labels[known]
    if (labels < 0).any():
        raise ChallengerError(f"Label {labels[labels < 0][0]} is below 0. Map your labels to 0, 1, 2, ….")
    # The only row of its class cannot be predicted from the others.
    counted = labels.bincount()[labels] > 1 if len(labels) else labels.bool()
    if not counted.any():
        raise ChallengerError("No class has two training rows, from which its accuracy on new rows could be estimated.")
    guesses = [guess for x in probed for guess in _left_out(x[known], labels)]
    probe = max(float((guess == labels)[counted].double().mean()) for guess in guesses)
    chance = float(labels.bincount().max() / len(labels))
    if chance == 1:
        raise ChallengerError(
            f"The {len(labels)} rows that were read are all of class {int(labels[0])}, which says nothing of how often the model is right."
            " If the data are a stream sorted by class, shuffle them with a larger buffer."
        )
    skill = (probe - chance) / (1 - chance)
    return max(1 - (1 - probe) * (1 - ERROR_REMOVED * max(skill, 0.0)), chance + LEAST_SKILL * (1 - chance))


def _entering_the_last_layer(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    features = _last_features(model, inputs).float()
    return features if features.dim() == 2 else features.flatten(1, -2).mean(1)


def _float_inputs(inputs: Mapping[str, Any], features: Tensor) -> Tensor:
    """The float inputs of each row, ``(rows, numbers)``; no numbers where there are too many."""
    rows = len(features)
    given = [
        v.reshape(rows, -1)
        for v in inputs.values()
        if isinstance(v, Tensor) and v.is_floating_point() and v.dim() and len(v) == rows
    ]
    if not given or sum(v.shape[1] for v in given) > LARGEST_INPUT:
        return features[:, :0]
    return torch.cat([v.to(features) for v in given], 1).nan_to_num()


def _mean_of_tokens(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    """``(rows, hidden)``: the last hidden states, averaged over the tokens that are no padding.

    A model that returns none, or not one a token, is read where its last linear layer begins.
    """
    ids, attended = inputs["input_ids"], inputs.get("attention_mask")
    if attended is None:
        padding = getattr(getattr(model, "config", None), "pad_token_id", None)
        attended = torch.ones_like(ids) if padding is None else ids != padding
    mask = attended.bool().unsqueeze(-1)
    prompted = hasattr(model, "peft_config")  # PEFT's prompts put virtual tokens before the ids
    for read in (_last_hidden_state, _last_features):
        states = read(model, inputs)
        if states is not None and states.dim() == 3:
            states = states[:, -ids.shape[1] :] if prompted else states
            if states.shape[:2] == attended.shape:
                return (states.float() * mask).sum(1) / mask.sum(1).clamp(min=1)
    return _entering_the_last_layer(model, inputs)


def _last_features(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    return last_layer_of(model, inputs).features


def _last_hidden_state(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor | None:
    """As transformers' models return it where they are asked; None of a model that does not know the question."""
    try:
        outputs = model(**inputs, output_hidden_states=True)
    except TypeError:  # another cause than this argument comes up again without it
        return None
    names = ("hidden_states", "encoder_hidden_states")
    states = next((outputs[n] for n in names if isinstance(outputs, dict) and outputs.get(n)), None)
    return None if states is None else states[-1]


def _left_out(x: Tensor, labels: Tensor) -> list[Tensor]:
    """For each penalty, the class of each row by a ridge regression on all the others."""
    x = x - x.mean(0)
    x = x / x.norm(dim=1).mean().clamp(min=1e-12)
    wanted = F.one_hot(labels).double()
    values, u = torch.linalg.eigh(x @ x.T + 1 / len(x))  # with the constant feature; one for all penalties
    values = values.clamp(min=0)
    found = []
    for penalty in PENALTIES:
        kept = values / (values + penalty)
        fitted, own = u * kept @ (u.T @ wanted), (u**2 @ kept).unsqueeze(1)
        found.append(((fitted - own * wanted) / (1 - own)).argmax(1))
    return found
