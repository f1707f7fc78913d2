"""The cue memory of images, series and audio: places whose content tells the class, and on which the classifier leans.

A word is the same thing wherever it stands; a place is in every row, and what stands there may tell the class. So two things are
asked of a place, over many rows. Does its content tell the class? The adjusted R² of a one-way analysis of variance says so, classes
against content. Over all rows it is known before the classifier is sure of many; over the rows that it is sure of it is larger, as long
as these are the rows that hold the cue. Does the classifier lean on it? Relevance tells, in rows of whose class the classifier is sure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .cues import Cue
from .row_memory import FEWEST_ROWS, ROWS, RowMemory, stacked

# What it takes to tell a cue: rows of a class whose relevance tells, and degrees of freedom of the contents within classes; as many as
# classes, if these are more. By chance one place in 10,000 then has an R² of .62 (two classes) to .76 (fifteen) or more (distribution
# of F); with more rows it is found out.
ROWS_OF_CLASS, FREEDOM = 3, 15
NUMBERS = 2**23  # that the remembered rows hold together, about: 32 MiB


def telling(count: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """How well the content of each place tells the class: adjusted R² of the class means, the best of its channels.

    Adjusted for the number of classes: chance alone gives about 0, however many classes there are. What is negative counts as 0.

    Args:
        count, total, squares: ``(classes, places, channels)`` of each class's rows: how many have something there, and the sums
            of the contents and of their squares.

    Returns:
        ``(places,)`` in [0, 1]; 0 where nothing can be told: one class, too few rows, or the same content in all rows.
    """
    return _adjusted_r2(count, total, squares).max(-1, initial=0)


def _adjusted_r2(count: np.ndarray, total: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """``(places, channels)``, see :func:`telling`."""
    rows = count.sum(0)
    classes = (count > 0).sum(0)
    spread = squares.sum(0) - total.sum(0) ** 2 / np.maximum(rows, 1)
    within = (squares - total**2 / np.maximum(count, 1)).sum(0)
    known = (classes > 1) & (rows > classes)
    # What rounding leaves of a constant is no content: means of float32 differ by less than a part in 100,000.
    known &= spread > 1e-10 * np.maximum(squares.sum(0), 1e-2 * max(float(spread.max(initial=0)), 1e-12))
    ratio = within / np.maximum(rows - classes, 1) / np.where(known, spread / np.maximum(rows - 1, 1), 1)
    return np.where(known, 1 - ratio, 0)


def _sums_of(contents: np.ndarray, levels: int) -> np.ndarray:
    """``(views, 3, places, channels)``: how many rows have something there, and the sums of it and of its squares. The views are the
    contents as they are, and if there are levels beside their channel's level.
    """
    views, channels = [contents], contents.shape[2]
    if levels in (1, channels):
        level = contents[:, 0] if levels == 1 else contents[:, :levels, 0]  # (rows, channels)
        views.append(np.concatenate([contents[:, :levels], contents[:, levels:] - level[:, None]], 1))
    found = []
    for view in views:
        known = ~np.isnan(view)
        held = np.where(known, view, 0)
        found.append(np.stack([known.sum(0), held.sum(0), (held**2).sum(0)]))
    return np.stack(found)


def _telling(sums: list[np.ndarray]) -> np.ndarray:
    """:func:`telling` of one :func:`_sums_of` a class, in the view in which a place tells less; ``(0,)`` of too few rows.

    An offset is in each block as it is, and a mark that sets the level is in each block beside it.
    """
    if sum(int(of_class[0, 0].max(initial=0)) for of_class in sums) - len(sums) < max(FREEDOM, len(sums)):
        return np.zeros(0)
    views = []
    for view in range(min(map(len, sums))):
        of_view = stacked([of_class[view].swapaxes(0, 1) for of_class in sums], 0.0)
        views.append(_adjusted_r2(*of_view.transpose(2, 0, 1, 3)))
    return np.min(views, 0).max(-1, initial=0)


class PlaceMemory(RowMemory):
    """Of the last rows of each class: what each place held, and its share of the relevance.

    A class has at most one cue: the telling blocks, if they hold more than ``threshold`` of its rows' relevance together, and
    each telling level that does so alone. Once one class has a cue, its levels, or all telling blocks, are hidden in rows of *every*
    class: hidden in one class's rows only, they would tell that class by being hidden.

    Memory is bounded by :data:`NUMBERS`, but at least :data:`~.row_memory.FEWEST_ROWS` rows a class are kept, those whose relevance tells
    nothing among them.

    Args:
        threshold: share of the relevance from which telling places are a cue.
        telling: adjusted R² from which the content of a block tells the class.
        level_telling: the same for the level of a channel; None: as for a block.
    """

    def __init__(self, threshold: float, telling: float, level_telling: float | None = None) -> None:
        super().__init__(threshold, telling, level_telling)
        self.threshold, self.telling = threshold, telling
        self.level_telling = telling if level_telling is None else level_telling
        self.levels = 0  # places that are levels, the first ones
        # Axes, lengths and sizes of the blocks of the longest batch so far.
        self.layout: tuple[tuple[int, int, int], ...] = ()
        # label -> (views, 3, places, channels): count, total, squares; of all its rows, and of those that the model is sure of
        self._sums: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self._cues: dict[int, Cue] = {}
        self._telling = np.zeros(0)  # (places,)
        # (places,) bool; and of each cue, (cues, places), with its class
        self._hidden: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def number(self) -> int:
        """How many cues are known. Unlike :attr:`cues` it does not wait for the device."""
        return len(self._cues)

    @property
    def names_level(self) -> bool:
        """Whether a level is a cue, or part of one."""
        return any(n < self.levels for cue in self._cues.values() for n in cue.identities)

    @property
    def cues(self) -> list[Cue]:
        """Copies of all cues, those with the largest part of their class's relevance first."""
        counts = [] if self._counts is None else self._counts.tolist()
        found = [replace(cue, hidden_rows=counts[c] if c < len(counts) else 0) for c, cue in self._cues.items()]
        return sorted(found, key=lambda cue: -cue.coverage * cue.strength)

    def remember(self, labels: Tensor, keys: Tensor, contents: Tensor, shares: Tensor, levels: int = 0) -> None:
        """Rows of one step, in their order; then look for cues.

        Args:
            labels: ``(rows,)`` classes; a negative one leaves its row out.
            keys: ``(rows,)`` int64 that tell rows apart, see :func:`~.relevant_units.row_keys`.
            contents: ``(rows, places, channels)``, NaN where there is nothing.
            shares: ``(rows, places)`` of the row's positive relevance; zeros where it tells nothing, since the model is not sure of
                the row's class. What the row holds counts all the same, and what its relevance told before.
            levels: how many places are the level of a channel, the first ones.
        """
        self.levels = levels
        told = labels >= 0
        classes, names = labels[told].cpu().numpy(), keys[told].cpu().numpy()
        held, parts = contents[told].float().cpu().numpy(), shares[told].float().cpu().numpy()
        if not len(classes):
            return
        present = np.unique(classes).tolist()
        for label in present:
            self._rows.setdefault(label, {})
        numbers = held[0].size + parts[0].size
        most = int(np.clip(NUMBERS // (numbers * max(len(self._rows), 1)), FEWEST_ROWS, ROWS))
        for label in present:
            self._take_in(label, ((int(names[n]), held[n], parts[n]) for n in np.flatnonzero(classes == label)), most)
            self._sum(label)
        self._look(present)

    def _sum(self, label: int) -> None:
        rows = self._rows[label]
        if rows:
            contents = stacked([held for held, _ in rows.values()]).astype(np.float64)
            sure = np.array([shares.any() for _, shares in rows.values()])
            every = _sums_of(contents, self.levels)
            self._sums[label] = every, every if sure.all() else _sums_of(contents[sure], self.levels)

    def _tell(self) -> np.ndarray:
        """``(places,)`` in [0, 1]: how well each tells the class, over all rows or over those that the model is sure of."""
        every = [sums for sums, _ in self._sums.values()]
        sure = [sums for _, sums in self._sums.values() if sums[0, 0].max(initial=0) >= ROWS_OF_CLASS]
        # The few classes that are learnt first differ anywhere.
        found = [_telling(every), _telling(sure if 2 * len(sure) >= len(every) else [])]
        return stacked(found, 0.0).max(0)

    def _look(self, present: list[int]) -> None:
        """What tells the class by now, and which of these classes lean on it."""
        tells = self._tell()
        if not len(tells):
            return
        self._telling = tells
        found = self._found()
        places = set(np.flatnonzero(found).tolist())
        for label, cue in list(self._cues.items()):
            # Few rows may differ by chance. What does not tell the class over more of them was no cue.
            cue.identities = tuple(n for n in cue.identities if n in places)
            if not cue.identities:
                del self._cues[label]
        for label in present:
            told = [parts for _, parts in self._rows[label].values() if parts.any()]
            if len(told) < ROWS_OF_CLASS:
                continue
            shares = stacked(told, 0.0)
            shares = np.pad(shares, ((0, 0), (0, len(found) - shares.shape[1])))
            leaned_on, strengths = self._leaned_on(shares.mean(0) * found)
            known = self._cues.get(label)
            if leaned_on.any():
                if known is None:
                    known = self._cues[label] = Cue(label, 0, (), 0.0, 0.0)
                    self._rows_since_news = 0
                mean = shares.mean(0) * leaned_on
                known.seed = int(mean.argmax())
                # What holds less than an even share of the relevance would make the name long, and says nothing.
                named = np.flatnonzero(mean >= min(1 / len(found), mean.max()))
                # A level that is hidden holds less relevance, but stays a cue.
                stays = [n for n in known.identities if n < self.levels or not leaned_on[self.levels :].any()]
                known.identities = tuple(sorted({*named.tolist(), *stays}))
                held = shares[:, leaned_on].sum(1)
                known.coverage = float((held > self.threshold).mean())
                known.strength = max(known.strength, float(held.mean()))
            elif known is None:
                self._no_cue(label, float(strengths.max(initial=0)))
        self._hidden = {}

    def _leaned_on(self, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which telling places a class leans on: each level by itself, and all blocks if together they hold enough.

        Args:
            shares: ``(places,)`` mean shares of the class's relevance, 0 where a place does not tell.

        Returns:
            ``(places,)`` bool, and the share that decides for each.
        """
        strengths = shares.copy()
        strengths[self.levels :] = np.where(shares[self.levels :] > 0, shares[self.levels :].sum(), 0)
        return strengths > self.threshold, strengths

    def _to_hide(self) -> np.ndarray:
        """``(places,)`` bool: the levels that a class leans on, and if one leans on blocks, all of those that tell."""
        hidden, named = self._found(), [n for cue in self._cues.values() for n in cue.identities]
        hidden[: self.levels] &= np.isin(np.arange(len(hidden[: self.levels])), named)
        if all(n < self.levels for n in named):
            hidden[self.levels :] = False
        return hidden

    def _found(self) -> np.ndarray:
        """``(places,)`` bool: those that tell the class."""
        return self._telling >= np.where(np.arange(len(self._telling)) < self.levels, self.level_telling, self.telling)

    def drop_mask(self, maskable: Tensor, labels: Tensor, rows: Tensor | None = None) -> Tensor:
        """The telling places, in rows of every class, once one class leans on them. Does not wait for the device.

        A row of which nothing would be left stays whole.

        Args:
            maskable: ``(rows, places)`` bool.
            labels: ``(rows,)`` classes; rows with a negative one stay whole.
            rows: ``(rows,)`` bool, in which of them to hide blocks; None: in all. Levels are hidden in all rows: left in some, they
                would go on telling the class there, and a few rows do not teach a model to look past them. What is hidden is
                counted, where ``rows`` is given.

        Returns:
            ``(rows, places)`` bool, True = removed.
        """
        if not self._cues:
            return torch.zeros_like(maskable)
        device, places = maskable.device, maskable.shape[1]
        if device not in self._hidden:
            to_hide = self._to_hide()
            members = np.stack([np.isin(np.arange(len(to_hide)), cue.identities) for cue in self._cues.values()])
            hidden = (to_hide, members, np.array(list(self._cues)))
            self._hidden[device] = tuple(torch.from_numpy(part).to(device) for part in hidden)  # type: ignore[assignment]
        found = self._hidden[device][0][:places]
        drop_mask = torch.nn.functional.pad(found, (0, places - len(found))) & maskable & (labels >= 0).unsqueeze(1)
        if rows is not None:
            drop_mask[:, self.levels :] &= rows.unsqueeze(1)
        drop_mask = drop_mask & (maskable & ~drop_mask)[:, self.levels :].any(1, keepdim=True)
        if rows is not None:
            self._count(drop_mask)
        return drop_mask

    def _count(self, drop_mask: Tensor) -> None:
        """Of each cue, the rows in which one of its places was hidden."""
        device, classes = drop_mask.device, max(self._cues) + 1
        if self._counts is None or len(self._counts) < classes or self._counts.device != device:
            counts = torch.zeros(classes, dtype=torch.long, device=device)
            if self._counts is not None:
                counts[: len(self._counts)] = self._counts.to(device)
            self._counts = counts
        _, members, labels = self._hidden[device]
        width = min(drop_mask.shape[1], members.shape[1])
        rows = (drop_mask[:, None, :width] & members[:, :width]).any(-1).sum(0)
        self._counts.index_add_(0, labels, rows)

    def forget_named(self, identities: set[int]) -> None:
        """As :meth:`.RowMemory.forget_named`. A place that is kept has no content any more, which tells nothing."""
        super().forget_named(identities)
        self._sums = {}

    def state_dict(self) -> dict[str, Any]:
        """As :meth:`.RowMemory.state_dict`, and the cues."""
        cues = [vars(cue) for cue in self.cues]
        return {**super().state_dict(), "cues": cues, "levels": self.levels, "layout": [list(axis) for axis in self.layout]}

    def load_state_dict(self, state: dict[str, Any], counts: bool = True) -> None:
        """As :meth:`.RowMemory.load_state_dict`, and the cues."""
        super().load_state_dict(state)
        self._sums, self._telling, self._hidden = {}, np.zeros(0), {}
        self.levels = state.get("levels", 0)
        self.layout = tuple((axis, length, size) for axis, length, size in state.get("layout", ()))
        self._cues = {values["label"]: Cue(**{**values, "hidden_rows": 0}) for values in state["cues"]}
        for label in self._rows:
            self._sum(label)
        self._look([])
        if self._cues:
            self._counts = torch.zeros(max(self._cues) + 1, dtype=torch.long)
            for values in state["cues"] if counts else []:
                self._counts[values["label"]] = values["hidden_rows"]


def places_in_one(labels: Tensor, keys: Tensor, contents: Tensor, shares: Tensor, levels: int = 0) -> Tensor:
    """What :meth:`PlaceMemory.remember` takes as one tensor, so that it is gathered and copied to the host once.

    Returns:
        ``(rows, 5 + places · (1 + channels))`` int64; floats are there by their bits.
        Tensors of other widths can be joined with it, filled up with -1.
    """
    floats = torch.cat([shares.float(), contents.float().flatten(1)], 1).contiguous().view(torch.int32)
    counts = torch.tensor([[shares.shape[1], contents.shape[2], levels]]).expand(len(labels), 3).to(labels)
    return torch.cat([labels[:, None], keys[:, None], counts, floats], 1)


def places_taken_apart(rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    """The arguments of :func:`places_in_one`, without the places that are in no row, at their end."""
    labels, keys, width, floats = rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 5:].int().view(torch.float32)
    most, channels, levels = (max(int(n), 0) for n in rows[:, 2:5].amax(0))
    shares, contents = torch.zeros(len(rows), most), torch.full((len(rows), most, channels), torch.nan)
    for places in width[width > 0].unique().tolist():
        of_width = floats[width == places, : places * (1 + channels)]
        shares[width == places, :places] = of_width[:, :places]
        contents[width == places, :places] = of_width[:, places:].unflatten(1, (places, channels))
    there = (~contents[labels >= 0].isnan()).any(-1).any(0).nonzero()
    places = int(there.max()) + 1 if len(there) else 1
    return labels, keys, contents[:, :places], shares[:, :places], levels
