"""The cue memory: which units hold a class's relevance over many rows, and which of them to hide in a batch.

Row by row, a leak cannot be told from a legitimate word. Over many rows it can: a cue recurs, and where it stands it takes most
of the relevance. The memory keeps the last attributed rows of each class, finds such cues among them, and from then on tells
where they are. Everything here works on tensors; no model is needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..inputs.tokens import kinds_of
from .cue_search import by_kinds, companions, find_cues
from .relevant_units import NOTHING
from .row_memory import FEWEST_ROWS, RowMemory, stacked

# Of the threshold, for classes without a cue, once another class has one: a leak has a value for each class. If only some were hidden,
# a row without any would look like one of those classes.
FOLLOWING = 0.6
UNSURE = 16  # rows of a class that are kept before the model is sure of any
CUES = 4  # a class at most: rows of the lookup table

NO_UNIT = -2  # a unit that may not be hidden


@dataclass
class Cue:
    """What a classifier leans on for a class.

    Attributes:
        label: the class.
        seed: its most relevant identity when it was found.
        identities: token ids, or positions on the grid of units.
        coverage: share of the class's rows that hold it, in [0, 1].
        strength: mean share of a row's positive relevance that it holds, over those rows, in [0, 1].
        text: how it reads; empty until an adapter names it.
        class_name: how the class reads.
        hidden_rows: in how many rows it was hidden, counted once each time that a row was trained on.
    """

    label: int
    seed: int
    identities: tuple[int, ...]
    coverage: float
    strength: float
    text: str = ""
    class_name: str = ""
    hidden_rows: int = 0


class CueMemory(RowMemory):
    """The last rows of each class, as :func:`~.relevant_units.most_relevant` tells them, and the cues that were found in them.

    Memory is bounded by classes × :data:`~.row_memory.ROWS` × :data:`~.relevant_units.UNITS` numbers, 25 kB a class, whatever the
    vocabulary. A cue that was found stays found: once it is hidden the model leans on it less, and would take it up again if it
    were forgotten.

    Args:
        threshold: the strength from which something is a cue.
        kinds: ``(identities,)`` int64, what each identity is an example of, beyond all identities; itself where of nothing. None:
            of nothing.
    """

    first = "identities"
    told_by = ("label", "seed")

    def __init__(self, threshold: float, kinds: Tensor | None = None) -> None:
        super().__init__(threshold, kinds)
        self.threshold, self.kinds = threshold, kinds
        self._cues: dict[int, list[Cue]] = {}
        # label -> key of a row -> its identities; of rows that the model is not sure of, in classes of which it is sure of none yet
        self._unsure: dict[int, dict[int, np.ndarray]] = {}
        self._table: Tensor | None = None  # (classes, CUES, the widest cue's units) identities
        self._named_kinds: Tensor | None = None  # on the table's device; None: no cue names one

    @property
    def number(self) -> int:
        """How many cues are known. Unlike :attr:`cues` it does not wait for the device."""
        return sum(map(len, self._cues.values()))

    @property
    def cues(self) -> list[Cue]:
        """Copies of all cues, those with the largest part of their class's relevance first."""
        return sorted(self._in_order(), key=lambda cue: -cue.coverage * cue.strength)

    def _in_order(self) -> list[Cue]:
        """Copies of all cues, of each class as they were found."""
        return [
            Cue(**{**vars(cue), "hidden_rows": self._hidden(cue.label, n)})
            for cues in self._cues.values()
            for n, cue in enumerate(cues)
        ]

    def remember(self, labels: Tensor, keys: Tensor, identities: Tensor, shares: Tensor) -> None:
        """Rows of one step, in their order; then look for cues among the rows of their classes.

        Args:
            labels: ``(rows,)`` classes; a negative one leaves its row out.
            keys: ``(rows,)`` int64 that tell rows apart, see :func:`row_keys`: a row that comes again replaces its older visit.
            identities, shares: from :func:`most_relevant`; zeros where the relevance of a row tells nothing, since the model is not sure
                of its class. What it holds is compared with the cues of other classes, as long as no row of its class tells more.
        """
        classes, names = labels.cpu().numpy(), keys.cpu().numpy()
        ids, parts = identities.cpu().numpy(), shares.float().cpu().numpy()
        tells = parts.sum(1) > 0
        present = np.unique(classes[(classes >= 0)]).tolist()
        for label in present:
            self._take_in(label, ((int(names[n]), ids[n], parts[n]) for n in np.flatnonzero((classes == label) & tells)))
            if self._rows[label]:
                self._unsure.pop(label, None)
            else:
                self._take_in_unsure(label, ((int(names[n]), ids[n]) for n in np.flatnonzero(classes == label)))
        for label in present:
            if self._rows[label]:
                self._look(label, *(stacked(column) for column in zip(*self._rows[label].values(), strict=True)))

    def _take_in_unsure(self, label: int, rows: Iterable[tuple[int, np.ndarray]]) -> None:
        """Rows of a class of which none told anything yet, as key and identities; the newest stay."""
        known = self._unsure.setdefault(label, {})
        for key, ids in rows:
            known.pop(key, None)
            known[key] = ids.copy()
        for oldest in list(known)[:-UNSURE]:
            del known[oldest]

    def _look(self, label: int, identities: np.ndarray, shares: np.ndarray) -> None:
        """Cues that are new among these rows, and what belongs by now to those that are known."""
        cues = self._cues.get(label, [])
        others = self._rows_of_others(label, len(identities))
        self._find(label, cues, identities, shares, others)
        # A word says more than its kind: "2021" more than "[number]".
        of_kinds = by_kinds(identities, self.kinds, {k for cue in cues for k in cue.identities})
        if (of_kinds != identities).any():
            self._find(label, cues, of_kinds, shares, others)
        for cue in cues:
            holds = (by_kinds(identities, self.kinds, [cue.seed]) == cue.seed).any(1)
            if holds.sum() < FEWEST_ROWS:  # after rows were forgotten: what is known of it stays
                continue
            members = companions(identities, cue.seed, others, self.kinds)
            if members != cue.identities:
                cue.identities, self._table = members, None
            cue.coverage = float(holds.mean())
        for n in reversed(range(len(cues))):
            # What other classes hold as often, as their rows tell by now; "12", and later the sign after it.
            same_as = [cue for cue in cues[:n] if set(cue.identities) == set(cues[n].identities)]
            for cue in same_as[:1]:
                cue.strength = max(cue.strength, cues[n].strength)
            if same_as or not cues[n].identities:
                self._forget(label, cues, n)
        self._cues[label] = cues
        if not cues:
            del self._cues[label]

    def forget_named(self, identities: set[int]) -> None:
        """As :meth:`.RowMemory.forget_named`. Cues of nothing else go."""
        super().forget_named(identities)
        self._unsure = {}
        for label, cues in list(self._cues.items()):
            for n in reversed(range(len(cues))):
                if identities.issuperset(cues[n].identities):
                    self._forget(label, cues, n)
            if not cues:
                del self._cues[label]

    def _forget(self, label: int, cues: list[Cue], n: int) -> None:
        """One of a class's cues, and what was counted of it."""
        del cues[n]
        self._table = None
        if self._counts is not None and label < len(self._counts):
            self._counts[label, n:-1] = self._counts[label, n + 1 :].clone()
            self._counts[label, -1] = 0

    def _find(
        self, label: int, cues: list[Cue], identities: np.ndarray, shares: np.ndarray, others: np.ndarray | None
    ) -> None:
        """Take what is new in these rows of the class into its cues."""
        for seed, strength in find_cues(identities, shares, 0.0):
            names = {seed, int(by_kinds(np.array(seed), self.kinds))}
            known = next((cue for cue in cues if names & {cue.seed, *cue.identities}), None)
            if known is not None:
                known.strength = max(known.strength, strength)
            elif strength > self._enough(cues) and len(cues) < CUES and companions(identities, seed, others, self.kinds):
                cues.append(Cue(label, seed, (seed,), 0.0, strength))
                self._table, self._rows_since_news = None, 0
            else:
                self._no_cue(label, strength)

    def _enough(self, cues: list[Cue]) -> float:
        """The strength from which something is a cue of a class that has these."""
        return self.threshold * (FOLLOWING if self._cues and not cues else 1)

    def _rows_of_others(self, label: int, wanted: int) -> np.ndarray | None:
        """``(rows, UNITS)``: about as many rows of the other classes, evenly from each."""
        known = (
            [ids for ids, _ in self._rows.get(other, {}).values()] or [*self._unsure.get(other, {}).values()]
            for other in sorted({*self._rows, *self._unsure} - {label})
        )
        others = list(islice(filter(None, known), wanted))
        each = -(-wanted // max(len(others), 1))
        found = [ids for rows in others for ids in islice(reversed(rows), each)]
        return stacked(found) if found else None

    def drop_mask(self, identities: Tensor, maskable: Tensor, labels: Tensor, rows: Tensor | None = None) -> Tensor:
        """The units of a batch that belong to a cue of their row's class. Does not wait for the device.

        A row holds a cue if it holds more than half of its identities; all its units with one of them are then hidden. A row of
        which nothing would be left stays whole.

        Args:
            identities: ``(rows, units)`` integers from 0 on.
            maskable: ``(rows, units)`` bool.
            labels: ``(rows,)`` classes; rows with a negative one stay whole.
            rows: ``(rows,)`` bool, in which of them to hide; None: in all. What is hidden there is counted.

        Returns:
            ``(rows, units)`` bool, True = removed.
        """
        if not self._cues:
            return torch.zeros_like(maskable)
        table = self._lookup(identities.device)
        known = (labels >= 0) & (labels < len(table))
        wanted = table[labels.long().clamp(0, len(table) - 1)].masked_fill(~known[:, None, None], NOTHING)
        ids = identities.long().masked_fill(~maskable, NO_UNIT)
        hits = wanted.unsqueeze(-1) == ids[:, None, None, :]  # (rows, CUES, widest, units)
        if self._named_kinds is not None:  # "2021" that a cue names is no further number of it
            of_kind = wanted.unsqueeze(-1) == kinds_of(ids, self._named_kinds)[:, None, None, :]
            hits = hits | (of_kind & ~hits.any(2, keepdim=True))
        holds = 2 * hits.any(-1).sum(-1) > (wanted != NOTHING).sum(-1)  # (rows, CUES)
        drop_mask = (hits.any(2) & holds.unsqueeze(-1)).any(1)
        hidden = known & (maskable & ~drop_mask).any(1)
        hidden = hidden if rows is None else hidden & rows
        if rows is not None:
            assert self._counts is not None
            self._counts.index_add_(0, labels.long().clamp(0, len(table) - 1), (holds & hidden.unsqueeze(1)).long())
        return drop_mask & hidden.unsqueeze(1)

    def _lookup(self, device: torch.device) -> Tensor:
        if self._table is None or self._table.device != device:
            # What was counted of classes whose cues were forgotten keeps its place.
            classes = max(max(self._cues) + 1, 0 if self._counts is None else len(self._counts))
            widest = max(len(cue.identities) for cues in self._cues.values() for cue in cues)  # most have few
            table = torch.full((classes, CUES, widest), NOTHING, dtype=torch.long)
            for label, cues in self._cues.items():
                for n, cue in enumerate(cues):
                    table[label, n, : len(cue.identities)] = torch.tensor(cue.identities)
            self._table, self._named_kinds = table.to(device), None
            if self.kinds is not None and int(table.max()) >= len(self.kinds):
                self._named_kinds = self.kinds.to(device)
            counts = torch.zeros(classes, CUES, dtype=torch.long, device=device)
            if self._counts is not None:
                counts[: len(self._counts)] = self._counts.to(device)
            self._counts = counts
        return self._table

    def _hidden(self, label: int, n: int) -> int:
        return 0 if self._counts is None or label >= len(self._counts) else int(self._counts[label, n])

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`.RowMemory.state_dict`, and the cues."""
        unsure = {
            label: {"keys": torch.tensor(list(rows)), "identities": torch.from_numpy(stacked(list(rows.values())))}
            for label, rows in self._unsure.items()
        }
        return {**super().state_dict(), "cues": [vars(cue) for cue in self._in_order()], "unsure": unsure}

    def load_state_dict(self, state: dict[str, Any], counts: bool = True) -> None:
        """As :meth:`.RowMemory.load_state_dict`, and the cues."""
        super().load_state_dict(state)
        self._cues, self._table = {}, None
        self._unsure = {
            label: dict(zip(rows["keys"].tolist(), rows["identities"].numpy(), strict=True))
            for label, rows in state.get("unsure", {}).items()
        }
        hidden_rows: dict[tuple[int, int], int] = {}
        for values in state["cues"]:
            cues = self._cues.setdefault(values["label"], [])
            hidden_rows[values["label"], len(cues)] = values["hidden_rows"] if counts else 0
            cues.append(Cue(**{**values, "hidden_rows": 0}))
        if self._cues:
            self._lookup(torch.device("cpu"))
            assert self._counts is not None
            for (label, n), hidden in hidden_rows.items():
                self._counts[label, n] = hidden


def as_rows(cues: Iterable[Cue]) -> list[dict[str, Any]]:
    """What ``cues.json`` holds: one plain dictionary a cue."""
    return [
        {
            "cue": cue.text,
            "class": cue.class_name or cue.label,
            "coverage": round(cue.coverage, 4),
            "strength": round(cue.strength, 4),
            "hidden_rows": cue.hidden_rows,
            "identities": list(cue.identities),
        }
        for cue in cues
    ]
