"""Calibration metrics. All take tensors or numpy arrays; docs/calibration.md explains them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_calibration_error,
    multiclass_accuracy,
    multiclass_calibration_error,
)

from ..errors import ChallengerError

BINS = 15

Array = Tensor | np.ndarray[Any, Any]  # what metrics take


@dataclass(frozen=True)
class Bins:
    """Rows sorted into bins by confidence, the largest probability of a row. All in float64.

    Attributes:
        edges: ``(bins + 1,)`` ascending; a bin holds its lower edge, and the last one its upper edge too. Edges of equal width
            are float32's, as torchmetrics has them, so that diagram and ECE put a row into the same bin.
        count: ``(bins,)`` rows in each bin.
        confidence: ``(bins,)`` mean confidence, NaN in empty bins.
        accuracy: ``(bins,)`` share of right predictions, NaN in empty bins.
    """

    edges: Tensor
    count: Tensor
    confidence: Tensor
    accuracy: Tensor

    @property
    def gaps(self) -> Tensor:
        """``(bins,)`` |accuracy - confidence|, 0 in empty bins."""
        return (self.accuracy - self.confidence).abs().nan_to_num(0.0)

    @property
    def error(self) -> float:
        """Mean gap over rows: the expected calibration error of this binning."""
        return float((self.count * self.gaps).sum() / self.count.sum())


def reliability_bins(probabilities: Array, labels: Array, bins: int = BINS, equal_mass: bool = False) -> Bins:
    """What a reliability diagram shows (Guo et al., ICML 2017, Eq. 1 and 2).

    Args:
        probabilities: ``(rows, classes)``, rows sum to 1.
        labels: ``(rows,)`` classes.
        bins: how many.
        equal_mass: edges at quantiles of the confidences, so that every bin holds about as many rows, instead of bins of
            equal width. Rows of equal confidence stay in one bin, so that some may be empty.

    Raises:
        ChallengerError: as for :func:`expected_calibration_error`.
    """
    probabilities, labels = checked(probabilities, labels, bins)
    confidence, prediction = probabilities.max(1)
    right = (prediction == labels).double()
    if equal_mass:
        edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence.device)
        edges = torch.cat([edges[:1], confidence.quantile(edges[1:-1]), edges[-1:]])
        place = torch.bucketize(confidence, edges[1:-1], right=True)
    else:
        narrow = torch.linspace(0, 1, bins + 1, device=confidence.device)
        place = torch.bucketize(confidence.float(), narrow[1:-1], right=True)
        edges = narrow.double()
    count = torch.zeros_like(edges[1:]).index_add(0, place, torch.ones_like(confidence))
    mean_confidence, accuracy = (torch.zeros_like(count).index_add(0, place, x) / count for x in (confidence, right))
    return Bins(edges, count, mean_confidence, accuracy)


def expected_calibration_error(probabilities: Array, labels: Array, bins: int = BINS) -> float:
    """ECE of the top label (Guo et al., ICML 2017, Eq. 5), in [0, 1].

    ECE = Σ_b n_b/n · |accuracy(b) - confidence(b)| over ``bins`` bins of equal width in [0, 1], where a row's confidence is
    its largest probability.

    Args:
        probabilities: ``(rows, classes)``, rows sum to 1.
        labels: ``(rows,)`` classes.
        bins: how many, from 1 on.

    Raises:
        ChallengerError: for other shapes, no rows, rows that do not sum to 1, and labels that are no classes.

    Example::

        >>> expected_calibration_error(torch.tensor([[0.8, 0.2], [0.7, 0.3]]), torch.tensor([0, 1]))  # gaps .2 and .7
        0.45
    """
    return _top_label_error(probabilities, labels, bins, "l1")


def maximum_calibration_error(probabilities: Array, labels: Array, bins: int = BINS) -> float:
    """MCE (Guo et al. 2017, Eq. 6): the largest gap among the bins of :func:`expected_calibration_error`, in [0, 1].

    A bin with a handful of rows can decide it: look at the counts of :func:`reliability_bins` beside it.

    Args:
        probabilities, labels, bins: as for :func:`expected_calibration_error`, which also says what is refused.
    """
    return _top_label_error(probabilities, labels, bins, "max")


def adaptive_calibration_error(probabilities: Array, labels: Array, bins: int = BINS) -> float:
    """ECE of the top label over bins of equal mass (Nguyen & O'Connor, EMNLP 2015), in [0, 1].

    Confident models crowd into the last bins of equal width; quantiles spread them out.

    Args:
        probabilities, labels, bins: as for :func:`expected_calibration_error`, which also says what is refused.
    """
    return reliability_bins(probabilities, labels, bins, equal_mass=True).error


def classwise_calibration_error(probabilities: Array, labels: Array, bins: int = BINS) -> float:
    """Class-wise ECE (Kull et al., NeurIPS 2019, Eq. 3), in [0, 1]: every probability counts, not only the largest.

    The mean over classes k of the ECE of p_k against [label = k], over ``bins`` bins of equal width.

    Args:
        probabilities, labels, bins: as for :func:`expected_calibration_error`, which also says what is refused.
    """
    probabilities, labels = checked(probabilities, labels, bins)
    errors = [binary_calibration_error(_below_one(p), labels == k, n_bins=bins) for k, p in enumerate(probabilities.T)]
    return float(torch.stack(errors).mean())


def _top_label_error(probabilities: Array, labels: Array, bins: int, norm: Literal["l1", "max"]) -> float:
    probabilities, labels = checked(probabilities, labels, bins)
    classes = probabilities.shape[1]
    return float(multiclass_calibration_error(_below_one(probabilities), labels, classes, n_bins=bins, norm=norm))


def _below_one(probabilities: Tensor) -> Tensor:
    """torchmetrics, in float32, puts a confidence of 1 into a bin of its own after the last; the last one is meant."""
    return probabilities.clamp(max=1 - torch.finfo(torch.float32).eps)


def checked(probabilities: Array, labels: Array, bins: int = BINS) -> tuple[Tensor, Tensor]:
    """Float64 probabilities and integer labels, or a :class:`ChallengerError` that says what is wrong with them."""
    probabilities, labels = torch.as_tensor(probabilities), torch.as_tensor(labels)
    if probabilities.dim() != 2 or probabilities.shape[1] < 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ChallengerError(
            f"Probabilities of shape (rows, classes) and labels of shape (rows,) are expected, with at least one row and two"
            f" classes; got {tuple(probabilities.shape)} and {tuple(labels.shape)}."
        )
    if labels.is_floating_point() or labels.is_complex():  # .long() would cut 0.7 to class 0
        raise ChallengerError(
            f"Labels are expected as whole numbers, the classes; got {labels.dtype}. If they are classes: labels.long()."
        )
    probabilities, labels, classes = probabilities.double(), labels.long(), probabilities.shape[1]
    sums = probabilities.sum(1)
    if not (probabilities.isfinite().all() and (probabilities >= 0).all() and ((sums - 1).abs() < 1e-2).all()):
        raise ChallengerError(
            f"Each row of probabilities is expected to be at least 0 and to sum to 1; the smallest value is"
            f" {float(probabilities.min()):.3g} and the sums go from {float(sums.min()):.3g} to {float(sums.max()):.3g}. Did you"
            " mean logits.softmax(1)?"
        )
    if ((labels < 0) | (labels >= classes)).any():
        raise ChallengerError(
            f"Labels are expected in 0 to {classes - 1}, as there are {classes} probabilities a row; got {int(labels.min())} to"
            f" {int(labels.max())}. Leave out rows labelled -100."
        )
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ChallengerError(f"bins={bins!r} is not a whole number from 1 on.")
    return probabilities.clamp(max=1), labels


def confidence_interval(
    metric: Callable[[Tensor, Tensor], float],
    predictions: Array,
    labels: Array,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap (Efron 1979) over rows: the interval that ``metric`` falls into on resampled test sets.

    It tells how much a number owes to the choice of *test* rows; the choice of training seeds is not in it. A calibration
    error has a floor that noise alone makes, so that its interval may lie above the value itself on few rows.

    Args:
        metric: any function of this module, ``(predictions, labels)`` → float.
        predictions: ``(rows, …)``, what the metric takes: probabilities or logits.
        labels: ``(rows, …)``.
        level: share of the resampled values inside, in (0, 1).
        draws: how often the rows are resampled.
        seed: of a generator of its own: equal seeds give equal intervals.

    Returns:
        The lower and the upper end, in the metric's unit.

    Raises:
        ChallengerError: for a level outside (0, 1), fewer than two draws, or other than one label a prediction.
    """
    if not 0 < level < 1 or draws < 2 or len(predictions) != len(labels) or not len(labels):
        raise ChallengerError(
            f"A level in (0, 1), at least two draws and as many labels as predictions are expected; got level={level},"
            f" draws={draws}, {len(predictions)} predictions and {len(labels)} labels."
        )
    predictions, labels = torch.as_tensor(predictions), torch.as_tensor(labels)
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(draws):
        rows = torch.randint(len(labels), (len(labels),), generator=generator).to(labels.device)
        values.append(metric(predictions[rows], labels[rows]))
    tail = (1 - level) / 2
    low, high = torch.tensor(values, dtype=torch.float64).quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64))
    return float(low), float(high)


