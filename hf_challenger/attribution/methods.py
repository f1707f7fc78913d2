"""Attribution by name, for training and for comparison: our LRP, and its controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .composites import Composite
from .lrp import LRP, main_input
from .targets import Target

# (model, batch, target, composite) -> relevance, in the shape that LRP.attribute returns
Method = Callable[[nn.Module, Mapping[str, Any], Target, "str | Composite"], Tensor]


def _lrp(model: nn.Module, batch: Mapping[str, Any], target: Target, composite: str | Composite) -> Tensor:
    return LRP(model, composite).attribute(batch, target=target)


def _input_x_gradient(model: nn.Module, batch: Mapping[str, Any], target: Target, composite: str | Composite) -> Tensor:
    """captum's InputXGradient at the embeddings: LRP without any rule."""
    return LRP(model, "gradient").attribute(batch, target=target)


def _none(model: nn.Module, batch: Mapping[str, Any], target: Target, composite: str | Composite) -> Tensor:
    """Every unit equally relevant: with it, any selection is a random one, at no cost."""
    x = batch[main_input(model, batch)]
    return torch.ones_like(x, dtype=torch.float32) if x.is_floating_point() else torch.ones((*x.shape, 1), device=x.device)


METHODS: dict[str, Method] = {"lrp": _lrp, "input_x_gradient": _input_x_gradient, "none": _none}
