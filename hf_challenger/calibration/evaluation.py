"""Accuracy, ece, nll and brier beside the user's own metrics in ``Trainer.evaluate``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EvalPrediction

from ..errors import ChallengerWarning
from ..logits import position_of_logits
from .metrics import classification_metrics

ComputeMetrics = Callable[..., dict[str, Any]]


def logits_position(outputs: Any, ignored: Sequence[str] = (), model: nn.Module | None = None) -> int | None:
    """Where the logits stand among the outputs that Trainer gathers: all but the loss and the ignored keys.

    Args:
        outputs: what the model returned.
        ignored: keys that Trainer leaves out.
        model: its config tells the number of classes.

    Returns:
        The position, see :func:`~..logits.position_of_logits`; None if neither a name nor a shape tells.
    """
    if isinstance(outputs, dict):
        kept = {name: value for name, value in outputs.items() if name != "loss" and name not in ignored}
        return 0 if len(kept) == 1 else position_of_logits(list(kept), list(kept.values()), model)
    if isinstance(outputs, (tuple, list)):
        values = [value for value in outputs if not (isinstance(value, torch.Tensor) and value.dim() == 0)]  # the loss
        return position_of_logits([None] * len(values), values, model)
    return 0


def scores(logits: Any, labels: Any) -> dict[str, float]:
    """Calibration metrics if the prediction is single-label classification, else nothing.

    Args:
        logits: ``(rows, classes)``, a tensor or an array.
        labels: ``(rows,)`` integers.
    """
    if logits is None or labels is None or isinstance(logits, (tuple, list)) or isinstance(labels, (tuple, list)):
        return {}
    logits, labels = _array(logits), _array(labels)
    single_label = (
        logits.ndim == 2 and logits.shape[1] > 1 and labels.size == len(logits) and np.issubdtype(labels.dtype, np.integer)
    )
    if not single_label or not (labels != -100).any():
        return {}
    if not np.isfinite(logits).all():  # a run that has diverged goes on, as with Trainer, and its metrics tell
        return dict.fromkeys(("accuracy", "ece", "nll", "brier"), float("nan"))
    return classification_metrics(torch.as_tensor(logits).float(), torch.as_tensor(labels).reshape(-1))


def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """``compute_metrics`` for a plain ``Trainer``: accuracy, ece, nll and brier, as ChallengerTrainer reports them.

    A plain ``Trainer`` tells no field names. Of several outputs the first is taken for the logits.
    """
    return scores(_at(prediction.predictions, 0), prediction.label_ids)


class CalibrationMetrics:
    """A ``compute_metrics`` that adds accuracy, ece, nll and brier to what the user's own returns.

    The user's values win where names meet.

    Args:
        users: the user's ``compute_metrics``, or None.
        preprocess: the user's ``preprocess_logits_for_metrics``, or None. If there is one, :meth:`with_logits` takes its
            place, and predictions are pairs of what it made and the logits.
        batch_by_batch: whether it is called for each batch (``batch_eval_metrics``), the last time with
            ``compute_result=True``.
        concatenated: False if predictions and labels are lists of batches (``eval_do_concat_batches``).

    Attributes:
        position: of the logits among the outputs of the evaluation that is running, see :func:`logits_position`.
        listener: called with the logits and labels of each evaluation of single-label classification, if set.
    """

    def __init__(
        self,
        users: ComputeMetrics | None = None,
        preprocess: Callable[[Any, Any], Any] | None = None,
        batch_by_batch: bool = False,
        concatenated: bool = True,
    ) -> None:
        self.users, self.preprocess = users, preprocess
        self.batch_by_batch, self.concatenated = batch_by_batch, concatenated
        self.position: int | None = 0
        self.listener: Callable[[Any, Any], None] | None = None
        self._batches: list[tuple[Any, Any]] = []
        self._logits_only = self._warned = False

    @contextmanager
    def logits_only(self) -> Iterator[None]:
        """Inside, :meth:`kept` drops all outputs but the logits, unless the user's functions need them."""
        before, self._logits_only = self._logits_only, self.users is None and self.preprocess is None
        try:
            yield
        finally:
            self._logits_only = before

    def kept(self, predictions: Any) -> Any:
        """What is kept in memory of a batch's outputs: all of them, or the logits."""
        return _at(predictions, self.position) if self._logits_only and self.position is not None else predictions

    @contextmanager
    def watching(self, model: nn.Module, ignored: Sequence[str]) -> Iterator[None]:
        """Inside, each output of the model sets :attr:`position`."""

        def look(module: nn.Module, args: Any, outputs: Any) -> None:
            self.position = logits_position(outputs, ignored, module)

        handle = model.register_forward_hook(look)
        try:
            yield
        finally:
            handle.remove()

    def with_logits(self, outputs: Any, labels: Any) -> Any:
        """The user's processed outputs together with the logits, through gathering and concatenation."""
        assert self.preprocess is not None
        return self.preprocess(outputs, labels), _at(outputs, self.position)

    def processed(self, predictions: Any) -> Any:
        """The user's part of predictions that :meth:`with_logits` made."""
        if self.preprocess is None or predictions is None:
            return predictions
        return predictions[0] if self.concatenated else [pair[0] for pair in predictions]

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, Any]:
        logits, labels = self._logits_of(prediction.predictions), prediction.label_ids
        if self.preprocess is not None:
            extra = {"inputs": prediction.inputs, "losses": prediction.losses}
            given = {k: v for k, v in extra.items() if v is not None}
            predictions = prediction.predictions[0] if self.batch_by_batch else self.processed(prediction.predictions)
            prediction = EvalPrediction(predictions=predictions, label_ids=labels, **given)
        if not self.batch_by_batch:
            users = self.users(prediction) if self.users is not None else {}
            if not self.concatenated:
                logits, labels = _joined(logits), _joined(labels)
            return {**self._scores(logits, labels), **users}
        users = self.users(prediction, compute_result=compute_result) if self.users is not None else {}
        self._batches.append((_on_cpu(logits), _on_cpu(labels)))
        if not compute_result:
            return users
        batches, self._batches = self._batches, []
        all_logits, all_labels = (_joined(list(part)) for part in zip(*batches, strict=True))
        return {**self._scores(all_logits, all_labels), **(users or {})}

    def _logits_of(self, predictions: Any) -> Any:
        """The logits in predictions: an array, or a list of arrays where batches are not concatenated."""
        position = 1 if self.preprocess is not None else self.position
        if self.concatenated or self.batch_by_batch:
            return _at(predictions, position)
        return [_at(batch, position) for batch in predictions]

    def _scores(self, logits: Any, labels: Any) -> dict[str, float]:
        if isinstance(labels, (tuple, list)) and labels and not self._warned:  # none of a model that needs none
            self._warned = True
            warnings.warn(
                f"The rows have {len(labels)} labels each, so that accuracy, ece, nll and brier are not reported: they are for one"
                " label a row. Pass compute_metrics for metrics of your own. This is said once.",
                ChallengerWarning,
                stacklevel=2,
            )
        found = scores(logits, labels)
        if found and self.listener is not None:
            self.listener(logits, labels)
        return found


def _at(predictions: Any, position: int | None) -> Any:
    """The output at that position; a single one is itself."""
    if position is None:
        return None
    if not isinstance(predictions, (tuple, list)):
        return predictions
    return predictions[position] if position < len(predictions) else None


def _array(x: Any) -> np.ndarray[Any, Any]:
    if isinstance(x, torch.Tensor):
        return (x.float() if x.is_floating_point() else x).cpu().numpy()
    return np.asarray(x)


def _on_cpu(x: Any) -> Any:
    return tuple(map(_on_cpu, x)) if isinstance(x, (tuple, list)) else None if x is None else _array(x)


def _joined(batches: Any) -> Any:
    """Batches as one array; of several labels a row, one array each. None if they do not fit together."""
    if batches is None or any(batch is None for batch in batches):
        return None
    if any(isinstance(batch, (tuple, list)) for batch in batches):
        return tuple(map(_joined, zip(*batches, strict=True)))
    arrays = [_array(batch) for batch in batches]
    if len({array.shape[1:] for array in arrays}) > 1:  # one prediction a token, padded to several lengths
        return None
    return np.concatenate(arrays) if arrays else None
