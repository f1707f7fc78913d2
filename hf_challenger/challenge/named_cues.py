"""Cues that the user names: those to leave alone (``challenge_keep``), and known leaks (``challenge_hide``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ChallengerError
from ..inputs.places import LEVEL, Places
from ..inputs.tokens import NUMBER, same
from ..keyed_random import Draw
from .exchange import exchange_runs, longest_run
from .perturbation import PERTURBATIONS

Perturb = Callable[[dict[str, Any], Tensor, Any, Draw], dict[str, Any]]


def check_names(option: str, names: Any) -> None:
    """Raise :class:`ChallengerError` unless ``names`` is a list of texts that say something."""
    if isinstance(names, str):
        raise ChallengerError(f"{option}={names!r} is a string; a list of strings is expected. Did you mean [{names!r}]?")
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ChallengerError(
            f"{option}={names!r} is not a list of strings, each a cue as trainer.cues shows it, such as ['via app']."
        )


class NamedCues:
    """Where the cues of that name stand in a batch, and how they are taken out of it.

    Args:
        units: the adapter, which reads the names.
        names: as ``trainer.cues`` shows them: words, or places on the grid.
        option: its name, for errors.
    """

    def __init__(self, units: Any, names: Sequence[str], option: str) -> None:
        self.units, self.names, self.option = units, list(names), option
        self.of_places: Places | None = getattr(units, "places", None)
        self.sequences: list[list[list[int]]] = []
        self._rows: Tensor | None = None  # (names,) how many rows held each
        if self.names and not hasattr(units, "places_of"):
            raise ChallengerError(
                f"{option}={self.names!r} needs an adapter that reads names, and {type(units).__name__} has no method"
                " places_of (docs/adapters.md)."
            )
        if self.names and units.is_sequence_of_tokens:
            read: dict[tuple[int, ...], tuple[str, list[list[int]]]] = {}
            for name in self.names:  # one that is given twice, maybe in another case, would be exchanged for itself
                variants = units.read_name(name, option)
                read.setdefault(tuple(variants[0]), (name, variants))
            self.names, self.sequences = map(list, zip(*read.values(), strict=True))
        words = [variants[0] for variants in self.sequences]
        # A part of another name would leave what is left of it.
        self._donors = [a for a in words if not any(len(a) < len(b) and _is_part(a, b) for b in words)]
        self.with_numbers = any(NUMBER in variants[0] for variants in self.sequences)
        self.kinds: Tensor | None = units.kinds if self.with_numbers else None

    def __bool__(self) -> bool:
        return bool(self.names)

    def places(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, units)`` bool: the units, or places, that belong to one of these cues.

        A row of tokens holds a name as it holds a cue: with more than half of its words, wherever they stand.
        """
        if self.sequences:
            ids, found = inputs[self.units.key], torch.zeros_like(inputs[self.units.key], dtype=torch.bool)
            holds = []
            for variants in self.sequences:
                of_name = [self._words(ids, sequence) for sequence in variants]
                found |= torch.stack([words & (2 * held > n).unsqueeze(1) for words, held, n in of_name]).any(0)
                holds.append(torch.stack([2 * held > n for _, held, n in of_name]).any(0))
            self._count(torch.stack(holds))
            return self._whole(inputs, found) & self.units.maskable(inputs)
        reader: Any = self.of_places or self.units
        there = self.of_places.there(inputs) if self.of_places else self.units.maskable(inputs)
        places = torch.zeros_like(there)
        for name in self.names:
            places = places | reader.places_of(name, inputs, self.option)
        return places & there if self.of_places else places

    def removed(self, inputs: dict[str, Any], draw: Draw, perturb: Perturb) -> tuple[dict[str, Any], Tensor]:
        """The batch in which these cues tell nothing, in every row; and ``(rows,)`` bool: the rows that held one.

        Tokens: with one name it is hidden, and so are all if one has numbers. With several, the first that stands in a row is
        exchanged for one that is drawn anew from all names and nothing, whatever the row's class; what else stands there is hidden.
        Where the words of a name stand apart, their longest run is exchanged. A name that is a part of another is not put anywhere.
        Blocks of float inputs: the same place of another row, drawn anew, takes their place.
        """
        if not self.sequences:
            place = self.places(inputs)
            if self.of_places:
                levels = self.of_places.levels(inputs)
                parts = [part.strip() for name in self.names for part in name.split("+")]
                names_level = any(LEVEL.fullmatch(part) for part in parts)
                place = self.of_places.movable(place, levels, names_level)
                return self.of_places.swapped(inputs, place, draw), place.any(1)
            return PERTURBATIONS["swap"](inputs, place, self.units, draw), place.flatten(1).any(1)
        offsets, scattered = self._offsets(inputs)
        place = self._whole(inputs, (offsets >= 0) | scattered)
        held = place.any(1)
        if len(self._donors) > 1 and not self.with_numbers:
            inputs, source = self._exchanged(inputs, offsets, scattered, draw)
            place = place.gather(1, source.clamp(min=0)) & (source >= 0)
        if hasattr(self.units, "cut"):  # the last token cannot be hidden: a decoder reads its answer there
            inputs, cut = self.units.cut(inputs, place)
            place = place & ~cut
        return perturb(dict(inputs), place, self.units, draw), held

    def _whole(self, inputs: Mapping[str, Any], places: Tensor) -> Tensor:
        """The marked tokens, and what goes on with their words."""
        whole: Tensor = self.units.whole_words(inputs, places) if hasattr(self.units, "whole_words") else places
        return whole

    def rows_of(self) -> dict[str, int]:
        """How many rows held each name, counted once each time that a row was trained on; none of places, which are in every row."""
        return {} if self._rows is None else dict(zip(self.names, self._rows.tolist(), strict=True))

    def reduce_counts(self, gather_sum: Callable[[Tensor], Tensor]) -> None:
        """Add up what all processes have seen; call it once, at the end."""
        if self._rows is not None:
            self._rows = gather_sum(self._rows)

    def _count(self, holds: Tensor) -> None:
        """``(names, rows)`` bool: which rows hold which."""
        self._rows = holds.sum(1) if self._rows is None else self._rows + holds.sum(1)

    def _words(self, ids: Tensor, sequence: list[int]) -> tuple[Tensor, Tensor, int]:
        """``(rows, length)`` bool, the words of a name; ``(rows,)``, how many different ones a row holds; how many it has."""
        words = torch.tensor(sorted(set(sequence)), device=ids.device)
        if self.kinds is not None:
            self.kinds = self.kinds.to(ids.device)
        found = same(ids.unsqueeze(-1), words, self.kinds)
        return found.any(-1), found.any(1).sum(1), len(words)

    def _exchanged(
        self, inputs: dict[str, Any], offsets: Tensor, scattered: Tensor, draw: Draw
    ) -> tuple[dict[str, Any], Tensor]:
        """See :func:`~.exchange.exchange_runs`; the run is the first name of each row, or the longest one of words apart."""
        words = self._donors
        lengths = torch.tensor([*map(len, words), 0])
        donors = torch.zeros(len(words) + 1, int(lengths.max()), dtype=torch.long)
        for n, sequence in enumerate(words):
            donors[n, : len(sequence)] = torch.tensor(sequence)
        donor = (draw.uniform() * len(donors)).long()
        start = (offsets == 0).long().argmax(1)
        place = torch.arange(offsets.shape[1], device=offsets.device)
        length = (offsets == place - start.unsqueeze(1)).sum(1)
        start_apart, length_apart = longest_run(scattered)
        start, length = torch.where(length > 0, start, start_apart), torch.where(length > 0, length, length_apart)
        device = offsets.device
        return exchange_runs(inputs, self.units, start, length, donors.to(device)[donor], lengths.to(device)[donor])

    def _offsets(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Where names stand.

        Returns:
            ``(rows, length)``: which token of a name that stands there as it is written, counted from 0; -1: none. Longer names
            come first. And ``(rows, length)`` bool: the words of a name in rows that hold all of them, but apart: what names a
            template ("received … via app") has gaps. So does a name with numbers, which stand in any order.
        """
        ids = inputs[self.units.key]
        content = getattr(self.units, "content", self.units.maskable)(inputs)
        offsets, scattered = torch.full_like(ids, -1, dtype=torch.long), torch.zeros_like(content)
        holds = [torch.zeros(len(ids), dtype=torch.bool, device=ids.device) for _ in self.names]
        numbered = ((n, sequence) for n, variants in enumerate(self.sequences) for sequence in variants)
        by_length = sorted(numbered, key=lambda found: -len(found[1]))
        for name, sequence in by_length:
            n = len(sequence)
            if n > ids.shape[1] or NUMBER in sequence:
                continue
            wanted = torch.tensor(sequence, device=ids.device)
            free = content & (offsets < 0)
            stands = (ids.unfold(1, n, 1) == wanted) & content.unfold(1, n, 1)
            holds[name] = holds[name] | stands.all(-1).any(1)
            starts = (stands & free.unfold(1, n, 1)).all(-1)
            for offset in range(n):
                window = offsets[:, offset : offset + starts.shape[1]]
                window[starts & (window < 0)] = offset
        for name, sequence in by_length:
            words, held, n = self._words(ids.masked_fill(~(content & (offsets < 0)), -1), sequence)
            apart = (held == n) & (NUMBER in sequence or (~holds[name] & (n > 1)))
            scattered |= words & apart.unsqueeze(1)
            holds[name] = holds[name] | apart
        self._count(torch.stack(holds))
        return offsets, scattered


def _is_part(run: list[int], other: list[int]) -> bool:
    """Whether the run stands in the other one as it is."""
    return any(other[start : start + len(run)] == run for start in range(len(other) - len(run) + 1))
