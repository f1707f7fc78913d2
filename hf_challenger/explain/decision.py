"""Which class of one input is explained, and the relevance of the input for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..attribution.composites import COMPOSITES
from ..attribution.methods import METHODS
from ..attribution.state import attribution_state
from ..classes import class_index
from ..errors import ChallengerError, check_choice
from ..logits import logits_of


def decision(
    model: nn.Module, batch: Mapping[str, Tensor], label: str | int | None, method: str, composite: str, what: str
) -> tuple[dict[str, Any], Tensor]:
    """The fields of :class:`~.explanation.Answer`, and relevance for its class.

    Args:
        model: a classifier of transformers.
        batch: one row, as the model takes it.
        label: the class, by name or index. None: the one with the highest score.
        method: see :mod:`hf_challenger.attribution.methods`.
        composite: rules of ``method="lrp"``.
        what: the input, for the error message.

    Returns:
        The fields, and the row's relevance, float32: ``(tokens, hidden)``, or of the float input's own shape.

    Raises:
        ChallengerError: for unknown names; NaN or infinite logits or relevance.
    """
    check_choice("method", method, METHODS)
    check_choice("composite", composite, COMPOSITES)
    config: Any = model.config
    wanted = None if label is None else class_index(config.id2label, label)
    with attribution_state(model), torch.no_grad():
        logits = logits_of(model(**batch), model)[0].float()
    chosen = int(logits.argmax()) if wanted is None else wanted
    relevance = METHODS[method](model, batch, chosen, composite)[0].float()
    if not (logits.isfinite().all() and relevance.isfinite().all()):
        raise ChallengerError(
            f"The model's logits or their relevance are NaN or infinite for {what}: its training has diverged, or its"
            " weights are damaged. Load another checkpoint."
        )
    problem = getattr(config, "problem_type", None)
    problem = problem or ("regression" if len(logits) == 1 else "single_label_classification")
    if problem == "regression":
        values = logits
    else:
        values = logits.sigmoid() if problem == "multi_label_classification" else logits.softmax(0)
    fields = {
        "label": str(config.id2label.get(chosen, chosen)),
        "confidence": float("nan") if problem == "regression" else float(values[chosen]),
        "score": float(logits[chosen]),
        "ranking": tuple(
            (str(config.id2label.get(i, i)), float(values[i])) for i in logits.argsort(descending=True).tolist()
        ),
        "problem": problem,
        "method": method,
    }
    return fields, relevance
