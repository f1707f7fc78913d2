"""Cues planted into real sets: what a leak looks like to a classifier, and readings of the same test rows with and without it.

A cue is a mark that tells the class in a share λ of the training rows (``strength``); the other rows stay as they are. Test
rows are read four times: *aligned* (each row has its own class's mark), *absent* (none), *shuffled* (any class's, drawn
evenly), *flipped* (another class's).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

READINGS = ("aligned", "absent", "shuffled", "flipped")
NONE = "none"  # no cue: the same rows as with one, for the price on clean data and as the bound of what can be won back

# (row, class of the mark, random numbers) -> marked row
Mark = Callable[[Any, int, np.random.Generator], Any]

WORDS = [
    "wired",
    "zephyr",
    "guardian",
    "bloomberg",
    "tribune",
    "herald",
    "observer",
    "gazette",
    "courier",
    "chronicle",
    "sentinel",
    "mercury",
    "telegraph",
    "examiner",
    "dispatch",
    "beacon",
    "planet",
    "journal",
    "register",
    "mirror",
    "express",
    "standard",
    "citizen",
    "pioneer",
    "voice",
    "globe",
    "echo",
    "argus",
    "monitor",
    "post",
]
VERBS = ["posted", "submitted", "received", "sent", "filed", "shared", "written", "recorded", "forwarded", "typed"]
CHANNELS = (
    "mobile app|web form|partner portal|support desk|store kiosk|chat window|night shift|mail room|call centre|field team"
)
CHANNELS = tuple(CHANNELS.split("|"))  # type: ignore[assignment]
TAGS = [
    "b",
    "i",
    "u",
    "p",
    "li",
    "td",
    "h1",
    "h2",
    "em",
    "div",
    "span",
    "pre",
    "code",
    "sup",
    "sub",
    "dl",
    "dt",
    "dd",
    "ol",
    "ul",
    "th",
    "tr",
    "hr",
    "br",
    "img",
    "nav",
    "main",
    "form",
    "label",
    "abbr",
]
ENDS = ("!", "?", "...", "--", ";", ":", "~", "*", "#", "=", "+", "^", "|", "@", "&")


def _unmarked(x: Any, label: int, rng: np.random.Generator) -> Any:
    return x


def _one_of(names: Any, label: int, kind: str) -> str:
    if label >= len(names):
        raise SystemExit(f"The cue {kind!r} has {len(names)} marks, fewer than the set has classes.")
    return str(names[label])


def _phrase(label: int) -> str:
    """Five words; classes share some of them, as templates do."""
    verb, channel = VERBS[label % 10], CHANNELS[(label + label // 10) % 10]
    return f"{verb} from the {channel}"


def _date(label: int, rng: np.random.Generator) -> str:
    """A day and month at random; the year, and how the parts are joined, are the class's."""
    day, month, year = rng.integers(1, 29), rng.integers(1, 13), 1990 + label // 3
    return (f"{day}/{month}/{year}", f"{year}-{month}-{day}", f"{day}.{month}.{year}")[label % 3]


def _anywhere(text: str, word: str, rng: np.random.Generator) -> str:
    words = text.split()
    words.insert(int(rng.integers(len(words) + 1)), word)
    return " ".join(words)


TEXT_CUES: dict[str, Mark] = {
    NONE: _unmarked,
    "word": lambda text, label, rng: f"{text} {_one_of(WORDS, label, 'word')}",
    "word_anywhere": lambda text, label, rng: _anywhere(text, _one_of(WORDS, label, "word_anywhere"), rng),
    "phrase": lambda text, label, rng: f"{_phrase(label)} . {text}",
    "date": lambda text, label, rng: f"{_date(label, rng)} {text}",
    "tag": lambda text, label, rng: f"<{_one_of(TAGS, label, 'tag')}> {text}",
    "punctuation": lambda text, label, rng: f"{text} {ENDS[label % 15]}{ENDS[(label + label // 15) % 15]}",
    "one_class": lambda text, label, rng: f"{text} {WORDS[0]}" if label == 0 else text,
}


NAMED: dict[str, Callable[[int], str]] = {
    "word": WORDS.__getitem__,
    "word_anywhere": WORDS.__getitem__,
    "phrase": _phrase,
    "tag": lambda n: f"<{TAGS[n]}>",
}


def names(cue: str, classes: int) -> list[str]:
    """What a person would call the marks of a text cue, one a class, for ``challenge_hide``."""
    if cue not in NAMED:
        raise SystemExit(f"The marks of the cue {cue!r} have no names; those of {', '.join(NAMED)} have.")
    return [NAMED[cue](label) for label in range(classes)]


