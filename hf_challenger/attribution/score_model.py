"""A model as captum's attributors want it: a module from one float tensor to one score a row.

captum differentiates with respect to the inputs of a forward function, which integer ids have no use for. :class:`ScoreModel`
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
from ..inputs.main_input import LABEL_KEYS, main_input_in
from ..logits import logits_of
from .eager_pass import outside_inference
from .lrp import embedding_table
from .targets import Target, predicted, score_of


class _LookupRecorded(Exception):
    """The lookup was recorded; the rest of the forward pass is not needed."""


class _EmbeddingLookups(TorchFunctionMode):
    """Within: lookups of ``ids`` (transposed or shifted right by one, too) return ``values`` in place of the table's rows.

    Only lookups in the main table do: the model's input embeddings, or else the first table in which it looks the ids up.
    Lookups of the same ids in other tables (positions, the low-rank part of LoRA) stay the model's own.

    Args:
        ids: ``(rows, length)``.
        table: the weight of the model's input embeddings, None where it does not tell.
        values: ``(rows, length, hidden)``; None records what the table holds for the ids.
        stop: end the forward pass once it is recorded, by :class:`_LookupRecorded`.
    """

    def __init__(self, ids: Tensor, table: Tensor | None, values: Tensor | None = None, stop: bool = False) -> None:
        super().__init__()
        self.ids, self.table, self.values, self.stop = ids, table, values, stop
        self.main: Tensor | None = None
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
        if not self._is_main(weight, ids):
            return found
        if ids.numel() == self.ids.numel() and torch.equal(ids.reshape(self.ids.shape), self.ids):
            self.main = weight
            if self.looked_up is None:
                self.looked_up = found.detach().reshape(*self.ids.shape, -1)
                if self.stop:
                    raise _LookupRecorded
            return found if self.values is None else self.values.reshape(found.shape).clone()
        if self.values is None:
            return found
        if ids.shape == self.ids.T.shape and torch.equal(ids.T, self.ids):  # XLNet: length first
            return self.values.transpose(0, 1).clone()
        if ids.shape == self.ids.shape and torch.equal(ids[:, 1:].clamp(min=0), self.ids[:, :-1].clamp(min=0)):
            return torch.cat([found[:, :1], self.values[:, :-1]], dim=1)  # decoders of BART and T5
        return found

    def _is_main(self, weight: Tensor, ids: Tensor) -> bool:
        if self.main is not None:
            return _same(weight, self.main)
        if self.table is None:
            return ids.data_ptr() == self.ids.data_ptr()
        # A sharded or derived weight is another tensor than the parameter: the first lookup of that width will do.
        alike = weight.shape[-1] == self.table.shape[-1] and ids.data_ptr() == self.ids.data_ptr()
        return alike or _same(weight, self.table)


def _same(weight: Tensor, other: Tensor) -> bool:
    return weight is other or (weight.data_ptr() == other.data_ptr() and weight.shape == other.shape)


class ScoreModel(nn.Module):
    """``forward(values)`` → score, ``(k · rows,)``, for ``values`` that hold k stacked variants of the batch's rows.

    Args:
        model: the classifier.
        batch: as the model takes it; its other tensors are repeated for each variant.
        target: see :func:`~.targets.score_of`. None is settled by the unmodified batch: an attributor's interpolated rows
            must not change their class midway.
        main_input: the key of the batch that is attributed; None: the model's main input.

    Raises:
        ChallengerError: where the main input is not known, and for ids that the model never embeds.

    Attributes:
        values: the batch's own values, ``(rows, length, hidden)`` embeddings or the float input; what is attributed.
        table: the embedding table, None for float inputs.
    """

    def __init__(self, model: nn.Module, batch: Mapping[str, Any], target: Target, main_input: str | None = None) -> None:
        super().__init__()
        self.model = model
        self.key = main_input_in(model, batch, main_input)
        self.batch: dict[str, Any] = outside_inference({k: v for k, v in batch.items() if k not in LABEL_KEYS})
        self.input: Tensor = self.batch[self.key]
        self.table: Tensor | None = None
        if self.input.is_floating_point():
            self.values = self.input.detach()
            logits = None if target is not None else self._plain_logits()
        else:
            self.table = embedding_table(model)
            lookups = _EmbeddingLookups(self.input, self.table, stop=target is not None)
            logits = None
            with suppress(_LookupRecorded), lookups:
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
        """The model's scores, ``(k · rows, classes)``."""
        rows = len(self.input)
        variants = len(values) // rows
        batch = {k: _tiled(v, rows, variants) for k, v in self.batch.items()}
        if self.table is None and self.input.is_floating_point():
            return logits_of(self.model(**{**batch, self.key: values.clone()}), self.model)
        with _EmbeddingLookups(batch[self.key], self.table, values):
            return logits_of(self.model(**batch), self.model)

    def forward(self, values: Tensor) -> Tensor:
        parts = self.logits(values).split(len(self.input))
        return torch.cat([score_of(part, self.target) for part in parts])


def _tiled(x: Any, rows: int, times: int) -> Any:
    if times > 1 and isinstance(x, Tensor) and x.dim() > 0 and len(x) == rows:
        return x.repeat(times, *(1 for _ in x.shape[1:]))
    return x