def negative_log_likelihood(logits: Array, labels: Array) -> float:
    """Mean -log p(label), in nats.

    Args:
        logits: ``(rows, classes)``.
        labels: ``(rows,)`` classes; rows labelled -100 are left out.
    """
    return float(F.cross_entropy(torch.as_tensor(logits), torch.as_tensor(labels)))


def brier_score(probabilities: Array, labels: Array) -> float:
    """Brier's (1950) score, mean over rows of Σ_k (p_k - [k = label])², in [0, 2].

    Args:
        probabilities, labels: as for :func:`expected_calibration_error`, which also says what is refused.
    """
    probabilities, labels = checked(probabilities, labels)
    return float((probabilities - F.one_hot(labels, probabilities.shape[1])).square().sum(1).mean())


def classification_metrics(logits: Array, labels: Array, bins: int = BINS) -> dict[str, float]:
    """``accuracy``, ``ece``, ``nll`` and ``brier`` of single-label predictions; rows labelled -100 are left out.

    Args:
        logits: ``(rows, classes)``.
        labels: ``(rows,)`` classes.
        bins: of the ECE.

    Raises:
        ChallengerError: for other shapes, no labelled row, NaN or infinite logits, and labels that are no classes.
    """
    logits, labels = labelled(logits, labels)
    probabilities = logits.softmax(1)
    return {
        "accuracy": float(multiclass_accuracy(probabilities, labels, logits.shape[1], average="micro")),
        "ece": expected_calibration_error(probabilities, labels, bins),
        "nll": negative_log_likelihood(logits, labels),
        "brier": brier_score(probabilities, labels),
    }


