"""What is explained: one score per row, made of the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ChallengerError

Score = Callable[[Tensor], Tensor]
Target = int | Tensor | Sequence[int] | Score | None


def score_of(logits: Tensor, target: Target) -> Tensor:
    """The explained score of each row, ``(rows,)``.

    Args:
        logits: ``(rows, classes)``, or ``(rows,)`` for a single output.
        target: None: the only output, or with several classes the predicted one. An int: that class for every row.
            ``(rows,)`` integers: one class a row. ``(rows, classes)`` floats: the weighted sum of the logits
            (multi-label). A callable maps logits to scores, see :func:`contrastive`.
    """
    if callable(target):
        return target(logits)
    if logits.dim() == 1:
        return logits
    logits = logits.flatten(1)
    rows, classes = logits.shape
    if target is None:
        target = logits.argmax(-1)
    target = torch.as_tensor(target, device=logits.device)
    if target.is_floating_point():
        if target.numel() != logits.numel():
            if classes == 1:  # a regression label: the only output is what is explained
                return logits[:, 0]
            raise ChallengerError(
                f"A float target has the shape of the logits, {tuple(logits.shape)}; got {tuple(target.shape)}."
            )
        return (logits * target.reshape(logits.shape)).sum(-1)
    target = target.reshape(-1).long().expand(rows) if target.numel() == 1 else target.reshape(-1).long()
    if target.numel() != rows:
        raise ChallengerError(f"One target a row is needed: got {target.numel()} targets for {rows} rows.")
    if classes == 1:
        return logits[:, 0]
    return logits.gather(1, target.unsqueeze(1)).squeeze(1)


def contrastive(target: Tensor) -> Score:
    """Target logit minus the best other logit: what tells the classes apart, instead of what they share."""

    def score(logits: Tensor) -> Tensor:
        own = score_of(logits, target)
        others = logits.scatter(1, target.reshape(-1, 1), float("-inf")) if logits.shape[-1] > 1 else None
        return own if others is None else own - others.max(-1).values

    return score


def log_odds(target: Tensor) -> Score:
    """Target logit minus the log-sum-exp of the others: the log odds of the target's softmax probability."""

    def score(logits: Tensor) -> Tensor:
        own = score_of(logits, target)
        others = logits.scatter(1, target.reshape(-1, 1), float("-inf")) if logits.shape[-1] > 1 else None
        return own if others is None else own - others.logsumexp(-1)

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
