"""Time series: a unit is a window of time, over all channels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ChallengerError, NotChallengeable
from .blocks import Blocks

# Masks over (rows, time) or the input's whole shape, nonzero where a step counts, as transformers names them.
OBSERVED_KEYS = ("past_observed_mask", "attention_mask")


class Series(Blocks):
    """``(rows, time, channels)`` or ``(rows, time)``, such as ``past_values``.

    Padding is told by ``past_observed_mask`` (of the input's shape, or ``(rows, time)``), ``attention_mask``
    ``(rows, time)``, or ``lengths`` ``(rows,)``, whichever the batch holds.
    """

    perturbations: tuple[str, ...] = ("mean", "interpolate", "zero", "noise", "swap")
    threshold = 0.2  # natural levels that tell the class hold .18 at most (NATOPS); planted ones .29 or more
    telling = (
        0.95  # R² of natural windows is .89 at most (NATOPS, SyntheticControl): the classes of series do differ by time
    )
    rate = 0.1  # FCNs on series are less over-confident than networks on texts and images, so hide less
    levels: str | None = "channels"  # sensors
    # Offsets in .95 of the rows have .88 or more. From .6 on those in .8 of them were found too, but so were the levels by which a
    # speaker is known (JapaneseVowels), and accuracy on clean data fell by 5 points. Natural levels of BasicMotions (.92) cost nothing.
    level_telling = 0.85
    what = "windows of time"
    axis_names = ("steps",)
    windows = 24  # that a series is cut into, if the model has no patches

    def axes(self, x: Tensor) -> tuple[int, ...]:
        if x.dim() not in (2, 3):
            raise NotChallengeable(
                f"{self.key} has shape {tuple(x.shape)}, but a series is (rows, time, channels), or (rows, time) with one"
                " channel. Reshape it, or register an adapter of your own (docs/adapters.md)."
            )
        return (1,)

    def size(self, x: Tensor) -> tuple[int, ...]:
        """The model's own patch (PatchTST, PatchTSMixer), or a share of the series' length."""
        patch = getattr(self.config, "patch_length", None)
        return (patch if isinstance(patch, int) else max(1, round(x.shape[self.axes(x)[0]] / self.windows)),)

    def observed(self, inputs: Mapping[str, Any]) -> Tensor:
        x = inputs[self.key]
        (axis,) = self.axes(x)
        over_time = [len(x)] + [n if i == axis else 1 for i, n in enumerate(x.shape) if i]
        observed = super().observed(inputs)
        for key in OBSERVED_KEYS:
            mask = inputs.get(key)
            if mask is None:
                continue
            if mask.shape == x.shape:
                observed = observed & mask.bool()
            elif mask.shape == (len(x), x.shape[axis]):
                observed = observed & mask.bool().reshape(over_time)
            else:
                raise ChallengerError(
                    f"{key} has shape {tuple(mask.shape)}, but {self.key} {tuple(x.shape)}: the mask has the same shape, or"
                    f" {(len(x), x.shape[axis])}."
                )
        if inputs.get("lengths") is not None:
            step = torch.arange(x.shape[axis], device=x.device)
            observed = observed & (step < inputs["lengths"].to(x.device).reshape(-1, 1)).reshape(over_time)
        return observed


class SeriesChannelsFirst(Series):
    """``(rows, channels, time)``, as ``nn.Conv1d`` takes it."""

    def axes(self, x: Tensor) -> tuple[int, ...]:
        super().axes(x)
        return (x.dim() - 1,)