def labelled(logits: Array, labels: Array) -> tuple[Tensor, Tensor]:
    """Float64 logits and labels of the rows that have one, or a :class:`ChallengerError` that says what is wrong with them."""
    logits, labels = torch.as_tensor(logits), torch.as_tensor(labels)
    if logits.dim() != 2 or logits.shape[1] < 2 or labels.shape != logits.shape[:1]:
        raise ChallengerError(
            f"Logits of shape (rows, classes) and labels of shape (rows,) are expected, with at least two classes; got"
            f" {tuple(logits.shape)} and {tuple(labels.shape)}. Tasks with several labels a row are not covered."
        )
    present = labels != -100
    if not present.any():
        raise ChallengerError(f"None of the {len(labels)} rows has a label (-100 means none). Give rows with labels.")
    logits, labels = logits[present].double(), labels[present].long()
    if not logits.isfinite().all():
        raise ChallengerError("The logits hold NaN or infinity: the model's training has diverged. Lower the learning rate.")
    if ((labels < 0) | (labels >= logits.shape[1])).any():
        raise ChallengerError(
            f"Labels are expected in 0 to {logits.shape[1] - 1}, as there are {logits.shape[1]} logits a row; got"
            f" {int(labels.min())} to {int(labels.max())}."
        )
    return logits, labels
