"""Reading what a model returned: transformers names logits differently from head to head."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .errors import ChallengerError

# PatchTST calls its class scores `prediction_logits`, PatchTSMixer `prediction_outputs`.
LOGIT_NAMES = ("logits", "prediction_logits", "prediction_outputs")


def _labels(model: nn.Module | None) -> Any:
    return getattr(getattr(model, "config", None), "num_labels", None)


def logits_of(outputs: Any, model: nn.Module | None = None) -> Tensor:
    """The class scores, ``(rows, classes)``, in a model's output (a tensor, a dict, a ModelOutput or a tuple).

    The model is expected to have been called without labels, so that a tuple starts with the logits and not the loss.
    """
    if isinstance(outputs, Tensor):
        return outputs
    if isinstance(outputs, dict):
        for name in LOGIT_NAMES:
            if isinstance(outputs.get(name), Tensor):
                return outputs[name]
        scores = outputs.get("last_hidden_state")  # PP-LCNet's classifier calls its scores so
        if isinstance(scores, Tensor) and scores.dim() == 2 and scores.shape[1] == _labels(model):
            return scores
        found = f"an output with {', '.join(outputs) or 'no fields'}"
    elif isinstance(outputs, (tuple, list)) and outputs and isinstance(outputs[0], Tensor):
        return outputs[0]
    else:
        found = f"a {type(outputs).__name__}"
    who = type(model).__name__ if model is not None else "The model"
    raise ChallengerError(
        f"{who} returned {found}, but a classifier's scores were expected (one of {', '.join(LOGIT_NAMES)}). Load it with"
        " a classification head, for example AutoModelForSequenceClassification."
    )
