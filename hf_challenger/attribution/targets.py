"""What is explained: one score per row, made of the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ChallengerError

Score = Callable[[Tensor], Tensor]
ClassIndex = int | Tensor | Sequence[int] | None
Target = ClassIndex | Score


def score_of(logits: Tensor, target: Target) -> Tensor:
    """The explained score of each row, ``(rows,)``.

    Args:
        logits: ``(rows, classes)``, or ``(rows,)`` for a single output.
        target: None: the only output, or with several classes the predicted one. An int: that class for every row.
            ``(rows,)`` integers: one class a row. ``(rows, classes)`` floats: the weighted sum of the logits
            (multi-label; with a single output, a regression, that output whatever the label). A callable maps logits to
            scores, ``(rows,)``, see :func:`contrastive`.
    """
    if callable(target):
        score = target(logits)
        if not isinstance(score, Tensor) or score.shape != logits.shape[:1]:
            found = tuple(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise ChallengerError(
                f"A callable target returns one score a row, shape {tuple(logits.shape[:1])}; got {found}."
            )
        return score
    if logits.dim() == 1:
        return logits
    logits = logits.flatten(1)
    rows, classes = logits.shape
    if target is None:
        target = predicted(logits)
    target = torch.as_tensor(target, device=logits.device)
    if target.is_floating_point():
        if classes == 1:  # a regression label is no weight: the only output is what is explained
            return logits[:, 0]
        if target.numel() != logits.numel():
            raise ChallengerError(
                f"A float target has the shape of the logits, {tuple(logits.shape)}; got {tuple(target.shape)}."
            )
        return (logits * target.reshape(logits.shape)).sum(-1)
    target = target.reshape(-1).long().expand(rows) if target.numel() == 1 else target.reshape(-1).long()
    if target.numel() != rows:
        raise ChallengerError(f"One target a row is needed: got {target.numel()} targets for {rows} rows.")
    if classes == 1:
        return logits[:, 0]
    # Only on the CPU: elsewhere the check would make training wait for the device, which then reports the index itself.
    if target.device.type == "cpu" and ((target < 0) | (target >= classes)).any():
        raise ChallengerError(
            f"A target is a class index in [0, {classes - 1}], as the model has {classes} outputs; got"
            f" {target.min().item()} to {target.max().item()}."
        )
    return logits.gather(1, target.unsqueeze(1)).squeeze(1)


def predicted(logits: Tensor) -> Tensor:
    """The class each row predicts, ``(rows,)``."""
    return logits.flatten(1).argmax(-1) if logits.dim() > 1 else torch.zeros_like(logits, dtype=torch.long)


def contrastive(target: ClassIndex) -> Score:
    """Target logit minus the best other logit: what tells the classes apart, instead of what they share."""
    return _against(target, lambda others: others.max(-1).values)


def log_odds(target: ClassIndex) -> Score:
    """Target logit minus the log-sum-exp of the others: the log odds of the target's softmax probability."""
    return _against(target, lambda others: others.logsumexp(-1))


def _against(target: ClassIndex, joined: Score) -> Score:
    def score(logits: Tensor) -> Tensor:
        own = score_of(logits, target)
        if logits.dim() == 1 or logits.shape[-1] == 1:  # a single output has no others
            return own
        classes = logits.shape[-1]
        index = predicted(logits) if target is None else torch.as_tensor(target, device=logits.device).long()
        is_own = torch.arange(classes, device=logits.device) == index.reshape(-1, 1)
        return own - joined(logits.masked_fill(is_own, float("-inf")))

    return score


def named_target(name: str, labels: Tensor) -> Any:
    """The target that a configuration names: see :data:`TARGETS`."""
    return TARGETS[name](labels)


# Contrastive scores need one class a row; multi-label and regression labels (floats) are explained as they are.
TARGETS: dict[str, Callable[[Tensor], Any]] = {
    "gold": lambda labels: labels,
    "predicted": lambda labels: None,
    "contrastive": lambda labels: labels if labels.is_floating_point() else contrastive(labels),
    "log_odds": lambda labels: labels if labels.is_floating_point() else log_odds(labels),
}