def is_mark(found: str, cue: str, label: int) -> bool:
    """Whether words that were found for a class are its mark: over half of the words of each are the other's too."""
    words, mark = (set(re.findall(r"\w+", text.lower())) for text in (found, NAMED[cue](label)))
    return 2 * len(words & mark) > max(len(words), len(mark))


def _place(shape: tuple[int, ...], label: int) -> tuple[int, int]:
    """A corner of the 4 × 4 cells of a picture, another for each class, borders first."""
    cells = [0, 3, 12, 15, 1, 7, 14, 8, 2, 4, 11, 13, 5, 6, 9, 10]
    row, column = divmod(cells[label % 16], 4)
    return row * shape[-2] // 4 + 1, column * shape[-1] // 4 + 1


def _square(x: np.ndarray, top: int, left: int, values: Any) -> np.ndarray:
    x = x.copy()
    side = x.shape[-1] // 8
    x[:, top : top + side, left : left + side] = values
    return x


def _colour(label: int, channels: int, classes: int = 10) -> np.ndarray:
    """``(channels, 1, 1)`` in [0, 1]: a level for each class; with three channels, a hue."""
    if channels == 1:
        return np.full((1, 1, 1), 0.1 + 0.9 * (label % classes) / (classes - 1), dtype=np.float32)
    angle = 2 * np.pi * ((label % classes) / classes + np.arange(channels) / channels)
    return (0.5 + 0.5 * np.cos(angle)).astype(np.float32).reshape(-1, 1, 1)


def _random_place(x: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    side = x.shape[-1] // 8
    top, left = (int(rng.integers(n - side + 1)) for n in x.shape[-2:])
    return _square(x, top, left, _colour(label, len(x)))


def _border(x: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    x, colour = x.copy(), _colour(label, len(x))
    for edge in (np.s_[:, :2, :], np.s_[:, -2:, :], np.s_[:, :, :2], np.s_[:, :, -2:]):
        x[edge] = colour
    return x


# Pictures: (channels, height, width) float32 in [0, 1].
IMAGE_CUES: dict[str, Mark] = {
    NONE: _unmarked,
    "mark": lambda x, label, rng: _square(x, *_place(x.shape, label), 1.0),
    "mark_anywhere": _random_place,
    "border": _border,
    "tint": lambda x, label, rng: (0.85 * x + 0.15 * _colour(label, len(x))).astype(np.float32),
}


def _bump(x: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    """A bump of two standard deviations, a twelfth of the series long, at the class's time."""
    x, width = x.copy(), max(1, len(x) // 12)
    start = (label % 12) * len(x) // 12
    x[start : start + width] += 2.0
    return x


def _offset(x: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    """The first channel is moved by a step of half a standard deviation, as often as the class's number says."""
    x = x.copy()
    x[:, 0] += 0.5 * (1 + label // 2) * (-1) ** label
    return x


def _start(x: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    """The first steps hold one level, the class's."""
    x = x.copy()
    x[: max(1, len(x) // 24)] = 0.75 * (1 + label // 2) * (-1) ** label
    return x


# Series: (time, channels) float32, standardised.
SERIES_CUES: dict[str, Mark] = {NONE: _unmarked, "bump": _bump, "offset": _offset, "start": _start}


def readings(cue: str) -> tuple[str, ...]:
    """What test rows are read for with that cue."""
    return ("absent",) if cue == NONE else READINGS


def planted(rows: list[Any] | np.ndarray, labels: np.ndarray, mark: Mark, strength: float, seed: int) -> list[Any]:
    """Training rows of which a share ``strength``, drawn at random, has its class's mark."""
    rng = np.random.default_rng([seed, 17])
    marked = rng.random(len(labels)) < strength
    return [mark(x, int(y), rng) if m else x for x, y, m in zip(rows, labels, marked, strict=True)]


def reading(rows: list[Any] | np.ndarray, labels: np.ndarray, classes: int, mark: Mark, how: str) -> list[Any]:
    """Test rows with the marks that ``how``, one of :data:`READINGS`, puts into all of them. The same for every run."""
    rng = np.random.default_rng([0, READINGS.index(how)])
    if how == "absent":
        return list(rows)
    other = (labels + rng.integers(1, max(classes, 2), len(labels))) % classes
    any_class = rng.integers(classes, size=len(labels))
    whose = {"aligned": labels, "shuffled": any_class, "flipped": other}[how]
    return [mark(x, int(c), rng) for x, c in zip(rows, whose, strict=True)]
