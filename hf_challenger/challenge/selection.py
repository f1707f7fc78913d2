"""Row-level selections: which units of a single row to hide, by its relevance alone.

All have the signature ``(relevance, maskable, rate, noise) -> drop_mask``: tensors ``(rows, units)``, with ``noise`` uniform in
(0, 1) and True = removed in ``drop_mask``; ``rate`` is a share of a row's maskable units, see :func:`units_to_hide`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# (relevance, maskable, rate, uniform noise in (0, 1)) -> drop_mask, all of shape (rows, units) but the rate
Selection = Callable[[Tensor, Tensor, float, Tensor], Tensor]


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


def highest(score: Tensor, maskable: Tensor, rate: float) -> Tensor:
    """The drop_mask of the units with the highest scores; ties go to the first.

    Args:
        score: ``(rows, units)``.
        maskable: ``(rows, units)`` bool, True where a unit may be hidden.
        rate: share of a row's maskable units to hide, see :func:`units_to_hide`.

    Returns:
        ``(rows, units)`` bool, True = removed.
    """
    order = score.masked_fill(~maskable, float("-inf")).argsort(dim=1, descending=True, stable=True)
    rank = order.argsort(dim=1)
    return (rank < units_to_hide(maskable, rate).unsqueeze(1)) & maskable


def sample(relevance: Tensor, maskable: Tensor, rate: float, noise: Tensor) -> Tensor:
    """Gumbel top-k: k draws without replacement in proportion to positive relevance (Kool et al., ICML 2019).

    Units without positive relevance come last, in random order.
    """
    positive = relevance.float().clamp(min=0)
    positive = positive / positive.amax(1, keepdim=True).clamp(min=torch.finfo(positive.dtype).tiny)
    return highest(positive.clamp(min=1e-12).log() - (-noise.log()).log(), maskable, rate)


def top(relevance: Tensor, maskable: Tensor, rate: float, noise: Tensor) -> Tensor:
    """The most relevant units."""
    return highest(relevance.float(), maskable, rate)


def random(relevance: Tensor, maskable: Tensor, rate: float, noise: Tensor) -> Tensor:
    """The control: relevance is ignored."""
    return highest(noise, maskable, rate)


# Put a function of your own into it to try another selection: challenge_selection takes its name.
SELECTIONS: dict[str, Selection] = {"sample": sample, "top": top, "random": random}

# The selections that are not row-level: cues that the memory knows, or only what challenge_hide names.
CUES, NAMED = "cues", "named"

# Those that read no relevance, so that none is computed for them.
WITHOUT_RELEVANCE = ("random", NAMED)
