"""The last rows of each class, and for how long they brought no news: what the memories of tokens and of places share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

ROWS = 64  # different rows a class that are remembered: a share of .2 then rests on a dozen rows
FEWEST_ROWS = 5  # different rows that a cue was seen in
RISE = 0.02  # of a class's largest strength: less of it is no news


class RowMemory:
    """Of each remembered row two arrays, of which the second holds shares of its relevance.

    Args:
        arguments: of the subclass, for a copy.
    """

    first = "contents"  # the first array's name in a checkpoint
    told_by: tuple[str, ...] = ("label",)  # what of a cue stays the same once it was found
    threshold: float

    def __init__(self, *arguments: Any) -> None:
        self._arguments = arguments
        # label -> key of a row -> its two arrays; the newest last
        self._rows: dict[int, dict[int, tuple[np.ndarray, np.ndarray]]] = {}
        self._counts: Tensor | None = None  # (classes, …) rows that were hidden
        self._largest: dict[int, float] = {}  # label -> largest strength so far of what is no cue
        self._rows_since_news = 0  # taken in since a cue was new or a strength rose, in place of others

    @property
    def settled(self) -> bool:
        """Whether all that it remembers was renewed without news: as many rows came again, or in place of others, since a cue
        was new, or what may become one got stronger.
        """
        return self._rows_since_news >= max(FEWEST_ROWS, sum(map(len, self._rows.values())))

    def _take_in(self, label: int, rows: Iterable[tuple[int, np.ndarray, np.ndarray]], most: int = ROWS) -> None:
        """Rows of one class, as key and arrays; of those that are then too many the oldest go.

        Shares that are all zero tell nothing. A row then keeps those of its last visit, and has not come again.
        """
        known = self._rows.setdefault(label, {})
        for key, first, shares in rows:
            last = known.pop(key, None)  # so that it becomes the newest
            told = bool(shares.any())
            kept = shares if told or last is None else last[1][: len(shares)]
            known[key] = first.copy(), kept.copy()  # a view would keep the whole step in memory
            self._rows_since_news += told and (last is not None or len(known) > most)
        for oldest in list(known)[:-most]:
            del known[oldest]

    def _no_cue(self, label: int, strength: float) -> None:
        """The strength of what is no cue of a class: news where it rose."""
        if strength > self._largest.get(label, 0.0) + RISE:
            self._largest[label], self._rows_since_news = strength, 0

    def forget_named(self, identities: set[int]) -> None:
        """Names are kept or taken out by now that were not before, of tokens with these identities.

        What was found stays found. What was seen of rows does not hold any more.
        """
        self._rows, self._largest, self._rows_since_news = {}, {}, 0

    def reduce_counts(self, gather_sum: Callable[[Tensor], Tensor]) -> None:
        """Add up what all processes have hidden; call it once, at the end."""
        if self._counts is not None:
            self._counts = gather_sum(self._counts)

    def state_of_all(self, gather_sum: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """:meth:`state_dict` with what all processes have hidden so far; all call it together."""
        own = self._counts
        self.reduce_counts(gather_sum)
        state = self.state_dict()
        self._counts = own
        return state

    def count_as(self, earlier: dict[str, Any]) -> None:
        """Count the hidden rows of an earlier state of the same training; of a cue that was found since none was."""
        state = self.state_dict()
        before = {tuple(cue[name] for name in self.told_by): cue["hidden_rows"] for cue in earlier["cues"]}
        for cue in state["cues"]:
            cue["hidden_rows"] = before.get(tuple(cue[name] for name in self.told_by), 0)
        self.load_state_dict(state)

    def copy(self) -> Self:
        """Another one that knows the same; what is shown or hidden there changes nothing here."""
        other = type(self)(*self._arguments)
        other.threshold = self.threshold  # which options may have changed since
        other.load_state_dict(self.state_dict())
        return other

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain numbers, for a checkpoint."""
        return {
            "rows": {
                label: {
                    "keys": torch.tensor(list(rows)),
                    self.first: torch.from_numpy(stacked([first for first, _ in rows.values()])),
                    "shares": torch.from_numpy(stacked([shares for _, shares in rows.values()], 0.0)),
                }
                for label, rows in self._rows.items()
                if rows
            },
            "rows_since_news": self._rows_since_news,
            "largest": dict(self._largest),
        }

    def load_state_dict(self, state: dict[str, Any], counts: bool = True) -> None:
        """Go on from a checkpoint.

        Args:
            state: from :meth:`state_dict`.
            counts: whether to go on counting the hidden rows from there; of several processes only one does.
        """
        self._rows = {
            label: dict(
                zip(
                    rows["keys"].tolist(),
                    zip(rows[self.first].numpy(), rows["shares"].numpy(), strict=True),
                    strict=True,
                )
            )
            for label, rows in state["rows"].items()
        }
        self._counts = None
        self._largest = dict(state.get("largest", {}))
        self._rows_since_news = state.get("rows_since_news", 0)


def stacked(arrays: Sequence[np.ndarray], fill: float = np.nan) -> np.ndarray:
    """One array; those shorter than the longest (series of a shorter batch) are filled up."""
    longest = max(map(len, arrays))
    if any(len(array) < longest for array in arrays):
        widths = [((0, longest - len(array)), *((0, 0),) * (array.ndim - 1)) for array in arrays]
        arrays = [np.pad(array, width, constant_values=fill) for array, width in zip(arrays, widths, strict=True)]
    return np.concatenate(arrays).reshape(len(arrays), *arrays[0].shape)  # np.stack takes five times as long for short rows
