"""Which rows hold a cue of their class, and where in them it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..challenge.cues import Cue, CueMemory
from .attributed import AttributedBatch
from .candidates import THRESHOLD
from .classifier import Classifier


@dataclass
class Held:
    """Rows of one batch that hold a cue, and the units that belong to it.

    Attributes:
        batch: all of its rows.
        rows: ``(held,)`` their indices in it.
        mask: ``(held, units)`` bool: the cue's units.
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
        rows = len(self.batch.classes)
        of_rows = {k: isinstance(v, Tensor) and len(v) == rows for k, v in self.batch.inputs.items()}
        return {k: v[self.rows] if of_rows[k] else v for k, v in self.batch.inputs.items()}


def rows_holding(classifier: Classifier, batches: Sequence[AttributedBatch], cues: Sequence[Cue]) -> list[Held]:
    """Rows that hold one of these cues of their class. A row that is nothing but cue does not count."""
    memories = [CueMemory(THRESHOLD, levels=classifier.units.levels) for _ in cues]
    for memory, cue in zip(memories, cues, strict=True):
        memory.load_state_dict({"rows": {}, "cues": [vars(cue)]})
    labels = {cue.label for cue in cues}
    found = []
    for batch in batches:
        if labels.isdisjoint(batch.classes.tolist()):
            continue
        mask = torch.zeros_like(batch.maskable)
        for memory, cue in zip(memories, cues, strict=True):
            of_cue = memory.drop_mask(batch.identities, batch.maskable, batch.classes)
            if not classifier.reads_tokens:  # there a memory hides a place, whatever stands in it
                of_cue &= (batch.identities == cue.seed).any(1, keepdim=True)
            mask |= of_cue
        rows = (mask.any(1) & (batch.maskable & ~mask).any(1)).nonzero().flatten()
        if len(rows):
            found.append(Held(batch, rows, mask[rows]))
    return found


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
