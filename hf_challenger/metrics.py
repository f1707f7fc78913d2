"""Calibration beside the user's own metrics in ``Trainer.evaluate``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import EvalPrediction

from .calibration import classification_metrics

ComputeMetrics = Callable[..., dict[str, Any]]


class Kept(NamedTuple):
    """What the user's ``preprocess_logits_for_metrics`` made of the logits, and the logits that calibration needs."""

    processed: Any
    logits: Any


def with_logits(preprocess: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """``preprocess`` whose result travels together with the raw logits, through gathering and concatenation."""

    def keep_both(logits: Any, labels: Any) -> Any:
        # Not a Kept: Trainer rebuilds sequences as type(x)(generator), which named tuples do not take.
        return preprocess(logits, labels), first_array(logits)

    return keep_both


def first_array(predictions: Any) -> Any:
    """The scores: models with more outputs than logits (hidden states, past values) give tuples that start with them."""
    return predictions[0] if isinstance(predictions, (tuple, list)) else predictions


def scores(logits: Any, labels: Any) -> dict[str, float]:
    """Calibration metrics if the prediction is single-label classification, else nothing."""
    logits, labels = first_array(logits), first_array(labels)
    if logits is None or labels is None:
        return {}
    logits, labels = np.asarray(logits), np.asarray(labels)
    single_label = (
        logits.ndim == 2 and logits.shape[1] > 1 and labels.size == len(logits) and np.issubdtype(labels.dtype, np.integer)
    )
    if not single_label or not (labels != -100).any():
        return {}
    if not np.isfinite(logits).all():  # a run that has diverged goes on, as with Trainer, and its metrics tell
        return dict.fromkeys(("accuracy", "ece", "nll", "brier"), float("nan"))
    return classification_metrics(torch.as_tensor(logits).float(), torch.as_tensor(labels).reshape(-1))


def calibration(prediction: EvalPrediction) -> dict[str, float]:
    """``compute_metrics`` for a plain ``Trainer``: accuracy, ece, nll and brier, as ChallengerTrainer reports them."""
    return scores(prediction.predictions, prediction.label_ids)


class CalibrationMetrics:
    """A ``compute_metrics`` that adds accuracy, ece, nll and brier to what the user's own returns.

    The user's values win where names meet.

    Attributes:
        listener: called with the scores and labels of each evaluation of single-label classification, if set.

    Args:
        users: the user's ``compute_metrics``, or None.
        kept: whether predictions are :class:`Kept` pairs, because the user processes logits.
        batched: whether it is called batch by batch (``batch_eval_metrics``), the last time with ``compute_result=True``.
    """

    def __init__(self, users: ComputeMetrics | None, kept: bool, batched: bool) -> None:
        self.users, self.kept, self.batched = users, kept, batched
        self.batches: list[tuple[Any, Any]] = []
        self.listener: Callable[[Any, Any], None] | None = None

    def __call__(self, prediction: EvalPrediction, compute_result: bool = True) -> dict[str, Any]:
        processed, logits = Kept(*prediction.predictions) if self.kept else Kept(*(prediction.predictions,) * 2)
        if self.kept:
            extra = {"inputs": prediction.inputs, "losses": prediction.losses}
            given = {k: v for k, v in extra.items() if v is not None}
            prediction = EvalPrediction(predictions=processed, label_ids=prediction.label_ids, **given)
        if not self.batched:
            users = self.users(prediction) if self.users is not None else {}
            return {**self._scores(logits, prediction.label_ids), **users}
        users = self.users(prediction, compute_result=compute_result) if self.users is not None else {}
        self.batches.append((_array(first_array(logits)), _array(first_array(prediction.label_ids))))
        if not compute_result:
            return users
        all_logits, all_labels = (np.concatenate(part) for part in zip(*self.batches, strict=True))
        self.batches = []
        return {**self._scores(all_logits, all_labels), **(users or {})}

    def _scores(self, logits: Any, labels: Any) -> dict[str, float]:
        found = scores(logits, labels)
        if found and self.listener is not None:
            self.listener(first_array(logits), first_array(labels))
        return found


def _array(x: Any) -> np.ndarray[Any, Any]:
    return (
        x.float().cpu().numpy()
        if isinstance(x, torch.Tensor) and x.is_floating_point()
        else np.asarray(x.cpu() if isinstance(x, torch.Tensor) else x)
    )
