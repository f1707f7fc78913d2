"""What the cue memory is told of a row: its most relevant units, what they are, and a key that tells rows apart."""

from __future__ import annotations

import torch
from torch import Tensor

from ..keyed_random import hashed

UNITS = 32  # units a row that are remembered, the most relevant ones: a cue of more units is cut
NOTHING = -1  # where a row has fewer units


def shares_of(relevance: Tensor, maskable: Tensor) -> Tensor:
    """``(rows, units)`` floats: positive relevance over the row's sum of it, 0 where none is positive."""
    positive = relevance.float().clamp(min=0) * maskable
    return positive / positive.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def most_relevant(relevance: Tensor, maskable: Tensor, identities: Tensor) -> tuple[Tensor, Tensor]:
    """Identities of the :data:`UNITS` most relevant units of each row, in the row's order, and their shares of its relevance.

    Args:
        relevance: ``(rows, units)`` floats, finite.
        maskable: ``(rows, units)`` bool.
        identities: ``(rows, units)`` integers from 0 on.

    Returns:
        ``(rows, UNITS)`` int64, :data:`NOTHING` where a row has fewer units; and ``(rows, UNITS)`` floats: positive relevance
        over the row's sum of it, 0 where none is positive.
    """
    shares = shares_of(relevance, maskable)
    order = shares.masked_fill(~maskable, -1).topk(min(UNITS, shares.shape[1]), dim=1).indices.sort(1).values
    found = identities.long().masked_fill(~maskable, NOTHING).gather(1, order)
    missing = UNITS - order.shape[1]
    return (
        torch.nn.functional.pad(found, (0, missing), value=NOTHING),
        torch.nn.functional.pad(shares.gather(1, order), (0, missing)),
    )


def in_one(labels: Tensor, keys: Tensor, identities: Tensor, shares: Tensor) -> Tensor:
    """What :meth:`CueMemory.remember` takes as one tensor, so that it is gathered and copied to the host once.

    Returns:
        ``(rows, 2 + 2 · UNITS)`` int64; the shares are there by their bits.
    """
    return torch.cat([labels[:, None], keys[:, None], identities, shares.float().contiguous().view(torch.int32)], dim=1)


def taken_apart(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The four tensors of :func:`in_one`."""
    labels, keys, identities, bits = rows.split([1, 1, UNITS, UNITS], dim=1)
    return labels.squeeze(1), keys.squeeze(1), identities, bits.int().view(torch.float32)


def row_keys(identities: Tensor, maskable: Tensor) -> Tensor:
    """``(rows,)`` int64, equal for rows of equal content, wherever their padding lies.

    Args:
        identities: ``(rows, units)`` integers.
        maskable: ``(rows, units)`` bool.
    """
    return (hashed(maskable.cumsum(1), identities) * maskable).sum(1)


def row_keys_of(values: Tensor) -> Tensor:
    """The same of ``(rows, …)`` floats."""
    bits = values.flatten(1).float().contiguous().view(torch.int32)
    return row_keys(bits, torch.ones_like(bits, dtype=torch.bool))
