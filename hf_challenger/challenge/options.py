"""How inputs are challenged: every option of the challenge, each described here and nowhere else."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from ..attribution.composites import COMPOSITES, Composite
from ..attribution.methods import METHODS
from ..errors import ChallengerError, check_choice
from ..inputs import ADAPTERS
from .named_cues import check_names
from .perturbation import PERTURBATIONS
from .selection import CUES, NAMED, SELECTIONS, WITHOUT_RELEVANCE

THRESHOLD = 0.5  # of cues, where neither the user nor the adapter says
RATE = 0.25  # of a row's units, where neither the user nor the adapter says


def _choices(what: str, names: Any) -> str:
    return f"{what} One of: {', '.join(names)}."


@dataclass
class ChallengeOptions:
    """What a challenge is made of. The same fields, with the same names, are flags of :class:`ChallengerConfig`.

    Each field's help text describes it; docs/trainer.md has them in a table.
    """

    challenge_share: float = field(
        default=0.75,
        metadata={
            "help": "Share of the rows that are challenged, in [0, 1]: of the rows that hold a cue of their class, or with a"
            " row-level selection of all rows. 0 is plain Trainer, bit for bit."
        },
    )
    challenge_selection: str = field(
        default=CUES,
        metadata={
            "help": _choices(
                "What is hidden. 'cues': what holds a class's relevance over many rows. 'named': only what challenge_hide names, at"
                " no cost. Row by row: 'sample' draws units in proportion to positive relevance, 'top' takes the most relevant,"
                " 'random' any.",
                (CUES, NAMED, *SELECTIONS),
            )
        },
    )
    challenge_threshold: float | None = field(
        default=None,
        metadata={
            "help": "Strength from which something is a cue, in [0, 1): its mean share of the relevance of the rows that hold it."
            " Not set: 0.8 for tokens, 0.25 for images, 0.2 for series and audio, whose places must also tell the class."
        },
    )
    challenge_keep: list[str] = field(
        default_factory=list,
        metadata={"help": "Cues that are legitimate and left alone, as trainer.cues shows them, such as who."},
    )
    challenge_hide: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Known leaks. A single one is hidden in every row; several are exchanged for each other at random, so that"
            " they tell nothing."
        },
    )
    challenge_rate: float | None = field(
        default=None,
        metadata={
            "help": "Row-level selections: share of a row's maskable units that is hidden, in (0, 1]; at least one, never all."
            " Not set: 0.25 for tokens and patches, 0.1 for series and audio."
        },
    )
    challenge_attribution: str = field(
        default="lrp", metadata={"help": _choices("What tells how relevant a unit is.", METHODS)}
    )
    challenge_composite: str = field(
        default="attnlrp", metadata={"help": _choices("LRP rules, used by challenge_attribution='lrp'.", COMPOSITES)}
    )
    challenge_perturbation: str = field(
        default="auto",
        metadata={
            "help": _choices(
                "How units are hidden. 'auto' deletes tokens, puts another row's content into the place of a cue,"
                " and fills all else with its mean. delete, attention and mask"
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
                "What a unit is. 'auto' is told by the model's main input. Others can be registered.", ("auto", *ADAPTERS)
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

    @classmethod
    def of(cls, args: Any) -> ChallengeOptions:
        """The options found on ``args`` (a plain TrainingArguments has none: all defaults), validated."""
        options = cls(**{f.name: getattr(args, f.name) for f in fields(cls) if hasattr(args, f.name)})
        options.validate()
        return options

    def validate(self) -> None:
        """Raise :class:`ChallengerError` at the first option that is out of range or unknown."""
        self._check_range("challenge_share")
        if self.challenge_threshold is not None:
            self._check_range("challenge_threshold", high_open=True)
        if self.challenge_rate is not None:
            self._check_range("challenge_rate", low_open=True)
        if not isinstance(self.challenge_composite, Composite):
            check_choice("challenge_composite", self.challenge_composite, COMPOSITES)
        check_choice("challenge_attribution", self.challenge_attribution, METHODS)
        check_choice("challenge_selection", self.challenge_selection, (CUES, NAMED, *SELECTIONS))
        check_choice("challenge_perturbation", self.challenge_perturbation, ("auto", *PERTURBATIONS))
        check_choice("challenge_units", self.challenge_units, ("auto", *ADAPTERS))
        check_names("challenge_keep", self.challenge_keep)
        check_names("challenge_hide", self.challenge_hide)
        if both := set(self.challenge_keep) & set(self.challenge_hide):
            raise ChallengerError(f"{sorted(both)[0]!r} is in challenge_keep and in challenge_hide. Take it out of one.")
        size = self.challenge_unit_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ChallengerError(
                f"challenge_unit_size={size!r} is not a whole number from 1 on. Leave it unset for the default."
            )

    def without_effect(self) -> list[str]:
        """One sentence for each option that is set and does nothing beside the others."""
        default = ChallengeOptions()
        found: list[str] = []
        changed = {f.name for f in fields(self) if getattr(self, f.name) != getattr(default, f.name)}

        def idle(names: set[str], why: str) -> None:
            found.extend(f"{name} has no effect: {why}." for name in sorted(names & changed))

        if self.challenge_share == 0:
            idle(
                {f.name for f in fields(self)} - {"challenge_share", "challenge_hide"}, "challenge_share=0 is plain Trainer"
            )
            idle(
                {"challenge_hide"},
                "challenge_share=0 is plain Trainer; challenge_selection='named' hides leaks and nothing else",
            )
            return found
        if self.challenge_selection in (CUES, NAMED):
            idle({"challenge_rate"}, f"it is for row-level selections, and challenge_selection={self.challenge_selection!r}")
        if self.challenge_selection != CUES:
            which = f"it is for challenge_selection='cues', not {self.challenge_selection!r}"
            idle({"challenge_threshold", "challenge_keep"}, which)
        if self.challenge_selection == NAMED:
            idle({"challenge_share"}, "challenge_selection='named' takes a leak out of every row")
            if not self.challenge_hide:
                idle({"challenge_selection"}, "it hides what challenge_hide names, and nothing is named")
        if self.challenge_selection in WITHOUT_RELEVANCE:
            names = {"challenge_composite"} | ({"challenge_attribution"} if self.challenge_attribution != "none" else set())
            idle(names, f"challenge_selection={self.challenge_selection!r} reads no relevance")
        elif self.challenge_attribution != "lrp":
            idle({"challenge_composite"}, f"challenge_attribution={self.challenge_attribution!r} knows no LRP rules")
        return found

    @property
    def names(self) -> list[list[str]]:
        """What is kept, and what is hidden."""
        return [list(self.challenge_keep), list(self.challenge_hide)]

    def rate_for(self, units: Any) -> float:
        """``challenge_rate``, or what suits the adapter."""
        return float(getattr(units, "rate", RATE) if self.challenge_rate is None else self.challenge_rate)

    def threshold_for(self, units: Any) -> float:
        """``challenge_threshold``, or what suits the adapter."""
        return float(
            getattr(units, "threshold", THRESHOLD) if self.challenge_threshold is None else self.challenge_threshold
        )

    def _check_range(self, name: str, low_open: bool = False, high_open: bool = False) -> None:
        value = getattr(self, name)
        number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not number or value > 1 or value < 0 or (low_open and value == 0) or (high_open and value == 1):
            raise ChallengerError(f"{name}={value!r} is outside {'(' if low_open else '['}0, 1{')' if high_open else ']'}.")
