"""How many rows a training saw and challenged, over all processes. Counting does not wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from .challenge import ChallengedBatch

Reduce = Callable[[Tensor], Tensor]


@dataclass
class Counts:
    """What a training did to its rows, each counted once an epoch.

    Attributes:
        rows: that were trained on.
        challenged: those in which a cue, or what a row-level selection chose, was hidden.
        leaked: those from which a cue of ``challenge_hide`` was removed.
        not_finite: those whose relevance was NaN or infinite, and that stayed whole for it.
    """

    rows: int = 0
    challenged: int = 0
    leaked: int = 0
    not_finite: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


class RowCounter:
    """Counts of one process on its device, and of all processes where they were last read.

    Args:
        reduce: the sum of a tensor over all processes.
        total: what earlier steps of a resumed training counted.
    """

    def __init__(self, reduce: Reduce, total: Counts | None = None) -> None:
        self.reduce, self.total = reduce, total or Counts()
        self._unread: Tensor | None = None

    def count(self, batch: ChallengedBatch) -> None:
        """The rows of one batch of this process."""
        rows = torch.full((), float(len(batch.challenged)), device=batch.challenged.device)
        found = (batch.challenged.sum(), batch.leaked.sum(), batch.not_finite)
        counts = torch.stack([rows, *(number.float() for number in found)])
        self._unread = counts if self._unread is None else self._unread + counts

    @property
    def news(self) -> bool:
        """Whether rows were counted since the last :meth:`read`; the same on all processes."""
        return self._unread is not None

    def read(self) -> Counts:
        """What was counted since the last call, which is added to ``total``; all processes call it together."""
        found = self._sum()
        self.total, self._unread = self.total + found, None
        return found

    def so_far(self) -> Counts:
        """``total`` with what was not read yet; all processes call it together."""
        return replace(self.total) + self._sum()

    def _sum(self) -> Counts:
        return Counts() if self._unread is None else Counts(*(int(number) for number in self.reduce(self._unread).tolist()))
