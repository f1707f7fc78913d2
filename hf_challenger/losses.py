"""Losses per row, so that clean and challenged rows can be weighted and reported apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import ChallengerError

IGNORED = -100  # the label of a row, or of one of its outputs, that takes no part in the loss
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def problem_type_of(declared: str | None, outputs: int | None, labels: Tensor) -> str:
    """transformers' own rule: what the config says, else by number of outputs and type of labels."""
    if declared in PROBLEM_TYPES:
        return declared
    if outputs == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def row_losses(
    logits: Tensor, labels: Tensor, problem_type: str, gives_up: Tensor | None = None, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The summed loss of each row and the number of labels in it: a mean is the ratio of their sums.

    Args:
        logits: ``(rows, outputs)``; the loss is computed in float32 at least.
        labels: ``(rows,)`` classes, or ``(rows, outputs)`` floats; -100 is left out.
        problem_type: one of :data:`PROBLEM_TYPES`: cross-entropy, binary cross-entropy with logits, squared error.
        gives_up: ``(rows,)`` in [0, 1], the certainty that the target gives up (single-label only). Softening comes first,
            label smoothing on top of it.

    Returns:
        ``(rows,)`` float losses and ``(rows,)`` float counts.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if problem_type == "single_label_classification":
        rows, classes = logits.shape
        labels = labels.reshape(rows).long()
        present = labels != IGNORED
        log_p = logits.log_softmax(-1)
        gold = -log_p.gather(1, labels.clamp(0, classes - 1).unsqueeze(1)).squeeze(1)
        spread = -log_p.mean(1)
        # (1 - s)·one_hot + s/K, twice over: certainty that is given up goes to all classes alike.
        kept = torch.ones_like(gold) if gives_up is None else 1 - gives_up.to(gold.dtype)
        kept = kept * (1 - label_smoothing)
        return (kept * gold + (1 - kept) * spread) * present, present.float()
    labels = labels.reshape(logits.shape).to(logits.dtype)
    present = labels != IGNORED
    wanted = labels.masked_fill(~present, 0)
    if problem_type == "multi_label_classification":
        elements = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
    else:
        elements = F.mse_loss(logits, wanted, reduction="none")
    return (elements * present).flatten(1).sum(1), present.flatten(1).sum(1).float()


def check_labels(logits: Tensor, labels: Tensor, problem_type: str) -> None:
    """Raise :class:`ChallengerError` where labels do not fit the logits. Waits for the device.

    A class out of range would end in a device-side assert, or train on a wrong class; a NaN would spoil the weights.
    """
    rows = len(labels)
    if logits.dim() != 2 or len(logits) != rows:
        raise ChallengerError(
            f"The model returned scores of shape {tuple(logits.shape)} for {rows} labelled rows; (rows, outputs) is expected."
            " Classification and regression of whole inputs are supported; tasks with several predictions a row (token"
            " classification, question answering, multiple choice, language modelling) are not: train them with Trainer."
        )
    outputs = logits.shape[1]
    if problem_type == "single_label_classification":
        if labels.numel() != rows or labels.is_floating_point():
            raise ChallengerError(
                f"Labels of shape {tuple(labels.shape)} and type {labels.dtype} were given, but a classifier with {outputs}"
                f" classes takes one integer a row, ({rows},). For several true classes a row, pass floats of shape"
                f" ({rows}, {outputs}) and set problem_type='multi_label_classification' in the model's config."
            )
        outside = labels[((labels < 0) | (labels >= outputs)) & (labels != IGNORED)]
        if outside.numel():
            raise ChallengerError(
                f"Label {outside.reshape(-1)[0].item()} is outside the model's {outputs} classes (0 to {outputs - 1}). Load the"
                " model with num_labels=<number of classes>, or map your labels to 0, 1, 2, …"
            )
        return
    if labels.numel() != rows * outputs:
        raise ChallengerError(
            f"Labels of shape {tuple(labels.shape)} and type {labels.dtype} were given, but {problem_type} with {outputs}"
            f" outputs takes one number a row and output, ({rows}, {outputs}). For one class a row, pass integers."
        )
    if labels.is_floating_point() and not labels.isfinite().all():
        row = int((~labels.isfinite()).reshape(rows, -1).any(1).nonzero()[0])
        raise ChallengerError(
            f"The labels of row {row} of the batch are NaN or infinite: {labels[row].tolist()}. Clean the data; -100 leaves a"
            " label out of the loss."
        )
