"""Paired comparisons over models, sets, sizes and seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

DRAWS = 10_000
Key = tuple[Any, ...]


@dataclass
class Comparison:
    """One metric of one method against another, on the cells that both have.

    Attributes:
        mean: mean over sets of the mean paired difference.
        low, high: its 95 % interval, by bootstrap of sets, and of seeds within them.
        change: difference of the means over sets, as a share of the other method's mean (-0.3: 30 % lower).
        change_low, change_high: its interval.
        wins, ties, losses: cells (model, set, size) whose own 95 % interval over seeds lies on that side of 0, or holds it.
        pairs, sets: how many differences, of how many sets.
    """

    mean: float
    low: float
    high: float
    change: float
    change_low: float
    change_high: float
    wins: int
    ties: int
    losses: int
    pairs: int
    sets: int


def paired(
    runs: list[dict[str, Any]], method: str, other: str, value: Callable[[dict[str, Any]], float], lower: bool
) -> Comparison:
    """``method`` against ``other``.

    Args:
        runs: as the runner writes them.
        value: a run's score.
        lower: whether lower is better.
    """
    scores: dict[str, dict[Key, float]] = {method: {}, other: {}}
    for run in runs:
        if run["method"] in scores:
            scores[run["method"]][(run["set"], run["model"], run["size"], run["seed"])] = value(run)
    shared = sorted(scores[method].keys() & scores[other].keys(), key=str)
    if not shared:
        raise SystemExit(f"No run of {method!r} and {other!r} has the same model, set, size and seed.")
    by_set: dict[str, dict[Any, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    by_cell: dict[Key, list[float]] = defaultdict(list)
    for key in shared:
        pair = scores[method][key], scores[other][key]
        by_set[key[0]][key[3]].append(pair)  # a seed's draws of one set belong together
        by_cell[key[:3]].append(pair[0] - pair[1])
    # One row a seed: both methods' scores, averaged over the sizes and models of that draw.
    seeds_of = [np.array([np.mean(pairs, axis=0) for pairs in seeds.values()]) for seeds in by_set.values()]
    means = [seeds.mean(axis=0) for seeds in seeds_of]
    draws = _drawn(seeds_of, np.random.default_rng(0))
    difference = draws[:, 0] - draws[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):  # a set without a single error has no relative change
        change = difference / draws[:, 1]
    mine, theirs = np.mean(means, axis=0)
    sides = [_side(np.array(differences)) * (-1 if lower else 1) for differences in by_cell.values()]
    return Comparison(
        float(mine - theirs),
        *(float(x) for x in np.percentile(difference, [2.5, 97.5])),
        float((mine - theirs) / theirs) if theirs else float("nan"),
        *(float(x) for x in np.percentile(change, [2.5, 97.5])),
        sides.count(1),
        sides.count(0),
        sides.count(-1),
        len(shared),
        len(by_set),
    )


def _drawn(seeds_of: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """``(DRAWS, 2)``: means of both methods over sets, and seeds within them, drawn with replacement."""
    sets = len(seeds_of)
    number = rng.integers(sets, size=(DRAWS, sets))
    means = np.empty((DRAWS, sets, 2))
    for n, seeds in enumerate(seeds_of):
        chosen = number == n
        means[chosen] = seeds[rng.integers(len(seeds), size=(chosen.sum(), len(seeds)))].mean(axis=1)
    return means.mean(axis=1)


# Student's t at 97.5 %, for 1, 2, … degrees of freedom.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)


def _side(differences: np.ndarray) -> int:
    """1: above 0 beyond the 95 % interval of the mean; -1: below; 0: neither, or too few to tell."""
    if len(differences) < 2:
        return 0
    half = differences.std(ddof=1) / len(differences) ** 0.5 * _T[min(len(differences) - 2, len(_T) - 1)]
    mean = differences.mean()
    return int(mean > half) - int(mean < -half)
