"""How tokens are hidden."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...errors import ChallengerError
from ...inputs.tokens import Tokens
from ...keyed_random import Draw
from ..exchange import pads_left


def delete(inputs: dict[str, Any], drop_mask: Tensor, tokens: Tokens, draw: Draw | None = None) -> dict[str, Any]:
    """Dropped tokens are taken out of their rows: what is left moves together, and padding takes their room.

    A gap would tell as much as the word. If each row of a class begins with "via app", and its words are hidden where they stand, the
    text of this class begins at another position than those of the others.
    """
    ids, attended, key = inputs[tokens.key], tokens.attended(inputs), tokens.attention_key
    left = pads_left(tokens, attended)
    order = (drop_mask ^ left).int().argsort(dim=1, stable=True)  # rows without dropped tokens stay as they are
    dropped = drop_mask.gather(1, order)
    found = {
        k: v.gather(1, order.reshape(*order.shape, *(1,) * (v.dim() - 2)).expand_as(v))
        if isinstance(v, Tensor) and v.shape[:2] == ids.shape and v.dim() <= 3 and k != "position_ids"
        else v
        for k, v in inputs.items()
    }
    found[tokens.key] = found[tokens.key].masked_fill(dropped, tokens.pad_token_id or 0)
    dtype = inputs[key].dtype if key in inputs else ids.dtype
    return {**found, key: (attended.gather(1, order) & ~dropped).to(dtype)}


def remove_from_attention(
    inputs: dict[str, Any], drop_mask: Tensor, tokens: Tokens, draw: Draw | None = None
) -> dict[str, Any]:
    """Dropped tokens are attended to by none: as if the word were not there, with the other positions unchanged.

    Their ids become a filler. An attention mask is not all that reads them: the decoder of BART or T5 gets them as its own inputs, and
    convolutions (ConvBERT) and pooling (CANINE) look past it. Where it is, the filler changes nothing.
    """
    attended, ids = tokens.attended(inputs), inputs[tokens.key]
    key = tokens.attention_key
    dtype = inputs[key].dtype if key in inputs else ids.dtype
    filled = ids if tokens.filler_id is None else ids.masked_fill(drop_mask, tokens.filler_id)
    return {**inputs, tokens.key: filled, key: (attended & ~drop_mask).to(dtype)}


def replace_by_mask_token(
    inputs: dict[str, Any], drop_mask: Tensor, tokens: Tokens, draw: Draw | None = None
) -> dict[str, Any]:
    """Dropped tokens become the tokenizer's mask token."""
    if tokens.mask_token_id is None:
        raise ChallengerError(
            "challenge_perturbation='mask' needs a tokenizer with a mask token, and this one has none. Use"
            " challenge_perturbation='attention', which every tokenizer supports."
        )
    return {**inputs, tokens.key: inputs[tokens.key].masked_fill(drop_mask, tokens.mask_token_id)}
