"""One cue of tokens in place of another, of any length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def exchange_tokens(
    inputs: Mapping[str, Any], units: Any, mask: Tensor, donor: Sequence[int], limit: int | None = None
) -> dict[str, Any]:
    """Rows with other tokens where theirs are marked, padded anew on the right.

    The other tokens stand where the longest marked run stood; what is marked elsewhere goes.

    Args:
        inputs: a batch of token ids; what else it holds for each token goes along.
        units: the adapter of tokens.
        mask: ``(rows, length)`` bool; at least one unit of each row is marked.
        donor: the other token ids, in their order.
        limit: tokens that the model takes. A row that grows longer loses those before its last token.
    """
    ids = inputs[units.key]
    attended = units.attended(inputs)
    rows = []
    for marked, counts in zip(mask.tolist(), attended.tolist(), strict=True):
        start = _longest_run(marked)
        kept = [i for i, is_marked in enumerate(marked) if counts[i] and not is_marked]
        before = [i for i in kept if i < start]
        places = [*before, *[start] * len(donor), *kept[len(before) :]]
        new = torch.tensor([-1] * len(before) + list(donor) + [-1] * (len(kept) - len(before)))
        if limit is not None and len(places) > limit:
            places, new = [*places[: limit - 1], places[-1]], torch.cat([new[: limit - 1], new[-1:]])
        rows.append((torch.tensor(places), new))
    longest = max(len(index) for index, _ in rows)
    pad = units.pad_token_id or 0
    found: dict[str, Any] = {}
    for key, values in inputs.items():
        if not isinstance(values, Tensor) or values.shape != ids.shape:
            found[key] = values
        elif key not in (units.attention_key, "position_ids"):  # positions are counted anew by the model
            fill = pad if key == units.key else 0
            found[key] = values.new_full((len(ids), longest), fill)
            for row, (index, new) in enumerate(rows):
                taken, other = values[row, index.to(ids.device)], new.to(ids.device)
                found[key][row, : len(index)] = torch.where(other >= 0, other, taken) if key == units.key else taken
    if units.takes_attention_mask:
        lengths = torch.tensor([len(index) for index, _ in rows], device=ids.device)
        found[units.attention_key] = (torch.arange(longest, device=ids.device) < lengths.unsqueeze(1)).long()
    return found


def _longest_run(marked: Sequence[bool]) -> int:
    """Where the longest run of True starts."""
    start = length = best = begun = 0
    for i, is_marked in enumerate([*marked, False]):
        if is_marked:
            begun, length = (i, 1) if not length else (begun, length + 1)
        elif length:
            if length > best:
                start, best = begun, length
            length = 0
    return start
