"""The linear layer that a classifier ends with, and what enters it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from .errors import ChallengerError
from .outputs import logits_of


class Head(NamedTuple):
    """What one forward pass tells of the end of a classifier.

    Attributes:
        logits: ``(rows, classes)``.
        layer: the linear layer that was called last and has one output for each logit.
        features: ``(rows, …, width)``: what entered it.
    """

    logits: Tensor
    layer: nn.Linear
    features: Tensor


def head_of(model: nn.Module, inputs: Mapping[str, Any]) -> Head:
    """Run the model on a batch, without labels.

    Raises:
        ChallengerError: where no linear layer has as many outputs as there are logits.
    """
    called: list[tuple[nn.Linear, Tensor]] = []
    hooks = [
        module.register_forward_hook(lambda layer, args, output: called.append((layer, args[0])))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        logits = logits_of(model(**inputs), model)
    finally:
        for hook in hooks:
            hook.remove()
    for layer, features in reversed(called):
        if layer.out_features == logits.shape[-1] and layer.weight.is_floating_point():
            return Head(logits, layer, features)
    raise ChallengerError(
        f"{type(model).__name__} has no torch.nn.Linear with {logits.shape[-1]} outputs, as many as it has logits, in which a"
        " temperature could be stored. Divide the logits by the temperature where you use them."
    )
