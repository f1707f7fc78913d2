"""Which rows to challenge, and which of their units to hide: relevance → drop_mask (True = removed)."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
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


def choose_rows(positions: Tensor, share: float, offset: Tensor) -> Tensor:
    """Systematic sampling: every row is chosen with probability ``share``, and any n rows in line hold ⌊n·share⌋ or one more.

    So a step costs what the others cost, and no process waits for one that drew more rows.

    Args:
        positions: ``(rows,)`` integers: each row's position among all rows of the step.
        share: in [0, 1].
        offset: uniform number in (0, 1), the same for all rows of the step.

    Returns:
        ``(rows,)`` bool.
    """
    start = positions.double() * share + offset.double()
    return torch.floor(start + share) > torch.floor(start)


def units_to_hide(maskable: Tensor, rate: float) -> Tensor:
    """How many units of each row are hidden, ``(rows,)``: rate · maskable units, rounded; at least one, but never all.

    A row with fewer than two maskable units hides none: nothing would be left to decide on.
    """
    count = maskable.sum(1)
    wanted = torch.floor(count * rate + 0.5).long()
    return torch.minimum(wanted.clamp(min=1), (count - 1).clamp(min=0))


def select(
    relevance: Tensor,
    maskable: Tensor,
    rate: float | Tensor,
    selection: str,
    noise: Tensor,
    span: int = 1,
    grid: tuple[int, ...] | None = None,
    budget: float = 1.0,
) -> Tensor:
    """The units to hide.

    Args:
        relevance: ``(rows, units)`` floats, finite.
        maskable: ``(rows, units)`` bool, True where a unit may be hidden.
        rate: share of a row's maskable units to hide; or how many, ``(rows,)`` integers.
        selection: a name in :data:`SELECTIONS`.
        noise: ``(rows, units)`` uniform numbers in (0, 1).
        span: units that are hidden side by side around each chosen one, along each axis of the grid. How many are hidden
            in all does not depend on it: the last span of a row is cut.
        grid: how the units lie, ``prod(grid) == units``. None: in one line.
        budget: largest share of a row's positive relevance that may be hidden; units beyond it are passed over.

    Returns:
        drop_mask, ``(rows, units)`` bool, True = removed; a subset of ``maskable``.
    """
    relevance = relevance.float()
    wanted = rate if isinstance(rate, Tensor) else units_to_hide(maskable, rate)
    if span == 1:
        score = SELECTIONS[selection](relevance, noise).masked_fill(~maskable, float("-inf"))
        rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    else:
        rank = _rank_by_spans(relevance, maskable, wanted, selection, noise, span, grid or relevance.shape[1:])
    if budget < 1:
        rank = _rank_within(budget, relevance, maskable, rank)
    return (rank < wanted.unsqueeze(1)) & maskable


def _rank_within(budget: float, relevance: Tensor, maskable: Tensor, rank: Tensor) -> Tensor:
    """The rank among the units that fit into the budget one after the other; those that do not get no rank."""
    positive = relevance.clamp(min=0) * maskable
    share = positive / positive.sum(1, keepdim=True).clamp(min=torch.finfo(positive.dtype).tiny)
    order = rank.argsort(dim=1)
    in_order = share.gather(1, order)
    spent, fits = torch.zeros_like(share[:, 0]), torch.zeros_like(maskable)
    for unit in range(share.shape[1]):
        fits[:, unit] = spent + in_order[:, unit] <= budget
        spent = spent + in_order[:, unit] * fits[:, unit]
    turn = torch.where(fits, fits.cumsum(1) - 1, share.shape[1])
    return torch.empty_like(rank).scatter(1, order, turn)


def _rank_by_spans(
    relevance: Tensor,
    maskable: Tensor,
    wanted: Tensor,
    selection: str,
    noise: Tensor,
    span: int,
    grid: tuple[int, ...],
) -> Tensor:
    """Order of hiding: span after span, and within a span the units nearest to its peak first.

    A peak is chosen by the relevance of the whole span around it, among the units that no earlier span covers.
    """
    score = SELECTIONS[selection](_summed_over_spans(relevance * maskable, span, grid), noise)
    place = torch.cartesian_prod(*(torch.arange(n, device=relevance.device) for n in grid)).reshape(-1, len(grid))
    turn = torch.full_like(score, float("inf"))
    for number in range(int(wanted.max())):
        free = maskable & turn.isinf()
        peak = score.masked_fill(~free, float("-inf")).argmax(1)
        # The middle of an even span lies half a unit behind its peak.
        distance = (place - place[peak].unsqueeze(1) - (1 - span % 2) / 2).abs().amax(-1)
        turn = torch.where(free & (distance <= (span - 1) / 2), number + distance / span, turn)
        if bool(((~turn.isinf()).sum(1) >= wanted).all()):
            break
    return turn.argsort(dim=1, stable=True).argsort(dim=1)


def _summed_over_spans(relevance: Tensor, span: int, grid: tuple[int, ...]) -> Tensor:
    """``(rows, units)``: the relevance of the span around each unit."""
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[len(grid)]
    around = F.pad(relevance.reshape(-1, 1, *grid), ((span - 1) // 2, span // 2) * len(grid))
    return pool(around, span, stride=1).reshape(relevance.shape) * span ** len(grid)


def removed_share(relevance: Tensor, maskable: Tensor, drop_mask: Tensor) -> Tensor:
    """Share of each row's positive relevance that the drop_mask removes, ``(rows,)`` in [0, 1]; 0 where none is positive."""
    positive = relevance.float().clamp(min=0) * maskable
    return (positive * drop_mask).sum(1) / positive.sum(1).clamp(min=torch.finfo(torch.float32).tiny)
