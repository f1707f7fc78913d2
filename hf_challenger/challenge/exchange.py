"""One run of tokens in place of another of any length. Does not wait for the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def exchange_runs(
    inputs: Mapping[str, Any], units: Any, start: Tensor, length: Tensor, new: Tensor, new_length: Tensor
) -> tuple[dict[str, Any], Tensor]:
    """Rows with other tokens in place of a run of theirs, in a batch that keeps its width.

    A row that would outgrow the batch first loses padding on its left, then tokens at its end, but its last one, then tokens
    before the run. A row that gets shorter is padded on the side of the batch's padding: a model may read its answer at the last
    place. A run that is the whole row stays.

    Args:
        inputs: a batch of token ids, ``(rows, width)``; what else it holds for each token goes along.
        units: the adapter of tokens.
        start, length: ``(rows,)`` the run; length 0: the row stays as it is, whatever is new.
        new: ``(rows, most)`` token ids to put there, the first ``new_length`` of each row, ``(rows,)``.

    Returns:
        The batch, and ``(rows, width)`` which place of the old one each token came from, -1 for new tokens and padding.
    """
    ids, attended = inputs[units.key], units.attended(inputs)
    width = ids.shape[1]
    place = torch.arange(width, device=ids.device).unsqueeze(0)
    first, end = attended.long().argmax(1), (place * attended).argmax(1) + 1  # of what is attended
    length = torch.where(length < attended.sum(1), length, 0)  # something is left of each row
    new_length = torch.where(length > 0, new_length, 0)
    over = (end - length + new_length - width).clamp(min=0)
    shift = torch.minimum(over, first)
    has_last = start + length < end  # the run is not the row's end
    tail = (end - 1 - start - length).clamp(min=0)  # tokens between the run and the last one
    cut_after = torch.minimum(over - shift, tail)
    cut_before = torch.minimum(over - shift - cut_after, (start - first - 1).clamp(min=0))
    new_length = new_length - (over - shift - cut_after - cut_before)
    begin = (start - shift - cut_before).unsqueeze(1)
    after = begin + new_length.unsqueeze(1)
    last = after + (tail - cut_after).unsqueeze(1) - (~has_last).long().unsqueeze(1)
    back = torch.where((end == width) & pads_left(units, attended), width - 1 - last.squeeze(1), 0).clamp(min=0)
    row, place = place, place - back.unsqueeze(1)
    is_new = (place >= begin) & (place < after)
    source = torch.where(place < begin, place + shift.unsqueeze(1), place - after + (start + length).unsqueeze(1))
    source = torch.where((place == last) & has_last.unsqueeze(1), end.unsqueeze(1) - 1, source)
    same = (length == 0).unsqueeze(1)
    is_new, is_padding = is_new & ~same, ((place > last) | ((source < 0) & ~is_new)) & ~same
    source = torch.where(same, row, source.clamp(0, width - 1))
    found = dict(inputs)
    for key, values in inputs.items():
        if isinstance(values, Tensor) and values.shape == ids.shape and key != "position_ids":
            found[key] = values.gather(1, torch.where(is_new, start.unsqueeze(1), source))
    if new.shape[1]:
        tokens = new.gather(1, (place - begin).clamp(0, new.shape[1] - 1)).to(ids.dtype)
        found[units.key] = torch.where(is_new, tokens, found[units.key])
    found[units.key] = found[units.key].masked_fill(is_padding, units.pad_token_id or 0)
    if units.attention_key in inputs:
        mask = found[units.attention_key]
        found[units.attention_key] = mask.masked_fill(is_padding, 0).masked_fill(is_new, 1)
    return found, source.masked_fill(is_new | is_padding, -1)


def longest_run(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Start and length, ``(rows,)`` each, of the longest run of True in each row of ``(rows, width)``; length 0: there is none."""
    place = torch.arange(mask.shape[1], device=mask.device)
    so_far = place - torch.where(mask, -1, place).cummax(1).values  # length of the run that ends there
    length, end = so_far.max(1)
    return (end - length + 1) * (length > 0), length


def pads_left(units: Any, attended: Tensor) -> Tensor:
    """Whether padding stands before the rows, a bool tensor: so it does in this batch, or the tokenizer says so."""
    return ~attended[:, :1].all() | (getattr(getattr(units, "tokenizer", None), "padding_side", None) == "left")


def padded(inputs: Mapping[str, Any], units: Any, width: int) -> dict[str, Any]:
    """A batch of token ids with padding up to that width, on the batch's side; the model counts the positions anew."""
    ids, found = inputs[units.key], {}
    more = width - ids.shape[1]
    sides = (more, 0) if pads_left(units, units.attended(inputs)) else (0, more)
    if units.takes_attention_mask:
        inputs = {**inputs, units.attention_key: units.attended(inputs).to(ids.dtype)}
    for key, values in inputs.items():
        if not isinstance(values, Tensor) or values.shape != ids.shape:
            found[key] = values
        elif key != "position_ids":
            fill = units.pad_token_id or 0 if key == units.key else 0
            found[key] = torch.nn.functional.pad(values, sides, value=fill)
    return found
