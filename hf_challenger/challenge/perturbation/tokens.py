"""How tokens are hidden."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...errors import ChallengerError
from ...inputs.tokens import Tokens
from ...keyed_random import Draw


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
