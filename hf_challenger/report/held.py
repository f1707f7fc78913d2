"""Which rows hold a cue of their class, and where in them it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..challenge.cue_units import whole_words
from ..challenge.cues import Cue, CueMemory
from ..challenge.places import PlaceMemory
from ..inputs.main_input import rows_at
from .attributed import AttributedBatch
from .candidates import THRESHOLD


@dataclass
class Held:
    """Rows of one batch that hold a cue, and the units that belong to it.

    Attributes:
        batch: all of its rows.
        rows: ``(held,)`` their indices in it.
        mask: ``(held, units)`` bool, or of images and series ``(held, places)``: what belongs to the cue.
    """

    batch: AttributedBatch
    rows: Tensor
    mask: Tensor

    @property
    def classes(self) -> Tensor:
        """``(held,)``"""
        return self.batch.classes[self.rows]

    @property
    def probabilities(self) -> Tensor:
        """``(held, classes)`` of the rows as they are."""
        return self.batch.probabilities[self.rows]

    @property
    def inputs(self) -> dict[str, Any]:
        """The rows as the model takes them."""
        return rows_at(self.batch.inputs, self.rows, len(self.batch.classes))


def rows_holding(
    batches: Sequence[AttributedBatch], cues: Sequence[Cue], units: Any, places: PlaceMemory | None = None
) -> list[Held]:
    """Rows that hold one of these cues of their class. A row that is nothing but cue does not count.

    Args:
        batches: the rows.
        cues: of one or several classes.
        units: the adapter.
        places: knows the places to hide; None: the cues are tokens.
    """
    labels = {cue.label for cue in cues}
    found = []
    for batch in batches:
        if labels.isdisjoint(batch.classes.tolist()):
            continue
        if places is not None and batch.places is not None:
            own = torch.isin(batch.classes, torch.tensor(sorted(labels), device=batch.classes.device))
            mask = places.drop_mask(batch.places.there, batch.classes) & own.unsqueeze(1)
            rows = mask.any(1).nonzero().flatten()
        else:
            mask = whole_words(units, batch.inputs, _tokens_of(cues, batch, units), batch.maskable)
            rows = (mask.any(1) & (batch.maskable & ~mask).any(1)).nonzero().flatten()
        if len(rows):
            found.append(Held(batch, rows, mask[rows]))
    return found


def _tokens_of(cues: Sequence[Cue], batch: AttributedBatch, units: Any) -> Tensor:
    mask, memory = torch.zeros_like(batch.maskable), CueMemory(THRESHOLD, getattr(units, "kinds", None))
    for cue in cues:
        memory.load_state_dict({"rows": {}, "cues": [vars(cue)]})
        mask |= memory.drop_mask(batch.identities, batch.maskable, batch.classes)
    return mask


def count(held: Sequence[Held]) -> int:
    """How many rows these are."""
    return sum(len(h.rows) for h in held)


def at_most(held: list[Held], rows: int) -> list[Held]:
    """At most that many rows, evenly from all batches: those are sorted by length."""
    total = count(held)
    if total <= rows:
        return held
    kept = torch.zeros(total, dtype=torch.bool)
    kept[torch.linspace(0, total - 1, rows).long()] = True
    kept = kept.to(held[0].rows.device)
    parts = kept.split([len(h.rows) for h in held])
    return [Held(h.batch, h.rows[part], h.mask[part]) for h, part in zip(held, parts, strict=True) if part.any()]
