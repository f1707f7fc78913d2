"""How inputs are challenged: every option of the library, each described here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from typing import Any

from .attribution.composites import COMPOSITES, Composite
from .attribution.methods import METHODS
from .attribution.targets import TARGETS
from .errors import ChallengerError, check_choice
from .inputs import ADAPTERS, defaults_of
from .perturbation import PERTURBATIONS
from .selection import SELECTIONS

MIXES = ("replace", "append")


def _choices(what: str, names: Any) -> str:
    return f"{what} One of: {', '.join(names)}."


@dataclass
class ChallengeOptions:
    """What a challenge is made of. The same fields, with the same names, are flags of :class:`ChallengerConfig`."""

    challenge_share: float | None = field(
        default=None,
        metadata={
            "help": "Share p of the rows that are challenged in training, in [0, 1]. 0 is plain Trainer, bit for bit. Not set: 0.5"
            " for images and inputs of your own; 0 for tokens, series and audio, which are calibrated only."
        },
    )
    challenge_rate: float | None = field(
        default=None,
        metadata={
            "help": "Share of a row's maskable units that is hidden, in (0, 1]; at least one, never all. Not set: 0.25 for tokens"
            " and patches, 0.1 for series and audio."
        },
    )
    challenge_weight: float | None = field(
        default=None,
        metadata={
            "help": "Weight λ of the challenged rows in the loss, in [0, 1]: clean rows weigh (1-λ)/(1-p), challenged ones"
            " λ/p. Not set: λ = p, so that every row weighs 1. With challenge_mix='append': (1-λ)·clean + λ·challenged"
            " (not set: 0.5)."
        },
    )
    challenge_mix: str = field(
        default="replace",
        metadata={
            "help": "'replace': challenged rows take the place of their clean ones (1.33 times the cost of a plain step at"
            " p = 0.5). 'append': they join them (2.7 times at p = 1)."
        },
    )
    challenge_attribution: str = field(
        default="lrp", metadata={"help": _choices("What tells how relevant a unit is.", METHODS)}
    )
    challenge_composite: str = field(
        default="attnlrp", metadata={"help": _choices("LRP rules, used by challenge_attribution='lrp'.", COMPOSITES)}
    )
    challenge_target: str = field(
        default="gold", metadata={"help": _choices("The score whose relevance is computed.", TARGETS)}
    )
    challenge_selection: str = field(
        default="sample",
        metadata={
            "help": _choices("How units are chosen: 'sample' draws them in proportion to positive relevance.", SELECTIONS)
        },
    )
    challenge_perturbation: str = field(
        default="auto",
        metadata={
            "help": _choices(
                "How units are hidden. 'auto' removes tokens from attention, and fills all else with its mean. attention and mask"
                " are for tokens, interpolate for series and audio, blur for images; mean, zero, noise and swap (with another"
                " row's) for all three.",
                ("auto", *PERTURBATIONS),
            )
        },
    )
    challenge_units: str = field(
        default="auto",
        metadata={
            "help": _choices(
                "What is hidden. 'auto' is told by the model's main input. Others can be registered.", ("auto", *ADAPTERS)
            )
        },
    )
    challenge_unit_size: int | None = field(
        default=None,
        metadata={
            "help": "Size of a unit: time steps, samples, or pixels a side. Not set: the model's patch, or else a 24th of a"
            " series and an 8th of an image's side. Not for tokens."
        },
    )
    challenge_span: int | None = field(
        default=None,
        metadata={
            "help": "Units that are hidden side by side around each chosen one (images: along both sides); challenge_rate still"
            " counts units. Not set: 1."
        },
    )
    challenge_softening: float | None = field(
        default=None,
        metadata={
            "help": "How much certainty a challenged row's target gives up, times the share of positive relevance that was"
            " hidden, in [0, 1]. 0 keeps hard labels. Not set: 1 for tokens and patches, 0.5 for series and audio. Single-label"
            " classification only."
        },
    )
    challenge_threshold: float = field(
        default=0.9,
        metadata={
            "help": "A chosen row is challenged only while the model gives its gold class at least this probability, in [0, 1)."
            " 0: always. Single-label classification only."
        },
    )
    challenge_budget: float = field(
        default=1.0,
        metadata={
            "help": "Largest share of a row's positive relevance that may be hidden, in (0, 1]: units that would exceed it are"
            " passed over. 1: no limit."
        },
    )

    @classmethod
    def of(cls, args: Any) -> ChallengeOptions:
        """The options found on ``args`` (a plain TrainingArguments has none: all defaults), validated."""
        options = cls(**{f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)})
        options.validate()
        return options

    def validate(self) -> None:
        """Raise :class:`ChallengerError` at the first option that is out of range or unknown."""
        if self.challenge_share is not None:
            self._check_range("challenge_share", low_open=False)
        if self.challenge_rate is not None:
            self._check_range("challenge_rate", low_open=True)
        if self.challenge_softening is not None:
            self._check_range("challenge_softening", low_open=False)
        self._check_range("challenge_threshold", low_open=False)
        self._check_range("challenge_budget", low_open=True)
        if self.challenge_weight is not None:
            self._check_range("challenge_weight", low_open=False)
        if not isinstance(self.challenge_composite, Composite):
            check_choice("challenge_composite", self.challenge_composite, COMPOSITES)
        check_choice("challenge_attribution", self.challenge_attribution, METHODS)
        check_choice("challenge_target", self.challenge_target, TARGETS)
        check_choice("challenge_selection", self.challenge_selection, SELECTIONS)
        check_choice("challenge_perturbation", self.challenge_perturbation, ("auto", *PERTURBATIONS))
        check_choice("challenge_units", self.challenge_units, ("auto", *ADAPTERS))
        check_choice("challenge_mix", self.challenge_mix, MIXES)
        for name in ("challenge_unit_size", "challenge_span"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ChallengerError(f"{name}={value!r} is not a whole number from 1 on. Leave it unset for the default.")
        if self.challenge_mix == "replace" and self.challenge_share == 1 and self.challenge_weight not in (None, 1, 1.0):
            raise ChallengerError(
                f"challenge_share=1 with challenge_mix='replace' leaves no clean row, but challenge_weight={self.challenge_weight}"
                " asks for some. Leave challenge_weight unset, lower challenge_share, or use challenge_mix='append'."
            )

    def _check_range(self, name: str, low_open: bool) -> None:
        value = getattr(self, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value > 1 or value < 0 or (low_open and value == 0):
            raise ChallengerError(f"{name}={value!r} is outside {'(' if low_open else '['}0, 1].")

    def resolved(self, units: Any) -> ChallengeOptions:
        """These options with what suits an adapter (or what makes it) wherever they are not set."""
        named = {f"challenge_{name}": value for name, value in defaults_of(units).items()}
        return replace(self, **{name: value for name, value in named.items() if getattr(self, name) is None})

    def row_weights(self) -> tuple[float, float]:
        """Weights (clean, challenged) of a row's loss: see ``challenge_weight``."""
        p, weight = self.challenge_share, self.challenge_weight
        if self.challenge_mix == "append":
            weight = 0.5 if weight is None else weight
            return 1 - weight, weight
        if p is None:
            raise ChallengerError(
                "challenge_share is not set. Call resolved() first: what it comes to depends on the input."
            )
        if weight is None or p in (0, 1):
            return 1.0, 1.0
        return (1 - weight) / (1 - p), weight / p
