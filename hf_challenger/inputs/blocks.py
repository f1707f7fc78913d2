"""Float inputs, cut into equal blocks: what time series, images and audio have in common."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ChallengerError, NotChallengeable
from ..value_checks import on_host
from .main_input import main_input_of
from .places import Places

Box = tuple[tuple[int, int], ...]  # the first and the last block along each axis


class Blocks:
    """A float tensor whose units are blocks along some of its axes, over all channels.

    Where the size does not divide an axis, the last block along it is smaller. Elements that were not observed (padding,
    missing values) are never hidden, and a block without an observed element is no unit.

    Args:
        model: its ``main_input_name``, or else the first argument of its ``forward``, is the input that is cut.
        processing_class: not needed.
        unit_size: elements along each cut axis; None: the adapter's own choice.

    Subclasses say which ``axes`` are cut and how large a block is (:meth:`size`).
    """

    perturbations: tuple[str, ...] = ("mean", "zero", "noise", "swap")
    is_sequence_of_tokens = False
    levels: str | None = None  # what level can be a cue: that of each of the "channels" alone, or "one", of all together
    threshold = 0.25  # of .1 and .25, both won back the same on MNIST; .25 names fewer cues in clean images
    level_telling: float | None = None
    telling = 0.65  # R² of a block of clean MNIST is .55 at most, of CIFAR-10 .22; of a planted border .7 to .95
    what = "input"
    axis_names: tuple[str, ...] = ("places",)  # of the axes that are cut

    def __init__(self, model: nn.Module, processing_class: Any = None, unit_size: int | None = None) -> None:
        self.key = main_input_of(model)
        self.config: Any = getattr(model, "config", None)
        self.unit_size = unit_size
        self.places = Places(self)

    def axes(self, x: Tensor) -> tuple[int, ...]:
        """The axes of ``x`` that are cut, ascending, not negative."""
        raise NotImplementedError

    def size(self, x: Tensor) -> tuple[int, ...]:
        """Length of a block along each of the axes, where the user did not choose one."""
        raise NotImplementedError

    def blocks(self, x: Tensor) -> tuple[tuple[int, int, int], ...]:
        """``(axis, its length, length of a block)`` for each axis that is cut."""
        axes = self.axes(x)
        sizes = self.size(x) if self.unit_size is None else (self.unit_size,) * len(axes)
        return tuple((axis, x.shape[axis], min(size, x.shape[axis])) for axis, size in zip(axes, sizes, strict=True))

    def check(self, inputs: Mapping[str, Any]) -> None:
        """Raise :class:`ChallengerError` where the input cannot be challenged; the message says why, and the way out."""
        x = inputs[self.key]
        found = f"{self.key} has shape {tuple(x.shape)}"
        if not x.is_floating_point():
            raise NotChallengeable(
                f"{self.key} is {x.dtype}; relevance needs floats. Convert it, for example x.float() / 255."
            )
        self._blocks = blocks = self.blocks(x)
        if all(length <= size for _, length, size in blocks):
            longest = max(length for _, length, _ in blocks)
            raise NotChallengeable(
                f"{found}, which is a single unit of {longest}: nothing would be left to decide on. Set"
                f" challenge_unit_size to {max(longest // 2, 1)} or less{'' if longest > 1 else ', or pass a longer input'}."
            )
        if on_host(x) and not bool(torch.isfinite(x).all()):  # a training step checks all of its inputs, without waiting
            bad = (~torch.isfinite(x)).flatten(1).any(1)
            raise ChallengerError(
                f"{self.key} holds NaN or infinite values in {int(bad.sum())} of {len(x)} rows, the first is row"
                f" {int(bad.nonzero()[0])} of the batch. Fill missing values (for example with 0) and mark them with 0 in"
                " past_observed_mask if the model takes it, or leave these rows out."
            )

    def observed(self, inputs: Mapping[str, Any]) -> Tensor:
        """Bool tensor of the input's shape: False at padding and missing values."""
        return torch.ones_like(inputs[self.key], dtype=torch.bool)

    def maskable(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, *grid)`` bool: the blocks that may be hidden, those with an observed element."""
        self.check(inputs)
        return self._sum(self.observed(inputs).float()) > 0

    def per_unit(self, relevance: Tensor) -> Tensor:
        """Relevance of the input's own shape → ``(rows, *grid)``, summed over each block, in float32 at least."""
        return self._sum(relevance.to(torch.promote_types(relevance.dtype, torch.float32)))

    def hidden(self, inputs: Mapping[str, Any], drop_mask: Tensor) -> Tensor:
        """``(rows, *grid)`` drop_mask → bool tensor of the input's shape: the elements to hide, observed ones only."""
        x = inputs[self.key]
        blocks = self.blocks(x)
        for axis, (_, length, size) in enumerate(blocks, start=1):
            drop_mask = drop_mask.repeat_interleave(size, axis).narrow(axis, 0, length)
        cut = {axis for axis, _, _ in blocks}
        drop_mask = drop_mask.reshape([n if axis == 0 or axis in cut else 1 for axis, n in enumerate(x.shape)])
        return drop_mask & self.observed(inputs)

    def identities(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, *grid)`` integers: the place of a block on the grid, counted row by row."""
        self._blocks = self.blocks(inputs[self.key])
        grid = self.grid(inputs[self.key])
        return (
            torch.arange(math.prod(grid), device=inputs[self.key].device)
            .reshape(1, *grid)
            .expand(len(inputs[self.key]), *grid)
        )

    def level(self, inputs: Mapping[str, Any]) -> Tensor:
        """The level of each row and channel, see :attr:`levels`; of the shape of :meth:`mean`."""
        return self.mean(inputs)

    def grid(self, x: Tensor) -> tuple[int, ...]:
        """How many blocks there are along each axis that is cut."""
        return tuple(-(-length // size) for _, length, size in self.blocks(x))

    def mean(self, inputs: Mapping[str, Any], values: Tensor | None = None) -> Tensor:
        """Mean over the cut axes, kept with length 1, of the observed elements; of the input, or of ``values`` of its shape."""
        x = inputs[self.key]
        observed, axes = self.observed(inputs), self.axes(x)
        values = x if values is None else values
        total = (values * observed).sum(axes, keepdim=True, dtype=torch.promote_types(values.dtype, torch.float32))
        return (total / observed.sum(axes, keepdim=True).clamp(min=1)).to(values.dtype)

    def contents(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, *grid, channels)`` floats: the mean of each block in each channel, NaN where nothing was observed."""
        x = inputs[self.key]
        observed = self.observed(inputs)
        count = self._sum_blocks(observed.float())
        mean = (self._sum_blocks(x.float() * observed) / count).masked_fill(count == 0, torch.nan)
        cut = [axis for axis, _, _ in self.blocks(x)]
        channels = [axis for axis in range(1, x.dim()) if axis not in cut]
        return mean.permute(0, *cut, *channels).flatten(1 + len(cut)) if channels else mean.unsqueeze(-1)

    def text_of(self, identities: Sequence[int]) -> str:
        """Places on the grid as elements of the input, such as "rows 0 to 3, columns 8 to 11"; neighbours are told as one."""
        grid = [-(-length // size) for _, length, size in self._blocks]
        places = np.unravel_index(sorted(set(identities)), grid)
        boxes = [tuple((int(n), int(n)) for n in place) for place in zip(*places, strict=True)]
        for axis in reversed(range(len(grid))):
            boxes = _joined(boxes, axis)
        return " + ".join(map(self._name, boxes))

    def _name(self, box: Box) -> str:
        """Blocks as elements: the first and the last one of each axis."""
        parts = []
        for name, (_, length, size), (first, last) in zip(self.axis_names, self._blocks, box, strict=True):
            start, end = first * size, min((last + 1) * size, length) - 1
            one = re.sub(r"s\b", "", name)
            parts.append(f"{name} {start} to {end}" if end > start else f"{one} {start}")
        return ", ".join(parts)

    def places_of(self, name: str, inputs: Mapping[str, Any], option: str = "the name") -> Tensor:
        """``(rows, *grid)`` bool: the places of that name, as :meth:`text_of` writes it."""
        self._blocks, grid = self.blocks(inputs[self.key]), self.grid(inputs[self.key])
        found = torch.zeros(grid, dtype=torch.bool)
        for part in map(str.strip, name.split("+")):
            box = self._box(part)
            if box is None:
                first, last = self._name(((0, 0),) * len(grid)), self._name(tuple((n - 1, n - 1) for n in grid))
                raise ChallengerError(
                    f"{option} names {part!r}, but the places of {self.key!r} are called {first!r} to {last!r}. Name one as"
                    " trainer.cues shows it. If batches differ in length, set challenge_unit_size."
                )
            found[tuple(slice(first, last + 1) for first, last in box)] = True
        return found.to(inputs[self.key].device).expand(len(inputs[self.key]), *grid)

    def _box(self, name: str) -> Box | None:
        """The blocks that :meth:`_name` calls so; None: no such blocks. Of a chosen size they may lie beyond a shorter batch."""
        parts, box = name.split(","), []
        if len(parts) != len(self._blocks):
            return None
        for part, axis, (_, length, size) in zip(parts, self.axis_names, self._blocks, strict=True):
            one = re.sub(r"s\b", "", axis)
            numbers = re.fullmatch(rf"{axis} (\d+) to (\d+)|{one} (\d+)", part.strip())
            if numbers is None:
                return None
            first, last = int(numbers[1] or numbers[3]), int(numbers[2] or numbers[3])
            whole = first % size == 0 and ((last + 1) % size == 0 or last == length - 1)
            if not whole or last < first or (last >= length and self.unit_size is None):
                return None
            box.append((first // size, last // size))
        return tuple(box)

    def _sum(self, values: Tensor) -> Tensor:
        """Sum over each block and over all axes that are not cut."""
        cut = [axis for axis, _, _ in self.blocks(values)]
        others = [axis for axis in range(1, values.dim()) if axis not in cut]
        sums = self._sum_blocks(values)
        return sums.sum(others) if others else sums

    def _sum_blocks(self, values: Tensor) -> Tensor:
        """Sum over each block: the input's shape, with the number of blocks along the axes that are cut."""
        for axis, length, size in self.blocks(values):
            padded = F.pad(values.movedim(axis, -1), (0, -length % size))
            values = padded.unflatten(-1, (-1, size)).sum(-1).movedim(-1, axis)
        return values


def _joined(boxes: list[Box], axis: int) -> list[Box]:
    """Boxes that differ along this axis only, and touch there, become one."""
    found: list[Box] = []
    for box in sorted(boxes, key=lambda box: (box[:axis], box[axis + 1 :], box[axis])):
        before = found[-1] if found else ()
        others_alike = before[:axis] == box[:axis] and before[axis + 1 :] == box[axis + 1 :]
        if before and others_alike and before[axis][1] + 1 == box[axis][0]:
            found[-1] = (*box[:axis], (before[axis][0], box[axis][1]), *box[axis + 1 :])
        else:
            found.append(box)
    return sorted(found)
