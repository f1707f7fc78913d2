"""Rows with a model's predictions and relevance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..attribution.lrp import LRP
from ..attribution.targets import score_of
from ..challenge.relevant_units import most_relevant, row_keys, row_keys_of, shares_of
from ..checks import check_inputs
from ..errors import ChallengerError
from ..inputs.main_input import taken_by
from ..inputs.places import Places
from .classifier import Classifier


@dataclass
class PlacesOfRows:
    """What :class:`~..challenge.places.PlaceMemory` is told of rows, see :class:`~..inputs.places.Places`.

    Attributes:
        there: ``(rows, places)`` bool.
        contents: ``(rows, places, channels)``
        shares: ``(rows, places)`` of the row's positive relevance.
        levels: how many places are levels.
    """

    there: Tensor
    contents: Tensor
    shares: Tensor
    levels: int


@dataclass
class AttributedBatch:
    """Rows that were read. Units are in one line, whatever their grid.

    Attributes:
        inputs: the batch without labels.
        grid: shape of the units of a row.
        labelled: whether the rows came with labels.
        classes: ``(rows,)`` labels, or predictions; -1: the row has none.
        probabilities: ``(rows, classes)`` of the rows as they are.
        maskable: ``(rows, units)`` bool.
        identities: ``(rows, units)``.
        keys: ``(rows,)``, equal for rows of equal content.
        found, shares: ``(rows, UNITS)`` from :func:`~..challenge.relevant_units.most_relevant`.
        positive: ``(rows, units)`` share of the row's positive relevance.
        places: of images, series and audio; None for tokens.
    """

    inputs: dict[str, Any]
    grid: tuple[int, ...]
    labelled: bool
    classes: Tensor
    probabilities: Tensor
    maskable: Tensor
    identities: Tensor
    keys: Tensor
    found: Tensor
    shares: Tensor
    positive: Tensor
    places: PlacesOfRows | None = None

    @property
    def predicted(self) -> Tensor:
        """``(rows,)``"""
        return self.probabilities.argmax(-1)


def attributed(classifier: Classifier, batch: Mapping[str, Any]) -> AttributedBatch:
    """Predictions and relevance for the rows' classes, with one forward and one backward pass.

    Args:
        classifier: reads the rows.
        batch: as a collator makes it, with or without labels.
    """
    units, model = classifier.units, classifier.model
    inputs = {k: v.to(classifier.device) if isinstance(v, Tensor) else v for k, v in batch.items()}
    given = [inputs.pop(key) for key in list(inputs) if key in classifier.label_names]
    if units.key not in inputs:
        raise ChallengerError(
            f"The rows hold {', '.join(inputs) or 'nothing'}, but the model needs {units.key!r}. Give texts, or rows as"
            " the model takes them."
        )
    check_inputs(taken_by(model, inputs), model)
    maskable = units.maskable(inputs)
    labels = _class_of_each_row(given[0], len(maskable)) if given else None
    seen: list[Tensor] = []

    def score(logits: Tensor) -> Tensor:
        seen.append(logits.detach())
        predicted = logits.detach().flatten(1).argmax(-1)
        return score_of(logits, predicted if labels is None else labels.clamp(min=0))

    of_input = LRP(model).attribute(taken_by(model, inputs), target=score, main_input=units.key)
    relevance = _finite(units.per_unit(of_input).flatten(1))
    probabilities = classifier.probabilities(seen[-1])
    identities, may_hide = units.identities(inputs).flatten(1), maskable.flatten(1)
    found, shares = most_relevant(relevance, may_hide, identities)
    return AttributedBatch(
        inputs,
        tuple(maskable.shape[1:]),
        labels is not None,
        probabilities.argmax(-1) if labels is None else labels,
        probabilities,
        may_hide,
        identities,
        row_keys(identities, may_hide) if classifier.reads_tokens else row_keys_of(inputs[units.key]),
        found,
        shares,
        shares_of(relevance, may_hide),
        None if classifier.places is None else _places(classifier.places, of_input, inputs),
    )


def _places(places: Places, relevance: Tensor, inputs: dict[str, Any]) -> PlacesOfRows:
    there = places.there(inputs)
    contents = places.contents(inputs).masked_fill(~there.unsqueeze(-1), torch.nan)
    shares = shares_of(_finite(places.relevance(relevance, inputs)), there)
    return PlacesOfRows(there, contents, shares, places.levels(inputs))


def _finite(relevance: Tensor) -> Tensor:
    """Without the rows that hold NaN or infinity."""
    return relevance.masked_fill(~relevance.isfinite().all(1, keepdim=True), 0)


def _class_of_each_row(labels: Tensor, rows: int) -> Tensor:
    if labels.is_floating_point() or labels.numel() != rows:
        raise ChallengerError(
            f"The labels are {labels.dtype} of shape {tuple(labels.shape)}; one class index a row, (rows,), is expected."
        )
    return labels.reshape(-1).long()
