"""Calibration: does a confidence of .8 mean right 8 times in 10?"""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

BINS = 15


def expected_calibration_error(probabilities: Tensor, labels: Tensor, bins: int = BINS) -> float:
    """ECE of the top label (Guo et al., ICML 2017, Eq. 5), in [0, 1].

    ECE = Σ_b n_b/n · |accuracy(b) - confidence(b)| over ``bins`` bins of equal width in (0, 1], where a row's confidence is
    its largest probability.

    Args:
        probabilities: ``(rows, classes)``, rows sum to 1.
        labels: ``(rows,)`` classes.
    """
    classes = probabilities.shape[1]
    return float(multiclass_calibration_error(probabilities, labels, classes, n_bins=bins, norm="l1"))


def negative_log_likelihood(logits: Tensor, labels: Tensor) -> float:
    """Mean -log p(label), in nats."""
    return float(F.cross_entropy(logits, labels))


def brier_score(probabilities: Tensor, labels: Tensor) -> float:
    """Brier's (1950) score, mean over rows of Σ_k (p_k - [k = label])², in [0, 2]."""
    return float((probabilities - F.one_hot(labels, probabilities.shape[1])).square().sum(1).mean())


def classification_metrics(logits: Tensor, labels: Tensor, bins: int = BINS) -> dict[str, float]:
    """``accuracy``, ``ece``, ``nll`` and ``brier`` of single-label predictions; rows labelled -100 are left out.

    Args:
        logits: ``(rows, classes)``.
        labels: ``(rows,)`` classes.
    """
    present = labels != -100
    logits, labels = logits[present].double(), labels[present].long()
    probabilities = logits.softmax(1)
    return {
        "accuracy": float(multiclass_accuracy(probabilities, labels, logits.shape[1], average="micro")),
        "ece": expected_calibration_error(probabilities, labels, bins),
        "nll": negative_log_likelihood(logits, labels),
        "brier": brier_score(probabilities, labels),
    }


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature T > 0 that minimises the NLL of logits / T (Guo et al. 2017, section 4.2), on held-out rows.

    Found in log T by golden-section search in float64 (the NLL has a single minimum in 1/T), between 1/100 and 100.

    Args:
        logits: ``(rows, classes)``.
        labels: ``(rows,)`` classes.
    """
    logits, labels = logits.double(), labels.long()

    def nll(log_t: float) -> float:
        return negative_log_likelihood(logits / math.exp(log_t), labels)

    low, high, ratio = -math.log(100), math.log(100), (math.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if nll(left) < nll(right) else (left, high)
    return math.exp((low + high) / 2)
