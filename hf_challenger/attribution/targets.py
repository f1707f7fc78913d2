"""What is explained: one score per row, made of the logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import ChallengerError
from ..value_checks import on_host

Score = Callable[[Tensor], Tensor]
ClassIndex = int | Tensor | Sequence[int] | None
Place = tuple[int, ...] | Sequence[tuple[int, ...]]
Target = ClassIndex | Place | Score


def score_of(logits: Tensor, target: Target) -> Tensor:
    """The explained score of each row, ``(rows,)``.

    Args:
        logits: ``(rows, classes)``, or ``(rows,)`` for a single output. Further axes of length 1 do not count. Scores with
            several axes, ``(rows, places, classes)``, need a target that names one of them.
        target: what is explained:

            - None: the only output, or with several classes the predicted one.
            - An int: that class for every row.
            - ``(rows,)`` integers: one class a row.
            - A tuple, as in captum: the index on each axis after the first, ``(place, class)``, for every row.
            - A list of such tuples, or ``(rows, axes)`` integers: one index a row.
            - Floats of the logits' shape: the weighted sum of the logits (multi-label). With a single output, a
              regression, it is that output whatever the label.
            - A callable that maps logits to scores, ``(rows,)``, see :func:`contrastive`.

    Raises:
        ChallengerError: for a target that does not fit the logits, and for scores with several axes of which the target
            names none.
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
    is_tuple = isinstance(target, tuple)  # a list of integers is one index a row
    given: Tensor | None = None
    if target is not None:
        given = torch.as_tensor(target, device=logits.device)
        given = given.clone() if given.is_inference() else given
        if given.is_floating_point():
            return _weighted_sum(logits, given)
        axes = logits.dim() - 1
        names_axes = given.shape == (len(logits), axes) or (is_tuple and given.shape == (axes,))
        if axes > 1 and names_axes:
            return _at_place(logits, given.long())
    logits = by_class(logits)
    rows, classes = logits.shape
    index = predicted(logits) if given is None else given.reshape(-1).long()
    if index.numel() == 1:
        index = index.expand(rows)
    if index.numel() != rows:
        raise ChallengerError(f"One target a row is needed: got {index.numel()} targets for {rows} rows.")
    if classes == 1:
        return logits[:, 0]
    _check_range(index, classes)
    return logits.gather(1, index.unsqueeze(1)).squeeze(1)


def by_class(logits: Tensor) -> Tensor:
    """Scores without axes of length 1, ``(rows, classes)``; refused where several axes are longer than that."""
    if sum(length > 1 for length in logits.shape[1:]) > 1:
        raise ChallengerError(
            f"The model returned scores of shape {tuple(logits.shape)}, so that a row has several axes of scores and a class"
            f" index names none of them. Give a tuple of {logits.dim() - 1} indices, (place, class), a list of one such tuple a"
            " row, or a callable that maps these scores to one a row."
        )
    return logits.flatten(1)


def _weighted_sum(logits: Tensor, weights: Tensor) -> Tensor:
    if logits.shape[1:].numel() == 1:  # a regression label is no weight: the only output is what is explained
        return logits.flatten()
    if weights.numel() != logits.numel():
        raise ChallengerError(
            f"A float target has the shape of the logits, {tuple(logits.shape)}; got {tuple(weights.shape)}."
        )
    return (logits * weights.reshape(logits.shape)).flatten(1).sum(-1)


def _at_place(logits: Tensor, places: Tensor) -> Tensor:
    """The score at ``places``, ``(axes,)`` or ``(rows, axes)``."""
    rows, *lengths = logits.shape
    columns = places.expand(rows, -1).unbind(1)
    for index, length in zip(columns, lengths, strict=True):
        _check_range(index, length)
    return logits[(torch.arange(rows, device=logits.device), *columns)]


def _check_range(index: Tensor, length: int) -> None:
    # Only on the CPU: elsewhere the check would make training wait for the device, which then reports the index itself.
    if on_host(index) and ((index < 0) | (index >= length)).any():
        raise ChallengerError(
            f"A target is a class index in [0, {length - 1}], as the model has {length} outputs; got"
            f" {index.min().item()} to {index.max().item()}."
        )


def predicted(logits: Tensor) -> Tensor:
    """The class each row predicts, ``(rows,)``, for logits ``(rows, classes)``; zeros for a single output."""
    return by_class(logits).argmax(-1) if logits.dim() > 1 else torch.zeros_like(logits, dtype=torch.long)


def contrastive(target: ClassIndex) -> Score:
    """Target logit minus the best other logit: what tells the classes apart, instead of what they share."""
    return _against(target, lambda others: others.max(-1).values)


def log_odds(target: ClassIndex) -> Score:
    """Target logit minus the log-sum-exp of the others: the log odds of the target's softmax probability."""
    return _against(target, lambda others: others.logsumexp(-1))


def _against(target: ClassIndex, joined: Score) -> Score:
    def score(logits: Tensor) -> Tensor:
        logits = by_class(logits) if logits.dim() > 1 else logits
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
