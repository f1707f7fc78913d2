"""Which units to hide: relevance → drop_mask (True = removed)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (relevance, uniform noise in (0, 1)) -> score; the highest scores are hidden.
Score = Callable[[Tensor, Tensor], Tensor]


def _sampled(relevance: Tensor, noise: Tensor) -> Tensor:
    """Gumbel top-k: k draws without replacement in proportion to positive relevance (Kool et al., ICML 2019).

    Units without positive relevance come last, in random order.
    """
    positive = relevance.clamp(min=0)
    positive = positive / positive.amax(1, keepdim=True).clamp(min=torch.finfo(positive.dtype).tiny)
    return positive.clamp(min=1e-12).log() - (-noise.log()).log()


SELECTIONS: dict[str, Score] = {
    "sample": _sampled,
    "top": lambda relevance, noise: relevance,
    "random": lambda relevance, noise: noise,  # the control: relevance is ignored
}


def units_to_hide(maskable: Tensor, rate: float) -> Tensor:
    """How many units of each row are hidden, ``(rows,)``: rate · maskable units, rounded; at least one, but never all.

    A row with fewer than two maskable units hides none: nothing would be left to decide on.
    """
    count = maskable.sum(1)
    wanted = torch.floor(count * rate + 0.5).long()
    return torch.minimum(wanted.clamp(min=1), (count - 1).clamp(min=0))


def select(relevance: Tensor, maskable: Tensor, rate: float, selection: str, noise: Tensor) -> Tensor:
    """The units to hide.

    Args:
        relevance: ``(rows, units)`` floats, finite.
        maskable: ``(rows, units)`` bool, True where a unit may be hidden.
        rate: share of a row's maskable units to hide.
        selection: a name in :data:`SELECTIONS`.
        noise: ``(rows, units)`` uniform numbers in (0, 1).

    Returns:
        drop_mask, ``(rows, units)`` bool, True = removed; a subset of ``maskable``.
    """
    score = SELECTIONS[selection](relevance.float(), noise).masked_fill(~maskable, float("-inf"))
    rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < units_to_hide(maskable, rate).unsqueeze(1)) & maskable


def removed_share(relevance: Tensor, maskable: Tensor, drop_mask: Tensor) -> Tensor:
    """Share of each row's positive relevance that the drop_mask removes, ``(rows,)`` in [0, 1]; 0 where none is positive."""
    positive = relevance.float().clamp(min=0) * maskable
    return (positive * drop_mask).sum(1) / positive.sum(1).clamp(min=torch.finfo(torch.float32).tiny)
