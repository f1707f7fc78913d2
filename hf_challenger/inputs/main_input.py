"""Which tensor of a batch is attributed: decided here, for the adapters of inputs and for every attribution."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ..errors import ChallengerError
from ..peft_base import without_peft

LABEL_KEYS = ("labels", "label", "label_ids", "target_values")
# Tried in this order where neither the model nor its signature tells.
USUAL_NAMES = ("input_ids", "pixel_values", "input_values", "input_features", "past_values", "inputs", "x")


def label_names_of(trainer: Any) -> tuple[str, ...]:
    """The names under which a ``Trainer``'s batch may hold its labels, those that its arguments give first."""
    return tuple(dict.fromkeys((*(trainer.label_names or ()), "labels", "target_values")))  # the last is PatchTST's


def main_input_of(model: nn.Module) -> str:
    """The name of a model's main input, before any batch is seen.

    It is ``model.main_input_name`` if ``forward`` takes it, and otherwise the first argument of ``forward``.
    ``PreTrainedModel.main_input_name`` is ``"input_ids"`` unless a class says otherwise, which a class of floats may not.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    name = getattr(model, "main_input_name", None)
    if isinstance(name, str):
        chosen = takes_any and name != "input_ids"  # the default says nothing, unless forward names no argument at all
        if name in named or not named or chosen:
            return name
    return named[0] if named else "input_ids"


def taken_by(model: nn.Module, batch: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a batch that the model's ``forward`` takes."""
    parameters = inspect.signature(without_peft(model).forward).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(batch)
    return {name: value for name, value in batch.items() if name in {p.name for p in parameters}}


def main_input_in(model: nn.Module, batch: Mapping[str, Any], name: str | None = None) -> str:
    """The key of ``batch`` that is attributed.

    Args:
        model: asked by :func:`main_input_of`, where no name is given.
        batch: as the model takes it, key → tensor.
        name: the key, where the caller knows it: an adapter's ``key``.

    Returns:
        ``name``; or the model's main input; or, where the batch has no such key, its only tensor of ids or floats.

    Raises:
        ChallengerError: where the batch lacks ``name``, or where several tensors come into question.
    """
    if name is not None:
        if name in batch:
            return name
        raise ChallengerError(
            f"The batch has no {name!r}; it holds {', '.join(batch) or 'nothing'}. Name one of its keys as the main input."
        )
    declared = main_input_of(model)
    if declared in batch:
        return declared
    candidates = [
        key
        for key, value in batch.items()
        if isinstance(value, Tensor) and key not in LABEL_KEYS and not key.endswith("mask") and value.dim() > 1
    ]
    if len(candidates) == 1:
        return candidates[0]
    for usual in USUAL_NAMES:
        if usual in candidates:
            return usual
    raise ChallengerError(
        f"Cannot tell which of {', '.join(batch) or 'no inputs'} is to be attributed: the main input of"
        f" {type(model).__name__} is {declared!r}. Set model.main_input_name to one of the batch's keys."
    )


def has_rows(x: Any, rows: int) -> bool:
    """Whether that value of a batch has one entry for each row."""
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == rows


def rows_at(inputs: Mapping[str, Any], index: Tensor, rows: int) -> dict[str, Any]:
    """Those rows of a batch of so many; what has no rows stays."""
    return {k: v[index] if has_rows(v, rows) else v for k, v in inputs.items()}
