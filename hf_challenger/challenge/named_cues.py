"""Cues that the user names: those to leave alone (``challenge_keep``), and known leaks (``challenge_hide``)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ChallengerError
from ..inputs.places import Places
from ..keyed_random import Draw
from .exchange import exchange_runs
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
        if self.names and not hasattr(units, "places_of"):
            raise ChallengerError(
                f"{option}={self.names!r} needs an adapter that reads names, and {type(units).__name__} has no method"
                " places_of (docs/adapters.md)."
            )
        if self.names and units.is_sequence_of_tokens:
            self.sequences = [units.read_name(name, option) for name in self.names]

    def __bool__(self) -> bool:
        return bool(self.names)

    def places(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, units)`` bool: the units, or places, that belong to one of these cues."""
        if self.sequences:
            return self._offsets(inputs) >= 0
        reader: Any = self.of_places or self.units
        there = self.of_places.there(inputs) if self.of_places else self.units.maskable(inputs)
        places = torch.zeros_like(there)
        for name in self.names:
            places = places | reader.places_of(name, inputs, self.option)
        return places

    def removed(self, inputs: dict[str, Any], draw: Draw, perturb: Perturb) -> tuple[dict[str, Any], Tensor]:
        """The batch in which these cues tell nothing, in every row; and ``(rows,)`` bool: the rows that held one.

        Tokens: with one name it is hidden. With several, the first that stands in a row is exchanged for one that is drawn anew
        from all names and nothing, whatever the row's class; what else stands there is hidden. Blocks of float inputs: the same
        place of another row, drawn anew, takes their place.
        """
        if not self.sequences:
            place = self.places(inputs)
            if self.of_places:
                return self.of_places.swapped(inputs, place, draw), place.any(1)
            return PERTURBATIONS["swap"](inputs, place, self.units, draw), place.flatten(1).any(1)
        offsets = self._offsets(inputs)
        place = offsets >= 0
        held = place.any(1)
        if len(self.names) > 1:
            inputs, source = self._exchanged(inputs, offsets, draw)
            place = place.gather(1, source.clamp(min=0)) & (source >= 0)
        return perturb(dict(inputs), place, self.units, draw), held

    def _exchanged(self, inputs: dict[str, Any], offsets: Tensor, draw: Draw) -> tuple[dict[str, Any], Tensor]:
        """See :func:`~.exchange.exchange_runs`; the run is the first name of each row."""
        longest = max(len(variants[0]) for variants in self.sequences)
        donors = torch.zeros(len(self.names) + 1, longest, dtype=torch.long)
        lengths = torch.tensor([len(variants[0]) for variants in self.sequences] + [0])
        for n, variants in enumerate(self.sequences):
            donors[n, : lengths[n]] = torch.tensor(variants[0])
        donor = (draw.uniform() * len(donors)).long()
        start = (offsets == 0).long().argmax(1)
        place = torch.arange(offsets.shape[1], device=offsets.device)
        length = (offsets == place - start.unsqueeze(1)).sum(1)
        device = offsets.device
        return exchange_runs(inputs, self.units, start, length, donors.to(device)[donor], lengths.to(device)[donor])

    def _offsets(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, length)``: which token of a named cue stands there, counted from 0; -1: none. Longer names come first."""
        ids = inputs[self.units.key]
        maskable = self.units.maskable(inputs)
        offsets = torch.full_like(ids, -1, dtype=torch.long)
        for sequence in sorted((s for variants in self.sequences for s in variants), key=len, reverse=True):
            n = len(sequence)
            if n > ids.shape[1]:
                continue
            wanted = torch.tensor(sequence, device=ids.device)
            free = maskable & (offsets < 0)
            starts = ((ids.unfold(1, n, 1) == wanted) & free.unfold(1, n, 1)).all(-1)
            for offset in range(n):
                window = offsets[:, offset : offset + starts.shape[1]]
                window[starts & (window < 0)] = offset
        return offsets
