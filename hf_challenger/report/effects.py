"""What a model does with the rows that hold a cue: as they are, with the cue hidden, and with it exchanged for another."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..challenge.exchange import exchange_runs, longest_run, padded
from ..explain.lengths import longest_input
from ..inputs.main_input import has_rows
from ..inputs.tokens import NUMBER
from .attributed import AttributedBatch
from .classifier import Classifier
from .cue_results import CueEffect, Reading
from .held import Held


def as_is(held: Sequence[Held]) -> Reading:
    """The rows as they are."""
    return reading(held, [h.probabilities for h in held])


def answers_without(classifier: Classifier, held: Sequence[Held], batches: Sequence[AttributedBatch]) -> list[Tensor]:
    """``(held, classes)`` probabilities of each batch's rows, with the cue hidden: tokens as in training, places by those of any row."""
    if classifier.places is not None:
        return _answers(classifier, held, lambda h: with_other_places(classifier, h, batches, other_class=False))
    return _answers(classifier, held, lambda h: classifier.hide(h.inputs, h.mask.unflatten(1, h.batch.grid), h.rows))


def reading(held: Sequence[Held], answers: Sequence[Tensor]) -> Reading:
    """What these answers tell about the rows; accuracy is that of rows with labels."""
    before = torch.cat([h.probabilities.argmax(-1) for h in held])
    classes, after = torch.cat([h.classes for h in held]), torch.cat(list(answers))
    predicted = after.argmax(-1)
    accuracy = float((predicted == classes).float().mean()) if held[0].batch.labelled else None
    probability = float(after.gather(1, classes.unsqueeze(1)).mean())
    return Reading(accuracy, probability, float((predicted != before).float().mean()))


def exchange(
    classifier: Classifier,
    cue: CueEffect,
    held: Sequence[Held],
    others: Sequence[CueEffect],
    batches: Sequence[AttributedBatch],
) -> None:
    """Measure the cue exchanged: words for the strongest cue of another class, if there is one among ``others``; places for the same
    places of rows of other classes.
    """
    if classifier.places is not None:
        answers = _answers(classifier, held, lambda h: with_other_places(classifier, h, batches, other_class=True))
        cue.exchanged, cue.exchanged_for = reading(held, answers), "the same of another class"
        return
    fitting = [other for other in others if other.label != cue.label and NUMBER not in other.identities]
    if not fitting or not classifier.reads_tokens:
        return
    donor = max(fitting, key=lambda other: other.coverage * other.strength)
    answers = _answers(classifier, held, lambda h: with_other_tokens(classifier, h, donor.identities))
    cue.exchanged, cue.exchanged_for = reading(held, answers), donor.text


def _answers(classifier: Classifier, held: Sequence[Held], changed: Callable[[Held], dict[str, Any]]) -> list[Tensor]:
    return [classifier.predict(changed(h)) for h in held]


def with_other_tokens(classifier: Classifier, h: Held, donor: Sequence[int]) -> dict[str, Any]:
    """The other tokens where the longest run of the cue stood; what stands elsewhere is hidden."""
    units, tokenizer, inputs = classifier.units, classifier.tokenizer, h.inputs
    width = h.mask.shape[1] + len(donor)
    if hasattr(tokenizer, "model_max_length"):
        width = min(width, max(longest_input(classifier.model, tokenizer), h.mask.shape[1]))
    inputs = padded({**inputs, "mask of the cue": h.mask}, units, width)
    mask = inputs.pop("mask of the cue")
    tokens = torch.tensor(donor, device=mask.device).repeat(len(mask), 1)
    inputs, source = exchange_runs(inputs, units, *longest_run(mask), tokens, torch.full_like(h.rows, len(donor)))
    elsewhere = mask.gather(1, source.clamp(min=0)) & (source >= 0)
    return classifier.hide(inputs, elsewhere, h.rows)


def with_other_places(
    classifier: Classifier, h: Held, batches: Sequence[AttributedBatch], other_class: bool
) -> dict[str, Any]:
    """The cue's places from rows that are drawn for it, of any class or of another one than the row's; a row without one stays."""
    assert classifier.places is not None
    key = classifier.units.key
    alike = [b for b in batches if b.inputs[key].shape[1:] == h.batch.inputs[key].shape[1:]]
    rows = [
        (b, i, label, name)
        for b in alike
        for i, (label, name) in enumerate(zip(b.classes.tolist(), b.keys.tolist(), strict=True))
    ]
    rows.sort(key=lambda row: row[3])  # the same draws, whatever the order of the data set
    chosen = []
    for own, label in zip(h.rows.tolist(), h.classes.tolist(), strict=True):
        fitting = [row for row in rows if row[2] != label] if other_class else rows
        name = int(h.batch.keys[own])
        chosen.append(random.Random(name).choice(fitting or [(h.batch, own, label, name)]))
    inputs = h.inputs
    others = {
        k: torch.stack([b.inputs[k][i] for b, i, _, _ in chosen]) if has_rows(v, len(chosen)) else v
        for k, v in inputs.items()
    }
    return classifier.places.exchanged(inputs, h.mask, others)
