"""What the cue memory counts in series, images and audio: blocks, and before them levels: of each channel of a series, or of an image.

A row is its level in each channel, plus what is left. An offset or a tint is in every block, and in none of them does it tell the class
as clearly as in the level. Relevance of a sum goes to its parts in proportion to what they add (the LRP rule of an addition), so that
both parts get a share of it.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import ChallengerWarning
from ..keyed_random import Draw
from .main_input import rows_at

if TYPE_CHECKING:
    from .blocks import Blocks

LEVEL = re.compile(r"level(?: of channel (\d+))?")


class Places:
    """The places of an adapter, in one line: levels first, since a shorter batch has fewer blocks.

    Args:
        blocks: the adapter; its ``levels`` says which levels are places.
    """

    def __init__(self, blocks: Blocks) -> None:
        self.blocks = blocks
        self._levels = 0  # of the last batch
        self._lone_rows = True  # no batch so far had two rows

    def levels(self, inputs: Mapping[str, Any]) -> int:
        """How many places are levels, the first ones: one of each channel, one of all, or none."""
        if self.blocks.levels == "channels":
            x = inputs[self.blocks.key]
            self._levels = math.prod(x.shape[1:]) // math.prod(length for _, length, _ in self.blocks.blocks(x))
        elif self.blocks.levels == "one":
            self._levels = 1
        return self._levels

    def there(self, inputs: Mapping[str, Any], maskable: Tensor | None = None) -> Tensor:
        """``(rows, places)`` bool: what can be hidden; ``maskable``: the blocks' own, where that is known."""
        found = (self.blocks.maskable(inputs) if maskable is None else maskable).flatten(1)
        return torch.cat([self._seen(inputs).expand(-1, self.levels(inputs)), found], 1)

    def contents(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, places, channels)`` floats: the level of a channel, or the mean of each block; NaN where there is none."""
        blocks = self.blocks
        if blocks.levels is None:
            return blocks.contents(inputs).flatten(1, -2)
        level, seen = blocks.level(inputs), self._seen(inputs)
        of_blocks = blocks.contents(inputs).flatten(1, -2)
        levels = level.float().flatten(1).masked_fill(~seen, torch.nan)
        if blocks.levels == "one":
            return torch.cat([levels.unsqueeze(1), of_blocks], 1)
        apart = torch.full((*levels.shape, of_blocks.shape[-1]), torch.nan, device=of_blocks.device)
        apart[..., 0] = levels
        return torch.cat([apart, of_blocks], 1)

    def _seen(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, levels or 1)`` bool: whether anything was observed there."""
        observed = self.blocks.observed(inputs)
        if self.blocks.levels == "channels":
            return observed.any(self.blocks.axes(observed), keepdim=True).flatten(1)
        return observed.flatten(1).any(1, keepdim=True)

    def relevance(self, relevance: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Relevance of the input's own shape → ``(rows, places)``."""
        blocks = self.blocks
        if blocks.levels is None:
            return blocks.per_unit(relevance).flatten(1)
        x, level = inputs[blocks.key].float(), blocks.level(inputs).float()
        relevance = relevance.to(torch.promote_types(relevance.dtype, torch.float32))
        small = 1e-6 * x.abs().flatten(1).amax(1).clamp(min=1e-30).reshape(-1, *(1,) * (x.dim() - 1))
        of_level = relevance * level * x / (x.square() + small.square())
        of_levels = of_level.flatten(1).sum(1, keepdim=True)
        if blocks.levels == "channels":
            of_levels = of_level.sum(blocks.axes(x)).reshape(len(x), -1)
        return torch.cat([of_levels, blocks.per_unit(relevance - of_level).flatten(1)], 1)

    def swapped(self, inputs: dict[str, Any], places: Tensor, draw: Draw) -> dict[str, Any]:
        """:meth:`exchanged` with another row of the batch. Which one depends on the batch that is at hand.

        A level moves to a random point between the mean of the batch and the other row's, which tell nothing of the row's class if the
        batch has more than a few rows; to three points of four it goes by less than 9/16 of the way. New rows without the cue mostly
        lie near the middle, and a few rows do not teach a model to look past levels that lie far apart.

        Args:
            inputs: a batch.
            places: ``(rows, places)`` bool.
            draw: which other row, and how far from the mean.
        """
        rows = len(places)
        if rows == 1:
            return self.exchanged(inputs, places, None)
        return self.exchanged(inputs, places, rows_at(inputs, draw.other_rows(), rows), draw.uniform(salt=3) ** 2)

    def exchanged(
        self, inputs: dict[str, Any], places: Tensor, others: Mapping[str, Any] | None, part: Tensor | None = None
    ) -> dict[str, Any]:
        """The same places of other rows, in rows whose labels stay.

        Args:
            inputs: a batch.
            places: ``(rows, places)`` bool.
            others: as many rows of the same shape. None: blocks are filled with the row's own mean, and levels stay. So it is where
                nothing was observed in the other row.
            part: ``(rows,)`` in [0, 1], how far a level goes from the batch's mean towards the other row's, or stays at the mean where
                nothing was observed there; None: all the way.
        """
        blocks = self.blocks
        x, levels, mean, observed = inputs[blocks.key], self.levels(inputs), blocks.mean(inputs), blocks.observed(inputs)
        hidden = blocks.hidden(inputs, places[:, levels:].unflatten(1, blocks.grid(x)))
        if others is None:
            return {**inputs, blocks.key: torch.where(hidden, mean, x)}
        if levels:
            shape = mean.shape if blocks.levels == "channels" else (len(places), *(1,) * (x.dim() - 1))
            moved, level, other = places[:, :levels].reshape(shape), blocks.level(inputs), blocks.level(others)
            seen = blocks.observed(others).any(blocks.axes(x), keepdim=True)
            if part is None:
                goal = torch.where(seen, other, level)
            else:
                there = observed.any(blocks.axes(x), keepdim=True)
                middle = (level * there).sum(0, keepdim=True) / there.sum(0, keepdim=True).clamp(min=1)
                goal = middle + part.to(level).reshape(-1, *(1,) * (x.dim() - 1)) * (other - middle) * seen
            shift = torch.where(moved, goal - level, 0)
            x, mean = torch.where(moved & observed, x + shift, x), mean + shift
        return {**inputs, blocks.key: torch.where(hidden, torch.where(blocks.observed(others), others[blocks.key], mean), x)}

    def movable(self, places: Tensor, levels: int, names_level: bool) -> Tensor:
        """``(rows, places)`` bool without the levels of a row that is alone in its batch: no other row lends it one.

        Args:
            places: ``(rows, places)`` bool, what is to be hidden.
            levels: how many of them are levels, the first ones.
            names_level: whether a level is among what is hidden; a training in which no row can move it is then warned of.
        """
        self._lone_rows &= len(places) == 1
        if len(places) > 1 or not levels:
            return places
        if names_level and self._lone_rows:
            self._lone_rows = False
            warnings.warn(
                "A level moves to that of another row, and batches here have one row, so that levels stay as they are. Set"
                " per_device_train_batch_size to 2 or more.",
                ChallengerWarning,
                stacklevel=2,
            )
        blocks_only = places.clone()
        blocks_only[:, :levels] = False
        return blocks_only

    def lay_out(self, levels: int, blocks: tuple[tuple[int, int, int], ...]) -> None:
        """From now on :meth:`text_of` names places of these levels and blocks."""
        self._levels, self.blocks._blocks = levels, blocks

    def text_of(self, places: Sequence[int]) -> str:
        """Places as people read them, such as "level of channel 0 + steps 3 to 4"."""
        levels = ["level" if self._levels == 1 else f"level of channel {n}" for n in sorted(places) if n < self._levels]
        blocks = [n - self._levels for n in places if n >= self._levels]
        return " + ".join([*levels, *([self.blocks.text_of(blocks)] if blocks else [])])

    def places_of(self, name: str, inputs: Mapping[str, Any], option: str = "the name") -> Tensor:
        """``(rows, places)`` bool: the places of that name, as :meth:`text_of` writes it."""
        found = torch.zeros_like(self.there(inputs))
        levels, blocks = self.levels(inputs), []
        for part in map(str.strip, name.split("+")):
            level = LEVEL.fullmatch(part)
            channel = int(level[1] or 0) if level else levels
            if channel < levels and (levels == 1 or (level and level[1])):
                found[:, channel] = True
            else:
                blocks.append(part)
        if blocks:
            found[:, levels:] |= self.blocks.places_of(" + ".join(blocks), inputs, option).flatten(1)
        return found
