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
    """Dropped tokens are attended to by none: as if the word were not there, with the other positions unchanged."""
    attended = tokens.attended(inputs)
    key = tokens.attention_key
    dtype = inputs[key].dtype if key in inputs else inputs[tokens.key].dtype
    return {**inputs, key: (attended & ~drop_mask).to(dtype)}


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
