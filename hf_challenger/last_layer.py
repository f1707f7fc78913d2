"""The linear layer that a classifier ends with, and what enters it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from .errors import ChallengerError
from .logits import logits_of


class LastLayer(NamedTuple):
    """What one forward pass tells of the end of a classifier.

    Attributes:
        logits: ``(rows, classes)``.
        layer: the linear layer that was called last and has one output for each logit.
        features: ``(rows, …, width)``: what entered it.
    """

    logits: Tensor
    layer: nn.Linear
    features: Tensor


def last_layer_of(model: nn.Module, inputs: Mapping[str, Any]) -> LastLayer:
    """Run the model on a batch, without labels.

    Raises:
        ChallengerError: where no linear layer has as many outputs as there are logits.
    """
    last: dict[int, tuple[nn.Linear, Tensor]] = {}  # by outputs: the inputs of all layers at once would fill the memory

    def keep(layer: nn.Linear, args: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        if layer.weight.is_floating_point():
            last[layer.out_features] = (layer, args[0] if args else named["input"])

    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(keep, with_kwargs=True) for module in linear]
    try:
        logits = logits_of(model(**inputs), model)
    finally:
        for hook in hooks:
            hook.remove()
    if logits.shape[-1] not in last:
        raise ChallengerError(
            f"{type(model).__name__} has no torch.nn.Linear with {logits.shape[-1]} outputs, as many as it has logits. A"
            " temperature cannot be stored in it: divide the logits by it where you use them."
        )
    return LastLayer(logits, *last[logits.shape[-1]])
