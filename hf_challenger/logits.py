"""Reading what a model returned: transformers names logits differently from head to head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from .errors import ChallengerError

# PatchTST calls its class scores `prediction_logits`, PatchTSMixer `prediction_outputs`.
LOGIT_NAMES = ("logits", "prediction_logits", "prediction_outputs")


def _labels(model: nn.Module | None) -> Any:
    return getattr(getattr(model, "config", None), "num_labels", None)


def position_of_logits(names: Sequence[str | None], values: Sequence[Any], model: nn.Module | None = None) -> int | None:
    """Where the logits stand among a model's outputs, or None: a name of logits, else ``(rows, config.num_labels)``.

    Args:
        names: of the fields; all None for a tuple, of which the first tensor is taken where no shape tells.
        values: of the fields, without the loss.
        model: its config tells the number of classes.
    """
    for name in LOGIT_NAMES:
        if name in names and isinstance(values[names.index(name)], Tensor):
            return names.index(name)
    tensors = [i for i, value in enumerate(values) if isinstance(value, Tensor)]
    by_shape = [i for i in tensors if values[i].dim() == 2 and values[i].shape[1] == _labels(model)]
    if by_shape:
        return by_shape[0]
    named = any(name is not None for name in names)
    return None if named or not tensors else tensors[0]


def logits_of(outputs: Any, model: nn.Module | None = None) -> Tensor:
    """The class scores, ``(rows, classes)``, in a model's output (a tensor, a dict, a ModelOutput or a tuple).

    The model is expected to have been called without labels, so that a tuple does not start with the loss.
    """
    if isinstance(outputs, Tensor):
        return outputs
    found = f"a {type(outputs).__name__}"
    if isinstance(outputs, (dict, tuple, list)):
        names: list[Any] = list(outputs) if isinstance(outputs, dict) else [None] * len(outputs)
        values = list(outputs.values()) if isinstance(outputs, dict) else outputs
        place = position_of_logits(names, values, model)
        if place is not None:
            scores: Tensor = values[place]
            return scores
        if isinstance(outputs, dict):
            found = f"an output with {', '.join(names) or 'no fields'}"
    who = type(model).__name__ if model is not None else "The model"
    raise ChallengerError(
        f"{who} returned {found}, but a classifier's scores were expected (one of {', '.join(LOGIT_NAMES)}, or of shape (rows,"
        " config.num_labels)). Load it with a classification head, for example AutoModelForSequenceClassification."
    )
