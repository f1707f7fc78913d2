"""Comparisons of methods on the runs that they share, over models, sets, sizes, cues and seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from export import KEY, Row

DRAWS = 10_000
# Fewer independent pairs (sets × seeds) than this make no interval: a bootstrap of one run has none, of three far too narrow a one.
FEWEST_PAIRS = 5
PLACE = tuple(name for name in KEY if name != "method")
LOWER_IS_BETTER = ("ece", "nll", "brier", "seconds")


def place_of(row: Row) -> tuple[Any, ...]:
    """What two rows of different methods must have in common to be compared."""
    return tuple(row.get(name, "") for name in PLACE)


def shared(rows: Iterable[Row], methods: Iterable[str]) -> tuple[list[Row], int]:
    """The rows of those methods at places that all of them have, and how many of their rows that leaves out."""
    methods = list(methods)
    own = [row for row in rows if row["method"] in methods]
    found: dict[tuple[Any, ...], set[str]] = defaultdict(set)
    for row in own:
        found[place_of(row)].add(row["method"])
    kept = [row for row in own if len(found[place_of(row)]) == len(set(methods))]
    if not kept:
        raise SystemExit(f"No run (same model, set, size and seed) is shared by all of: {', '.join(methods)}.")
    return kept, len(own) - len(kept)


@dataclass
class Comparison:
    """One metric of one method minus that of another, on the runs that both have.

    Attributes:
        mean: mean over sets of the mean paired difference.
        low, high: its 95 % interval, by bootstrap of sets, and of seeds within them; NaN with fewer than five pairs.
        pairs, sets: how many differences, of how many sets.
        lower: whether lower is better.
    """

    mean: float
    low: float
    high: float
    pairs: int
    sets: int
    lower: bool

    @property
    def verdict(self) -> str:
        """ "better" or "worse" where the interval excludes 0, or else ""."""
        if self.low > 0 or self.high < 0:
            return "better" if (self.mean < 0) == self.lower else "worse"
        return ""


def paired(rows: Iterable[Row], method: str, other: str, metric: str) -> Comparison:
    """``metric`` of ``method`` minus that of ``other``.

    Args:
        rows: as :func:`export.read` returns them.
    """
    rows, _ = shared(rows, (method, other))
    scores: dict[str, dict[tuple[Any, ...], float]] = {method: {}, other: {}}
    for row in rows:
        scores[row["method"]][place_of(row)] = row[metric]
    # A seed's draw of a set is one observation, whatever sizes, models and cues it was used with.
    by_set: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for place, value in scores[method].items():
        at = dict(zip(PLACE, place, strict=True))
        by_set[at["set"]][at["seed"]].append(value - scores[other][place])
    seeds_of = [np.array([np.mean(found) for found in seeds.values()]) for seeds in by_set.values()]
    low = high = float("nan")
    if sum(map(len, seeds_of)) >= FEWEST_PAIRS:
        low, high = (float(x) for x in np.percentile(_drawn(seeds_of, np.random.default_rng(0)), [2.5, 97.5]))
    mean = float(np.mean([seeds.mean() for seeds in seeds_of]))
    return Comparison(mean, low, high, len(scores[method]), len(by_set), metric in LOWER_IS_BETTER)


def _drawn(seeds_of: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """``(DRAWS,)``: means over sets, and seeds within them, drawn with replacement."""
    sets = len(seeds_of)
    number = rng.integers(sets, size=(DRAWS, sets))
    means = np.empty((DRAWS, sets))
    for n, seeds in enumerate(seeds_of):
        chosen = number == n
        means[chosen] = seeds[rng.integers(len(seeds), size=(chosen.sum(), len(seeds)))].mean(axis=1)
    return means.mean(axis=1)


# Student's t at 97.5 %, for 1, 2, … degrees of freedom.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


def half_width(values: Iterable[float]) -> float:
    """Half of the 95 % interval of the mean, by Student's t; NaN for fewer than three values."""
    values = np.array(list(values))
    if len(values) < 3:
        return float("nan")
    return float(values.std(ddof=1) / len(values) ** 0.5 * _T[min(len(values) - 2, len(_T) - 1)])
