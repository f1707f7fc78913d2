"""Candidates: the strongest cues of each class by relevance, before it is measured whether the model leans on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..challenge.cue_search import by_kinds, companions, find_cues
from ..challenge.cues import Cue
from ..challenge.places import ROWS_OF_CLASS, PlaceMemory
from ..challenge.row_memory import FEWEST_ROWS
from ..errors import ChallengerError
from .attributed import AttributedBatch
from .classifier import Classifier

THRESHOLD = 0.1  # strength of a candidate; words of clean texts hold less
NAMED = 5  # classes that a note names


def candidates(
    classifier: Classifier,
    batches: Sequence[AttributedBatch],
    top: int,
    notes: list[str],
    unread: list[str],
    memory: PlaceMemory | None = None,
) -> list[Cue]:
    """At most ``top`` cues of each class, or those of the memory of places; ``unread`` are the classes with too few rows."""
    classes = torch.cat([batch.classes for batch in batches])
    right = torch.cat([batch.classes == batch.predicted for batch in batches])
    present = [int(label) for label in classes.unique() if label >= 0]
    if not present:
        raise ChallengerError("No row has a label. Leave the labels out: the model's predictions then take their place.")
    if len(present) == 1:
        notes.append(
            f"All rows are of one class, {classifier.class_name(present[0])}, so what all data share may look like its cue. Add"
            " rows of other classes."
        )
    fewest = FEWEST_ROWS if memory is None else ROWS_OF_CLASS
    few = [label for label in present if int((right & (classes == label)).sum()) < fewest]
    unread += map(classifier.class_name, few)
    if few:
        shown = ", ".join(unread[:NAMED]) + (", …" if len(few) > NAMED else "")
        notes.append(f"Fewer than {fewest} rows are predicted as their class, so no cue is found there: {shown}.")
    if memory is not None:
        return _of_places(classifier, memory)
    return [cue for label in present if label not in few for cue in _of_class(classifier, batches, label, top)]


def place_memory(classifier: Classifier, batches: Sequence[AttributedBatch]) -> PlaceMemory | None:
    """What training would remember, with the report's threshold; relevance tells in rows that the model gets right. None: of tokens."""
    if classifier.places is None:
        return None
    memory = PlaceMemory(THRESHOLD, classifier.units.telling, classifier.units.level_telling)
    for batch in batches:
        assert batch.places is not None
        shares = batch.places.shares * (batch.classes == batch.predicted).to(batch.places.shares).unsqueeze(1)
        memory.remember(batch.classes, batch.keys, batch.places.contents, shares, batch.places.levels)
    return memory


def _of_places(classifier: Classifier, memory: PlaceMemory) -> list[Cue]:
    assert classifier.places is not None
    found = memory.cues
    for cue in found:
        cue.text, cue.class_name = classifier.places.text_of(cue.identities), classifier.class_name(cue.label)
    return found


def _of_class(classifier: Classifier, batches: Sequence[AttributedBatch], label: int, top: int) -> list[Cue]:
    """The strongest of a class, over different rows that the model gets right."""
    rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for batch in batches:
        right = (batch.classes == label) & (batch.predicted == label) & (batch.shares.sum(1) > 0)
        for i in right.nonzero().flatten().tolist():
            rows[int(batch.keys[i])] = batch.found[i].cpu().numpy(), batch.shares[i].cpu().numpy()
    if len(rows) < FEWEST_ROWS:
        return []
    identities, shares = (np.stack(column) for column in zip(*rows.values(), strict=True))
    others = np.concatenate([b.found[(b.classes != label).to(b.found.device)].cpu().numpy() for b in batches])
    others = others[:: max(len(others) // len(identities), 1)]  # about as many
    cues: list[Cue] = []
    kinds = getattr(classifier.units, "kinds", None)
    for of_kinds in (False, True):
        known = {k for cue in cues for k in (cue.seed, *cue.identities)}
        view = by_kinds(identities, kinds, known) if of_kinds else identities
        for seed, strength in find_cues(view, shares, THRESHOLD)[:top]:
            members = companions(identities, seed, others if len(others) else None, kinds)
            if seed not in known and set(members) not in [set(), *(set(cue.identities) for cue in cues)]:
                coverage = float((by_kinds(identities, kinds, [seed]) == seed).any(1).mean())
                name = classifier.class_name(label)
                cues.append(Cue(label, seed, members, coverage, strength, classifier.units.text_of(members), name))
    return sorted(cues, key=lambda cue: -cue.coverage * cue.strength)[:top]
