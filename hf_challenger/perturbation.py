"""How units are hidden: drop_mask → challenged inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .errors import ChallengerError
from .inputs import Tokens

Perturbation = Callable[[dict[str, Any], Tensor, Tokens], dict[str, Any]]


def remove_from_attention(inputs: dict[str, Any], drop_mask: Tensor, tokens: Tokens) -> dict[str, Any]:
    """Dropped tokens are attended to by none: as if the word were not there, with the other positions unchanged."""
    attended = tokens.attended(inputs)
    key = tokens.attention_key
    dtype = inputs[key].dtype if key in inputs else inputs[tokens.key].dtype
    return {**inputs, key: (attended & ~drop_mask).to(dtype)}


def replace_by_mask_token(inputs: dict[str, Any], drop_mask: Tensor, tokens: Tokens) -> dict[str, Any]:
    """Dropped tokens become the tokenizer's mask token."""
    if tokens.mask_token_id is None:
        raise ChallengerError(
            "challenge_perturbation='mask' needs a tokenizer with a mask token, and this one has none. Use"
            " challenge_perturbation='attention', which every tokenizer supports."
        )
    return {**inputs, tokens.key: inputs[tokens.key].masked_fill(drop_mask, tokens.mask_token_id)}


PERTURBATIONS: dict[str, Perturbation] = {"attention": remove_from_attention, "mask": replace_by_mask_token}


def perturbation_for(name: str, tokens: Tokens) -> Perturbation:
    """The perturbation of that name; ``auto`` is removal from attention, or the mask token if the model takes no mask."""
    if name == "auto":
        name = "attention" if tokens.takes_attention_mask else "mask"
    if name == "attention" and not tokens.takes_attention_mask:
        raise ChallengerError(
            f"challenge_perturbation='attention' needs a model that takes an {tokens.attention_key}, and this one does not."
            " Use challenge_perturbation='mask'."
        )
    return PERTURBATIONS[name]
