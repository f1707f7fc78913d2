"""The search for cues among the rows of one class: identities that come together and hold most of the relevance."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from ..inputs.tokens import NUMBER, kinds_of
from .relevant_units import NOTHING, UNITS
from .row_memory import FEWEST_ROWS

LEAST_COVERAGE = 0.2  # of the class's rows: what is rarer is a word of single texts, not a cue of the data
SHARED = 1 / 3  # of its coverage, in the rows of other classes, from which an identity is no word of one class
TOGETHER = 0.8  # Jaccard index of the rows of two identities from which they are one cue
ABSENT = -2  # after all identities that some row holds


def find_cues(identities: np.ndarray, shares: np.ndarray, threshold: float) -> list[tuple[int, float]]:
    """Cues among the rows of one class, those with the largest part of the relevance first.

    A cue is held by at least :data:`LEAST_COVERAGE` of the rows, and its mean share of their relevance, with its
    :func:`companions`, is above the threshold.

    Args:
        identities: ``(rows, units)`` integers, :data:`NOTHING` where there is none.
        shares: ``(rows, units)`` of each row's positive relevance.
        threshold: in [0, 1).

    Returns:
        ``(its most relevant identity, strength)`` of each cue.
    """
    fewest = max(FEWEST_ROWS, LEAST_COVERAGE * len(identities))
    known, held, column = _held(identities, fewest)
    rows, places = np.nonzero(column < len(known))
    cells = rows * len(known) + column[rows, places]
    share = np.bincount(cells, shares[rows, places], held.size).reshape(held.shape)
    often = (held.sum(0) >= fewest) & (known != NOTHING)
    found, free = [], often.copy()
    for seed in np.argsort(-share.sum(0), kind="stable"):
        if not free[seed]:
            continue
        members = free & (_jaccard(held, seed) >= TOGETHER)
        free &= ~members
        strength = float(share[held[:, seed]][:, members].sum(1).mean())
        if strength > threshold:
            found.append((int(known[seed]), strength))
    return found


def by_kinds(identities: np.ndarray, kinds: Tensor | None, but: Iterable[int] = ()) -> np.ndarray:
    """Of identities that are examples of a kind this kind, see :func:`~..inputs.tokens.same`; those in ``but`` stay themselves.

    The days of dates differ. That there is a number recurs, and may tell the class.
    """
    if kinds is None:
        return identities
    return np.where(np.isin(identities, list(but)), identities, kinds_of(torch.from_numpy(identities), kinds).numpy())


def companions(
    identities: np.ndarray, seed: int, others: np.ndarray | None = None, kinds: Tensor | None = None
) -> tuple[int, ...]:
    """The seed and the identities that come with it, by the Jaccard index of their rows, in the order of the newest row.

    What a phrase holds beside its strongest words may hold no relevance yet. It would tell the class as well, once those are
    hidden.

    Args:
        identities: ``(rows, units)`` integers of the class's rows, :data:`NOTHING` where there is none; the newest row last.
        seed: an identity.
        others: ``(other rows, units)`` integers of rows of other classes. With them, where they share the seed, the companions
            are those of the one that tells the class best: of "sent via web form" and "typed via web form" the first words. And what
            stands in nearly every row (a full stop) is no companion, unless it stands between companions.
        kinds: as of :func:`by_kinds`; companions are kinds where they have one, but for numbers that recur with the seed.

    Returns:
        At most :data:`UNITS` identities, as they stand in that row: "the" of "sent from the desk of the boss" twice, but with numbers
        each once. The seed alone, where fewer than :data:`FEWEST_ROWS` rows hold it; none, where rows of other classes hold all of
        them about as often.
    """
    themselves = {seed, *(_together(identities, seed) if (identities == seed).any() else ())}
    identities = by_kinds(identities, kinds, themselves)
    holds = (identities == seed).any(1)
    if holds.sum() < FEWEST_ROWS:
        return (seed,)
    members = of_class = _together(identities, seed)
    if others is not None and len(others) >= FEWEST_ROWS:
        others = by_kinds(others, kinds, themselves)
        here = {k: float((identities == k).any(1).mean()) for k in of_class}
        elsewhere = {k: float((others == k).any(1).mean()) for k in of_class}
        is_shared = elsewhere[seed] >= SHARED * here[seed]
        tells_best = max(sorted(of_class), key=lambda k: (here[k] - elsewhere[k], k == seed)) if is_shared else seed
        if elsewhere[tells_best] >= TOGETHER * here[tells_best]:
            return ()
        members = {seed, *_together(np.concatenate([identities, others]), tells_best)}
    members = members | _between(identities, members, of_class, TOGETHER * holds.sum())
    newest = identities[np.flatnonzero(holds)[-1]].tolist()
    # "turn in points … asked in chat window": of a word that comes twice the one beside the seed is the cue's.
    at = newest.index(seed)
    place = {k: n for n, k in sorted(enumerate(newest), key=lambda found: -abs(found[0] - at))}
    found = sorted(place[k] for k in members if k in place)
    run = newest[found[0] : found[-1] + 1]
    members = members | {k for k in run if k in of_class}
    run = [k for k in run if k in members]
    if NUMBER in run:
        run = list(dict.fromkeys(run))
    return (*run, *sorted(members - set(run)))[:UNITS]


def _between(identities: np.ndarray, members: set[int], of_class: set[int], fewest: float) -> set[int]:
    """Of the class's identities those that follow a member and are followed by one, in enough rows: the numbers of "12/7/1990"."""
    member = np.isin(identities, list(members))
    found = set()
    for k in of_class - members:
        is_k = identities == k
        follows = (member[:, :-1] & is_k[:, 1:]).any(1) & (is_k[:, :-1] & member[:, 1:]).any(1)
        if follows.sum() >= fewest:
            found.add(k)
    return found


def _together(identities: np.ndarray, seed: int) -> set[int]:
    """The identities whose rows are nearly the seed's, and the seed."""
    of_seed = identities[(identities == seed).any(1)]
    known, places = np.unique(of_seed, return_counts=True)
    known = known[(places >= int(TOGETHER * len(of_seed))) & (known != NOTHING)]  # no other can be
    held = (identities[:, :, None] == known).any(1)
    return set(known[_jaccard(held, int(np.flatnonzero(known == seed)[0])) >= TOGETHER].tolist())


def _held(identities: np.ndarray, fewest: float = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rows hold which identities; most are words of few rows, and leaving them out is what keeps this fast.

    Args:
        identities: ``(rows, units)`` integers.
        fewest: places at which an identity stands; those that stand at fewer are left out.

    Returns:
        The identities; ``(rows, identities)`` bool, which row holds which; and the identity's number at each place, the one
        after the last for an identity that was left out.
    """
    known, places = np.unique(identities, return_counts=True)
    known = known[places >= fewest]
    column = np.searchsorted(known, identities)
    column[np.append(known, ABSENT)[column] != identities] = len(known)
    held = np.zeros((len(identities), len(known) + 1), dtype=bool)
    held[np.arange(len(identities))[:, None], column] = True
    return known, held[:, :-1], column


def _jaccard(held: np.ndarray, seed: int) -> np.ndarray:
    """Of each identity's rows with the seed's."""
    both = held[:, seed].astype(np.float32) @ held
    return both / (held.sum(0) + held[:, seed].sum() - both)
