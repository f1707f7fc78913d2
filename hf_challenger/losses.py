"""Losses per row, so that clean and challenged rows can be weighted and reported apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import ChallengerError

IGNORED = -100  # the label of a row, or of one of its outputs, that takes no part in the loss
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def problem_type_of(declared: str | None, logits: Tensor, labels: Tensor) -> str:
    """transformers' own rule: what the config says, else by number of outputs and type of labels."""
    if declared in PROBLEM_TYPES:
        return declared
    if logits.shape[-1] == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def row_losses(
    logits: Tensor, labels: Tensor, problem_type: str, gives_up: Tensor | None = None, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The summed loss of each row and the number of labels in it: a mean is the ratio of their sums.

    Args:
        logits: ``(rows, outputs)``; the loss is computed in float32.
        labels: ``(rows,)`` classes, or ``(rows, outputs)`` floats; -100 is left out.
        problem_type: one of :data:`PROBLEM_TYPES`: cross-entropy, binary cross-entropy with logits, squared error.
        gives_up: ``(rows,)`` in [0, 1], the certainty that the target gives up (single-label only). Softening comes first,
            label smoothing on top of it.

    Returns:
        ``(rows,)`` float losses and ``(rows,)`` float counts.
    """
    logits = logits.float()
    if problem_type == "single_label_classification":
        rows, classes = logits.shape
        labels = labels.reshape(rows)
        present = labels != IGNORED
        log_p = logits.log_softmax(-1)
        gold = -log_p.gather(1, labels.clamp(0, classes - 1).unsqueeze(1)).squeeze(1)
        spread = -log_p.mean(1)
        # (1 - s)·one_hot + s/K, twice over: certainty that is given up goes to all classes alike.
        kept = torch.ones_like(gold) if gives_up is None else 1 - gives_up
        kept = kept * (1 - label_smoothing)
        return (kept * gold + (1 - kept) * spread) * present, present.float()
    labels = labels.reshape(logits.shape).float()
    present = labels != IGNORED
    wanted = labels.masked_fill(~present, 0)
    if problem_type == "multi_label_classification":
        elements = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    else:
        elements = F.mse_loss(logits, wanted, reduction="none")
    return (elements * present).flatten(1).sum(1), present.flatten(1).sum(1).float()


def check_labels(labels: Tensor, classes: int) -> None:
    """Raise :class:`ChallengerError` unless every class is in [0, classes) or -100. Waits for the device."""
    outside = labels[((labels < 0) | (labels >= classes)) & (labels != IGNORED)]
    if outside.numel():
        raise ChallengerError(
            f"Label {outside[0].item()} is outside the model's {classes} classes (0 to {classes - 1}). Load the model with"
            " num_labels=<number of classes>, or map your labels to 0, 1, 2, …"
        )
