"""A model as captum's attributors want it: a module from one float tensor to one score a row.

captum differentiates with respect to the inputs of a forward function, which integer ids have no use for. :class:`Scored`
makes the embeddings of the ids its input: it calls the unmodified model on the ids, and puts the given values in place of
what ``F.embedding`` looked up for them. ``inputs_embeds`` would not do: padded rows of some decoders then get other
logits, and encoder-decoders refuse it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ChallengerError
from ..logits import logits_of
from .lrp import LABEL_KEYS, embedding_table, main_input
from .targets import Target, predicted, score_of


class _Found(Exception):
    """The lookup was recorded; the rest of the forward pass is not needed."""


class _Lookups(TorchFunctionMode):
    """Within: lookups of ``ids`` (transposed or shifted right by one, too) return ``values`` in place of the table's rows.

    With ``values`` None it records what the table holds for the ids, and with ``stop`` ends the forward pass there.
    """

    def __init__(self, ids: Tensor, table: Tensor | None, values: Tensor | None = None, stop: bool = False) -> None:
        super().__init__()
        self.ids, self.table, self.values, self.stop = ids, table, values, stop
        self.looked_up: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if func is not F.embedding:
            return found
        ids = args[0] if args else kwargs["input"]
        weight = args[1] if len(args) > 1 else kwargs["weight"]
        if weight is not self.table and ids.data_ptr() != self.ids.data_ptr():
            return found  # positions, token types
        if ids.numel() == self.ids.numel() and torch.equal(ids.reshape(self.ids.shape), self.ids):
            if self.looked_up is None:
                self.looked_up = found.detach().reshape(*self.ids.shape, -1)
                if self.stop:
                    raise _Found
            return found if self.values is None else self.values.reshape(found.shape).clone()
        if self.values is None:
            return found
        if ids.shape == self.ids.T.shape and torch.equal(ids.T, self.ids):  # XLNet: length first
            return self.values.transpose(0, 1).clone()
        if ids.shape == self.ids.shape and torch.equal(ids[:, 1:].clamp(min=0), self.ids[:, :-1].clamp(min=0)):
            return torch.cat([found[:, :1], self.values[:, :-1]], dim=1)  # decoders of BART and T5
        return found


class Scored(nn.Module):
    """``forward(values)`` → score, ``(k · rows,)``, for ``values`` that hold k stacked variants of the batch's rows.

    Args:
        model: the classifier.
        batch: as the model takes it; its other tensors are repeated for each variant.
        target: see :func:`~.targets.score_of`. None is settled by the unmodified batch: an attributor's interpolated rows
            must not change their class midway.

    Attributes:
        values: the batch's own values, ``(rows, length, hidden)`` embeddings or the float input; what is attributed.
        table: the embedding table, None for float inputs.
    """

    def __init__(self, model: nn.Module, batch: Mapping[str, Any], target: Target) -> None:
        super().__init__()
        self.model = model
        self.key = main_input(model, batch)
        self.batch = {k: v for k, v in batch.items() if k not in LABEL_KEYS}
        self.input: Tensor = batch[self.key]
        self.table: Tensor | None = None
        if self.input.is_floating_point():
            self.values = self.input.detach()
            logits = None if target is not None else self._plain_logits()
        else:
            self.table = embedding_table(model)
            lookups = _Lookups(self.input, self.table, stop=target is not None)
            logits = None
            with suppress(_Found), lookups:
                logits = self._plain_logits()
            if lookups.looked_up is None:
                raise ChallengerError(
                    f"{type(model).__name__} never looked its ids up with torch.nn.functional.embedding, so there is no"
                    " place to read relevance at. Pass float inputs instead."
                )
            self.values = lookups.looked_up
        self.target = target if target is not None or logits is None else predicted(logits)

    def _plain_logits(self) -> Tensor:
        with torch.no_grad():
            return logits_of(self.model(**self.batch), self.model)

    def logits(self, values: Tensor) -> Tensor:
        """``(k · rows, classes)``."""
        rows = len(self.input)
        variants = len(values) // rows
        batch = {k: _tiled(v, rows, variants) for k, v in self.batch.items()}
        if self.table is None and self.input.is_floating_point():
            return logits_of(self.model(**{**batch, self.key: values.clone()}), self.model)
        with _Lookups(batch[self.key], self.table, values):
            return logits_of(self.model(**batch), self.model)

    def forward(self, values: Tensor) -> Tensor:
        parts = self.logits(values).split(len(self.input))
        return torch.cat([score_of(part, self.target) for part in parts])


def _tiled(x: Any, rows: int, times: int) -> Any:
    if times > 1 and isinstance(x, Tensor) and x.dim() > 0 and len(x) == rows:
        return x.repeat(times, *(1 for _ in x.shape[1:]))
    return x
