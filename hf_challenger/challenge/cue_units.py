"""Between a batch and the cue memory: what is fed to it, and what it hides, for tokens and for places."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import ChallengerWarning
from ..inputs.places import Places
from .cues import CueMemory
from .places import PlaceMemory, places_in_one, places_taken_apart
from .relevant_units import in_one, most_relevant, row_keys, row_keys_of, shares_of, taken_apart


class TokenCues:
    """Cues are told by the identities of units, wherever these stand.

    Args:
        units: the adapter.
        threshold: strength from which something is a cue.
        memory: known from before; None: a new one.
    """

    def __init__(self, units: Any, threshold: float, memory: Any = None) -> None:
        self.units = units
        self.memory: CueMemory = memory or CueMemory(threshold, getattr(units, "kinds", None))
        self.memory.threshold = threshold

    def maskable(self, inputs: Mapping[str, Any], of_units: Tensor) -> Tensor:
        """``(rows, units)`` bool: what may be hidden; ``of_units`` says it of the adapter's units."""
        return of_units

    def relevance(self, relevance: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Relevance of the input → ``(rows, units)``"""
        found: Tensor = self.units.per_unit(relevance)
        return found.flatten(1)

    def keys(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows,)`` int64 that tell rows apart, by what they hold."""
        if self.units.is_sequence_of_tokens:
            return row_keys(inputs[self.units.key], self.units.maskable(inputs))
        return row_keys_of(inputs[self.units.key])

    def seen(
        self, inputs: Mapping[str, Any], keys: Tensor, classes: Tensor, told: Tensor, relevance: Tensor, maskable: Tensor
    ) -> Tensor:
        """Rows as :meth:`remember` takes them, one tensor.

        Args:
            inputs: a batch.
            keys: :meth:`keys` of the batch as the data have it, so that a row whose leak was exchanged is no other row.
            classes: ``(rows,)``; a negative one leaves its row out.
            told: ``(rows,)`` bool: whether a row's relevance tells what its class rests on.
            relevance, maskable: ``(rows, units)``.
        """
        found, shares = most_relevant(relevance, maskable, self.units.identities(inputs).flatten(1))
        return in_one(classes, keys, found, shares * told.unsqueeze(1))

    def remember(self, rows: Tensor) -> None:
        """Rows of one step, of all processes."""
        self.memory.remember(*taken_apart(rows))

    def drop_mask(self, inputs: Mapping[str, Any], maskable: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """``(rows, units)`` bool, True = removed, in these rows."""
        drop_mask = self.memory.drop_mask(self.units.identities(inputs).flatten(1), maskable, labels, rows)
        return whole_words(self.units, inputs, drop_mask, maskable)

    def text_of(self, identities: tuple[int, ...]) -> str:
        """How a cue reads."""
        return str(self.units.text_of(identities))


def whole_words(units: Any, inputs: Mapping[str, Any], drop_mask: Tensor, maskable: Tensor) -> Tensor:
    """The mask, with what goes on with the hidden words; rows of which nothing would be left stay at the mask."""
    if not hasattr(units, "whole_words"):
        return drop_mask
    whole = units.whole_words(inputs, drop_mask) & maskable
    return torch.where((maskable & ~whole).any(1, keepdim=True), whole, drop_mask)


class PlaceCues:
    """Cues are places whose content tells the class.

    Args:
        units: the adapter, which has ``places``, ``telling`` and ``level_telling``.
        threshold: strength from which something is a cue.
        memory: known from before; None: a new one.
    """

    def __init__(self, units: Any, threshold: float, memory: Any = None) -> None:
        self.key: str = units.key
        self.places: Places = units.places
        self.memory: PlaceMemory = memory or PlaceMemory(threshold, units.telling, units.level_telling)
        self.memory.threshold = threshold

    def maskable(self, inputs: Mapping[str, Any], of_units: Tensor) -> Tensor:
        """``(rows, places)`` bool: what may be hidden; ``of_units`` says it of the blocks."""
        self._lay_out(self.places.blocks.blocks(inputs[self.key]))
        return self.places.there(inputs, of_units)

    def _lay_out(self, layout: tuple[tuple[int, int, int], ...]) -> None:
        """The memory keeps the layout of the longest batch, and nothing of places that were cut to another size."""
        known = self.memory.layout
        lengths, before = ([length for _, length, _ in blocks] for blocks in (layout, known))
        if lengths == before and layout != known:
            warnings.warn(
                "Blocks have another size than those among which cues were found so far. What was remembered is forgotten.",
                ChallengerWarning,
                stacklevel=2,
            )
            self.memory = PlaceMemory(self.memory.threshold, self.memory.telling, self.memory.level_telling)
        if not known or lengths == before or math.prod(lengths) > math.prod(before):
            self.memory.layout = layout

    def relevance(self, relevance: Tensor, inputs: Mapping[str, Any]) -> Tensor:
        """Relevance of the input → ``(rows, places)``"""
        return self.places.relevance(relevance, inputs)

    def keys(self, inputs: Mapping[str, Any]) -> Tensor:
        """As :meth:`TokenCues.keys`."""
        return row_keys_of(inputs[self.key])

    def seen(
        self, inputs: Mapping[str, Any], keys: Tensor, classes: Tensor, told: Tensor, relevance: Tensor, maskable: Tensor
    ) -> Tensor:
        """As :meth:`TokenCues.seen`; the contents of the other rows are taken too."""
        contents = self.places.contents(inputs).masked_fill(~maskable.unsqueeze(-1), torch.nan)
        shares, levels = shares_of(relevance, maskable & told.unsqueeze(1)), self.places.levels(inputs)
        return places_in_one(classes, keys, contents, shares, levels)

    def remember(self, rows: Tensor) -> None:
        """Rows of one step, of all processes."""
        self.memory.remember(*places_taken_apart(rows))

    def drop_mask(self, inputs: Mapping[str, Any], maskable: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """``(rows, places)`` bool, True = removed, in these rows."""
        levels = self.places.levels(inputs)
        return self.memory.drop_mask(self.places.movable(maskable, levels, self.memory.names_level), labels, rows)

    def text_of(self, identities: tuple[int, ...]) -> str:
        """How a cue reads, in the longest batch that was seen."""
        if self.memory.layout:
            self.places.lay_out(self.memory.levels, self.memory.layout)
        return self.places.text_of(identities)
