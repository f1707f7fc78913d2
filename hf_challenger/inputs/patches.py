"""Images: a unit is a square patch, over all channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..errors import NotChallengeable
from .blocks import Blocks


class Patches(Blocks):
    """``(rows, channels, height, width)``, such as ``pixel_values``; grey images also as ``(rows, height, width)``."""

    perturbations: tuple[str, ...] = ("mean", "blur", "zero", "noise", "swap")
    levels = "one"  # a tint is in all channels
    level_telling = 0.35  # of clean MNIST and CIFAR-10 R² is .19 at most, of a planted tint .38 or more
    what = "patches"
    axis_names = ("rows", "columns")
    side = 8  # patches along the shorter side, if the model has none of its own

    def axes(self, x: Tensor) -> tuple[int, ...]:
        if x.dim() not in (3, 4) or (x.dim() == 4 and x.shape[-1] <= 4 < x.shape[1]):
            raise NotChallengeable(
                f"{self.key} has shape {tuple(x.shape)}, but images are (rows, channels, height, width), or (rows, height,"
                " width) if grey. Channels go first: x.permute(0, 3, 1, 2). For other shapes register an adapter of your own"
                " (docs/adapters.md)."
            )
        return (x.dim() - 2, x.dim() - 1)

    def level(self, inputs: Mapping[str, Any]) -> Tensor:
        """The darkest value of each channel: a tint lifts it, what the image shows hardly does."""
        return inputs[self.key].amin(self.axes(inputs[self.key]), keepdim=True)

    def size(self, x: Tensor) -> tuple[int, ...]:
        """The model's own patch; for networks in stages (ConvNext, Swin, ResNet) a share of the image instead.

        The ``patch_size`` of such a network is the stride of its first layer, often 4 pixels of 224: too small to hide
        anything. Its multiple nearest to that share is taken.
        """
        patch = getattr(self.config, "patch_size", None)
        height, width = (
            (patch if isinstance(patch, (tuple, list)) and len(patch) == 2 else (patch, patch)) if patch else (1, 1)
        )
        if patch and not hasattr(self.config, "depths"):
            return (height, width)
        share = max(2, min(x.shape[-2:]) / self.side)
        return (height * max(1, round(share / height)), width * max(1, round(share / width)))
