"""What is attributed in a batch, and which of its units may be hidden: one adapter for each kind of input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from ..errors import ChallengerError, NotChallengeable, check_choice
from .audio import Audio
from .blocks import Blocks
from .main_input import main_input_of
from .patches import Patches
from .series import Series, SeriesChannelsFirst
from .tokens import Tokens

__all__ = [
    "ADAPTERS",
    "Audio",
    "Blocks",
    "Patches",
    "Series",
    "SeriesChannelsFirst",
    "Tokens",
    "Units",
    "factory_for",
    "register_units",
    "units_for",
]


class Units(Protocol):
    """What a challenge needs to know about a kind of input. The grid of units has one axis (tokens, time) or several (patches).

    Attributes:
        key: the batch's tensor that is attributed; the model's ``main_input_name``.
        perturbations: names of the ways to hide a unit, see :mod:`hf_challenger.challenge.perturbation`; the first is the
            default.
        is_sequence_of_tokens: whether a unit is the same thing wherever it stands (tokens), or is told by its place.
        threshold: optional; stands in for ``challenge_threshold`` where that is not set. Not set: 0.5.
        rate: optional; stands in for ``challenge_rate`` where that is not set.
        places: optional; a :class:`~.places.Places`, for a kind of input whose cues are places. With it, ``telling`` and
            ``level_telling``: R² from which the content of a place tells the class, see
            :class:`~..challenge.places.PlaceMemory`.

    Adapters of tokens have a further method, ``attended``: inputs → ``(rows, length)`` bool, the tokens that count.
    """

    key: str
    perturbations: tuple[str, ...]
    is_sequence_of_tokens: bool

    def maskable(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, *grid)`` bool: the units that may be hidden. Raises :class:`ChallengerError` for bad inputs."""

    def per_unit(self, relevance: Tensor) -> Tensor:
        """What ``LRP.attribute`` returns → ``(rows, *grid)`` floats."""

    def identities(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, *grid)`` integers from 0 on: what a unit is, the same in every row: a token id, or a place."""

    def text_of(self, identities: Sequence[int]) -> str:
        """Identities as people read them; ``places_of(name, inputs, option)`` finds them again."""


# (model, processing_class, challenge_unit_size) -> adapter
Factory = Callable[[nn.Module, Any, "int | None"], Units]


ADAPTERS: dict[str, Factory] = {
    "tokens": Tokens,
    "series": Series,
    "series_channels_first": SeriesChannelsFirst,
    "patches": Patches,
    "audio": Audio,
}

BY_INPUT = {
    "input_ids": "tokens",
    "past_values": "series",
    "pixel_values": "patches",
    "input_values": "audio",
    "input_features": "audio",
}


def register_units(name: str, factory: Factory, main_input: str | None = None) -> None:
    """Make ``challenge_units=name`` known.

    Args:
        name: not yet taken.
        factory: ``(model, processing_class, challenge_unit_size)`` → adapter, see :class:`Units`; a subclass of
            :class:`Blocks` is one.
        main_input: models with this main input get it without being asked.

    Raises:
        ChallengerError: if the name is taken.
    """
    if name in ADAPTERS or name == "auto":
        raise ChallengerError(f"Units named {name!r} are known already. Choose another name.")
    ADAPTERS[name] = factory
    if main_input is not None:
        BY_INPUT[main_input] = name


def factory_for(model: nn.Module, name: str = "auto") -> Factory:
    """What makes the adapter of that name; ``auto`` is told by the model's main input."""
    if name == "auto":
        main = main_input_of(model)
        if main not in BY_INPUT:
            raise NotChallengeable(
                f"The main input of {type(model).__name__} is {main!r}, which does not tell what may be hidden. Set"
                f" challenge_units to one of {', '.join(map(repr, ADAPTERS))}, or set the model's main_input_name to one of"
                f" {', '.join(map(repr, BY_INPUT))}, or register an adapter of your own (docs/adapters.md)."
            )
        name = BY_INPUT[main]
    check_choice("challenge_units", name, ("auto", *ADAPTERS))
    return ADAPTERS[name]


def units_for(model: nn.Module, processing_class: Any = None, name: str = "auto", unit_size: int | None = None) -> Units:
    """The adapter of that name for that model.

    Args:
        model: tells the main input, and the size of its patches where it has any.
        processing_class: the tokenizer, for token ids.
        name: a key of :data:`ADAPTERS`, or ``auto``.
        unit_size: ``challenge_unit_size``.

    Raises:
        NotChallengeable: with ``auto``, for a main input that is not known.
        ChallengerError: for an unknown name, or a unit size for tokens.
    """
    return factory_for(model, name)(model, processing_class, unit_size)
