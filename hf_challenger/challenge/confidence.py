"""Which rows the model is sure of, told by the forward pass that the attribution makes anyway."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..attribution.targets import score_of


class NoRowPasses(Exception):
    """Ends an attribution between its forward and its backward pass: no row is to be challenged."""


class ConfidenceGate:
    """Lets those rows pass whose gold class has at least the threshold's probability.

    Args:
        labels: ``(rows,)`` classes; -100 is read as 0.
        threshold: in [0, 1).
        goes_on: never raise :class:`NoRowPasses`: where parameters are sharded, the other processes wait in the backward pass.

    Attributes:
        logits: the scores that were seen.
        passes: ``(rows,)`` bool, once logits were seen.
    """

    def __init__(self, labels: Tensor, threshold: float, goes_on: bool = False) -> None:
        self.labels, self.threshold, self.goes_on = labels, threshold, goes_on
        self.logits: Tensor | None = None
        self.passes: Tensor | None = None

    def look_at(self, logits: Tensor) -> None:
        """Decide by the clean ``(rows, classes)`` logits. Waits for the device, unless ``goes_on``."""
        self.logits = logits.detach()
        self.passes = gold_probability(self.logits, self.labels) >= self.threshold
        if not self.goes_on and not self.passes.any():
            raise NoRowPasses

    def watching(self, target: Any) -> Callable[[Tensor], Tensor]:
        """The attribution's target, which lets the gate look at the logits on the way."""

        def score(logits: Tensor) -> Tensor:
            self.look_at(logits)
            return score_of(logits, target)

        return score


def gold_probability(logits: Tensor, labels: Tensor) -> Tensor:
    """``(rows,)`` the probability of each row's label; 1 for a single output, which gives none.

    Args:
        logits: ``(rows, classes)``.
        labels: ``(rows,)`` classes; -100 is read as 0.
    """
    logits = logits.flatten(1).to(torch.promote_types(logits.dtype, torch.float32))
    return logits.softmax(-1).gather(1, labels.reshape(-1, 1).long().clamp(0, logits.shape[1] - 1)).squeeze(1)
