"""How units are hidden: drop_mask → challenged inputs. To add a way of your own, put it into :data:`PERTURBATIONS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from ...errors import ChallengerError, NotChallengeable
from ...keyed_random import Draw
from .fills import blur, fill_mean, fill_noise, fill_zero, interpolate, swap
from .tokens import delete, remove_from_attention, replace_by_mask_token

__all__ = ["PERTURBATIONS", "Perturbation", "perturbation_for"]

# (inputs, (rows, *grid) drop_mask, adapter, random numbers) -> inputs
Perturbation = Callable[[dict[str, Any], Tensor, Any, Draw], dict[str, Any]]

PERTURBATIONS: dict[str, Perturbation] = {
    "delete": delete,
    "attention": remove_from_attention,
    "mask": replace_by_mask_token,
    "mean": fill_mean,
    "zero": fill_zero,
    "noise": fill_noise,
    "interpolate": interpolate,
    "blur": blur,
    "swap": swap,
}


def perturbation_for(name: str, units: Any) -> Perturbation:
    """The perturbation of that name; ``auto`` is the adapter's own choice: the first of its ``perturbations``.

    Args:
        name: a key of :data:`PERTURBATIONS`, or ``auto``.
        units: the adapter.

    Raises:
        ChallengerError: if it does not fit the adapter's input.
    """
    if name == "auto":
        name = units.perturbations[0]
        if name == "mask" and units.mask_token_id is None:
            raise NotChallengeable(
                "The model takes no attention_mask, and no tokenizer with a mask token was given, so that there is no way to hide"
                " a word. Pass processing_class=tokenizer, of a tokenizer with a mask token."
            )
    if name == "attention" and getattr(units, "read_twice", False) and units.filler_id is None:
        raise NotChallengeable(
            "The model's decoder reads the words a second time, past the attention mask, and there is no token to put in their place."
            " Pass processing_class=tokenizer, of a tokenizer with a mask token or an unknown token."
        )
    if name not in units.perturbations:
        why = (
            f"needs a model that takes an {units.attention_key}, and this one does not"
            if name == "attention" and hasattr(units, "attention_key")
            else f"does not fit {units.key!r} ({type(units).__name__})"
        )
        raise ChallengerError(
            f"challenge_perturbation={name!r} {why}. Use challenge_perturbation="
            f"{' or '.join(map(repr, units.perturbations))}."
        )
    return PERTURBATIONS[name]
