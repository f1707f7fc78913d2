"""Which loss a head computes, and labels that do not fit it."""

from __future__ import annotations

from torch import Tensor

from .errors import ChallengerError, NotChallengeable
from .value_checks import Expect, at_once

IGNORED = -100  # the label of a row, or of one of its outputs, that takes no part in the loss
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


def problem_type_of(declared: str | None, outputs: int | None, labels: Tensor) -> str:
    """transformers' own rule: what the config says, else by number of outputs and type of labels."""
    if declared in PROBLEM_TYPES:
        return declared
    if outputs == 1:
        return "regression"
    return "multi_label_classification" if labels.is_floating_point() else "single_label_classification"


def check_labels(logits: Tensor, labels: Tensor, problem_type: str, expect: Expect = at_once) -> None:
    """Raise :class:`ChallengerError` where labels do not fit the logits; ``expect`` says when, for what needs their values.

    A class out of range would end in a device-side assert, or train on a wrong class; a NaN would spoil the weights.
    """
    rows = len(labels)
    if logits.dim() != 2 or len(logits) != rows:
        raise NotChallengeable(
            f"The model returned scores of shape {tuple(logits.shape)} for {rows} labelled rows; (rows, outputs) is expected."
            " Classification and regression of whole inputs can be challenged; tasks with several predictions a row (token"
            " classification, question answering, multiple choice, language modelling) cannot."
        )
    outputs = logits.shape[1]
    if problem_type == "single_label_classification":
        if labels.numel() != rows or labels.is_floating_point():
            raise ChallengerError(
                f"Labels of shape {tuple(labels.shape)} and type {labels.dtype} were given, but a classifier with {outputs}"
                f" classes takes one integer a row, ({rows},). For several true classes a row, pass floats of shape"
                f" ({rows}, {outputs}) and set problem_type='multi_label_classification' in the model's config."
            )
        expect(~outside(labels, outputs).any(), lambda: _wrong_class(labels, outputs))
        return
    if labels.numel() != rows * outputs:
        raise ChallengerError(
            f"Labels of shape {tuple(labels.shape)} and type {labels.dtype} were given, but {problem_type} with {outputs}"
            f" outputs takes one number a row and output, ({rows}, {outputs}). For one class a row, pass integers."
        )
    if labels.is_floating_point():
        expect(labels.isfinite().all(), lambda: _not_finite(labels))


def outside(labels: Tensor, classes: int) -> Tensor:
    """Which labels, of any shape, are neither a class nor :data:`IGNORED`."""
    return ((labels < 0) | (labels >= classes)) & (labels != IGNORED)


def _wrong_class(labels: Tensor, outputs: int) -> ChallengerError:
    wrong = labels[outside(labels, outputs)].reshape(-1)[0].item()
    return ChallengerError(
        f"Label {wrong} is outside the model's {outputs} classes (0 to {outputs - 1}). Load the model with"
        " num_labels=<number of classes>, or map your labels to 0, 1, 2, …"
    )


def _not_finite(labels: Tensor) -> ChallengerError:
    row = int((~labels.isfinite()).reshape(len(labels), -1).any(1).nonzero()[0])
    return ChallengerError(
        f"The labels of row {row} of the batch are NaN or infinite: {labels[row].tolist()}. Clean the data; -100 leaves a"
        " label out of the loss."
    )
