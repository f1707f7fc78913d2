"""The result of :func:`~.cue_report.cue_report`: plain values, as text for a terminal and as a dictionary for json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb
from typing import Any

from .pictures import Picture

LEAST_CHANGED = 0.02  # share of predictions that change
LEVEL = 0.05  # of the test that more of them change: one changed row of 30 may well be chance
LEAST_DROP = 0.05  # of the mean probability of the class, as a share of itself: with many classes it may be small
SHOWN = 20  # candidates in a terminal
WIDEST = 60  # characters of a cell there
KEY = (
    "of rows: share of the class's rows that hold the cue. strength: mean share of their positive relevance that it holds.\n"
    "changed: predictions that change with the cue hidden → exchanged for one of another class, where there is one.\n"
    "probability of the class, and accuracy: as it is → hidden → exchanged."
)


@dataclass(frozen=True)
class Reading:
    """How a model answers rows of one class, read in one way.

    Attributes:
        accuracy: share of the rows predicted as their class; None where the class is the model's own prediction.
        probability: mean probability of the class.
        changed: share of the rows whose prediction differs from that for the row as it is.
    """

    accuracy: float | None
    probability: float
    changed: float


@dataclass(frozen=True)
class Example:
    """A row that holds a cue: a text in pieces, or a picture.

    Attributes:
        pieces: the text in pieces of words; none for images and series.
        goes_on: whether each piece belongs to the word of the piece before.
        marked: whether each piece belongs to the cue.
        as_is: predicted class and its probability.
        hidden: the same, with the cue hidden.
        picture: the image or series, with the cue's places flagged.
    """

    pieces: list[str]
    goes_on: list[bool]
    marked: list[bool]
    as_is: tuple[str, float]
    hidden: tuple[str, float]
    picture: Picture | None = None


@dataclass(frozen=True)
class ClassPicture:
    """The mean of a class's images or series, with their mean relevance.

    Attributes:
        class_name: of the class.
        rows: of which it is the mean.
        picture: its shade is the mean share of the positive relevance.
    """

    class_name: str
    rows: int
    picture: Picture


@dataclass
class CueEffect:
    """A candidate, and what the model does without it.

    Attributes:
        text: how the cue reads; words of a phrase are one cue.
        class_name: of the class.
        coverage: share of the class's rows that hold it.
        strength: mean share of those rows' positive relevance.
        rows: on how many of them the readings were measured.
        as_is: the rows as they are.
        hidden: the cue hidden.
        exchanged: the cue exchanged for ``exchanged_for``, a cue of another class; None where there is none.
        label: index of the class.
        identities: token ids, or positions on the grid of units.
    """

    text: str
    class_name: str
    coverage: float
    strength: float
    rows: int
    as_is: Reading
    hidden: Reading
    exchanged: Reading | None = None
    exchanged_for: str = ""
    label: int = 0
    identities: tuple[int, ...] = ()
    examples: list[Example] = field(default_factory=list)

    @property
    def drop(self) -> float:
        """By how much the mean probability of the class falls when the cue is hidden."""
        return self.as_is.probability - self.hidden.probability

    @property
    def leaned_on(self) -> bool:
        """Whether, with the cue hidden, significantly more than :data:`LEAST_CHANGED` of the predictions change and the mean
        probability of the class falls by at least :data:`LEAST_DROP` of itself.

        A one-sided binomial test at :data:`LEVEL`: the exact interval of the share (Clopper and Pearson, Biometrika 1934) lies
        above :data:`LEAST_CHANGED`.
        """
        changed = round(self.hidden.changed * self.rows)
        fewer = sum(comb(self.rows, k) * LEAST_CHANGED**k * (1 - LEAST_CHANGED) ** (self.rows - k) for k in range(changed))
        return 1 - fewer < LEVEL and self.drop >= LEAST_DROP * self.as_is.probability


@dataclass
class CueReport:
    """What a classifier leans on over a data set.

    Attributes:
        cues: all candidates: those leaned on first, by the drop of probability times the share of the class's rows.
        labelled: whether the rows came with labels. If not, a row's class is the model's prediction.
        rows_read: rows that were attributed.
        rows_given: rows of the data set.
        rows_with_cue: rows read that hold a cue of their class that is leaned on.
        as_is: of those rows; None where there are none.
        hidden: of those rows, with all such cues hidden.
        notes: sentences on what was cut or left out.
        unread: names of the classes of which too few rows are predicted as their class.
        pictures: of each class, for images and series.
    """

    cues: list[CueEffect]
    labelled: bool
    rows_read: int
    rows_given: int
    rows_with_cue: int = 0
    as_is: Reading | None = None
    hidden: Reading | None = None
    notes: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    pictures: list[ClassPicture] = field(default_factory=list)

    @property
    def leaned_on(self) -> list[CueEffect]:
        """The cues that the predictions depend on."""
        return [cue for cue in self.cues if cue.leaned_on]

    @property
    def summary(self) -> str:
        """The answer in one sentence."""
        count = len(self.leaned_on)
        if not count or self.as_is is None or self.hidden is None:
            unread = f" {len(self.unread)} of the classes could not be read, see below: is the input the model's own?"
            return "No cue that the model leans on was found." + (unread if self.unread else "")
        without = f"{count} cue{'s' if count > 1 else ''} that the model leans on; without {'them' if count > 1 else 'it'}"
        on = f"on the {self.rows_with_cue} rows that hold {'one' if count > 1 else 'it'}"
        if self.as_is.accuracy is None or self.hidden.accuracy is None:
            return f"{without} {percent(self.hidden.changed)} of the predictions change {on}."
        verb = "falls" if self.hidden.accuracy < self.as_is.accuracy else "goes"
        return f"{without} accuracy {verb} from {share(self.as_is.accuracy)} to {share(self.hidden.accuracy)} {on}."

    def short(self, cues: int = 3) -> str:
        """The summary, and a line for each of the first cues that are leaned on: for logs, model cards and consoles."""
        lines = [
            f"- {cue.text!r} (class {cue.class_name}): in {percent(cue.coverage)} of its rows; without it"
            f" {percent(cue.hidden.changed)} of their predictions change"
            for cue in self.leaned_on[:cues]
        ]
        more = len(self.leaned_on) - cues
        return "\n".join([self.summary, *lines, *([f"- … and {more} more"] if more > 0 else [])])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for json."""
        return {
            "summary": self.summary,
            "rows_given": self.rows_given,
            "rows_read": self.rows_read,
            "labelled": self.labelled,
            "rows_with_cue": self.rows_with_cue,
            "as_is": _reading(self.as_is),
            "hidden": _reading(self.hidden),
            "notes": self.notes,
            "unread": self.unread,
            "cues": [
                {
                    "cue": cue.text,
                    "class": cue.class_name,
                    "leaned_on": cue.leaned_on,
                    "coverage": round(cue.coverage, 4),
                    "strength": round(cue.strength, 4),
                    "rows": cue.rows,
                    "as_is": _reading(cue.as_is),
                    "hidden": _reading(cue.hidden),
                    "exchanged": _reading(cue.exchanged),
                    "exchanged_for": cue.exchanged_for,
                    "identities": list(cue.identities),
                }
                for cue in self.cues
            ],
        }

    def __str__(self) -> str:
        """Summary, table and notes."""
        lines = [self.summary]
        if self.cues:
            lines += ["", *_aligned([self.header, *map(self.cells, self.cues[:SHOWN])])]
            lines += [f"… and {len(self.cues) - SHOWN} more candidates."] if len(self.cues) > SHOWN else []
            lines += ["", KEY]
        return "\n".join([*lines, *self.notes])

    @property
    def header(self) -> list[str]:
        """Names of the columns of :meth:`cells`."""
        accuracy = ["accuracy"] if self.labelled else []
        return ["class", "cue", "leaned on", "of rows", "strength", "measured", "changed", "probability", *accuracy]

    def cells(self, cue: CueEffect) -> list[str]:
        """A row of the table."""
        readings = [r for r in (cue.as_is, cue.hidden, cue.exchanged) if r is not None]
        accuracy = [" → ".join(share(r.accuracy or 0.0) for r in readings)] if self.labelled else []
        return [
            cue.class_name,
            cue.text,
            "yes" if cue.leaned_on else "no",
            percent(cue.coverage),
            share(cue.strength),
            f"{cue.rows} rows",
            " → ".join(percent(r.changed) for r in readings[1:]),
            " → ".join(share(r.probability) for r in readings),
            *accuracy,
        ]


def percent(value: float) -> str:
    """0.123 → ``12 %``"""
    return f"{100 * value:.0f} %"


def share(value: float) -> str:
    """0.123 → ``.12``"""
    return f"{value:.2f}".removeprefix("0")


def _reading(reading: Reading | None) -> dict[str, float | None] | None:
    if reading is None:
        return None
    return {name: None if value is None else round(value, 4) for name, value in vars(reading).items()}


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    cut = [[cell if len(cell) <= WIDEST else cell[: WIDEST - 1] + "…" for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cut]
