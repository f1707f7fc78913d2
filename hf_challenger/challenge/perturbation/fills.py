"""How blocks of float inputs are hidden: what is put in their place.

All of them touch hidden elements only; statistics are those of a row's own channel, over its observed elements.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...inputs.blocks import Blocks
from ...keyed_random import Draw


def fill_zero(inputs: dict[str, Any], drop_mask: Tensor, units: Blocks, draw: Draw) -> dict[str, Any]:
    """Zeros: silence, black, or the mean of a standardised input."""
    return _filled(inputs, drop_mask, units, inputs[units.key].new_zeros(()))


def fill_mean(inputs: dict[str, Any], drop_mask: Tensor, units: Blocks, draw: Draw) -> dict[str, Any]:
    """The mean of the row's channel."""
    return _filled(inputs, drop_mask, units, units.mean(inputs))


def fill_noise(inputs: dict[str, Any], drop_mask: Tensor, units: Blocks, draw: Draw) -> dict[str, Any]:
    """Gaussian noise with the mean and the variance of the row's channel."""
    x, mean = inputs[units.key], units.mean(inputs)
    deviation = units.mean(inputs, (x - mean) ** 2).sqrt()
    return _filled(inputs, drop_mask, units, mean + deviation * draw.normal(*x.shape[1:]).to(x.dtype))


def interpolate(inputs: dict[str, Any], drop_mask: Tensor, units: Blocks, draw: Draw) -> dict[str, Any]:
    """A straight line across the gap, for each channel; at the ends of a series the nearest value that is left."""
    x = inputs[units.key]
    (axis,) = units.axes(x)
    kept = (units.observed(inputs) & ~units.hidden(inputs, drop_mask)).movedim(axis, -1)
    values = x.movedim(axis, -1)
    step = torch.arange(x.shape[axis], device=x.device).expand(kept.shape)
    before = step.where(kept, -1).cummax(-1).values
    after = step.where(kept, x.shape[axis]).flip(-1).cummin(-1).values.flip(-1)
    no_before, no_after = before < 0, after >= x.shape[axis]
    left = values.gather(-1, torch.where(no_before, after, before).clamp(0, x.shape[axis] - 1))
    right = values.gather(-1, torch.where(no_after, before, after).clamp(0, x.shape[axis] - 1))
    share = ((step - before) / (after - before).clamp(min=1)).clamp(0, 1).to(x.dtype)
    return _filled(inputs, drop_mask, units, torch.lerp(left, right, share).movedim(-1, axis))


def swap(inputs: dict[str, Any], drop_mask: Tensor, units: Blocks, draw: Draw) -> dict[str, Any]:
    """The same place of another row of the batch, labels unchanged; the mean where that row has nothing there.

    Which row depends on the batch that is at hand, so unlike all else in a challenge it changes with the batch size and
    with the number of processes. A row that is alone in its batch is filled with its mean.
    """
    x = inputs[units.key]
    if len(x) == 1:
        return fill_mean(inputs, drop_mask, units, draw)
    donor = draw.other_rows()
    there = units.observed(inputs)[donor]
    return _filled(inputs, drop_mask, units, torch.where(there, x[donor], units.mean(inputs)))


def blur(inputs: dict[str, Any], drop_mask: Tensor, units: Blocks, draw: Draw) -> dict[str, Any]:
    """The image, averaged twice over a window about as wide as a patch: colour stays, shape goes."""
    x = inputs[units.key]
    widths = [min(size, (length + 1) // 2) // 2 * 2 + 1 for _, length, size in units.blocks(x)]
    blurred = x if x.dim() == 4 else x.unsqueeze(1)
    for _ in range(2):
        padding = [w // 2 for w in widths]
        blurred = F.avg_pool2d(blurred, widths, stride=1, padding=padding, count_include_pad=False)
    return _filled(inputs, drop_mask, units, blurred.reshape(x.shape))


def _filled(inputs: dict[str, Any], drop_mask: Tensor, units: Blocks, values: Tensor) -> dict[str, Any]:
    x = inputs[units.key]
    return {**inputs, units.key: torch.where(units.hidden(inputs, drop_mask), values.to(x.dtype), x)}
