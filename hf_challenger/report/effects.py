"""What a model does with the rows that hold a cue: as they are, with the cue hidden, and with it exchanged for another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from ..challenge.exchange import exchange_runs, longest_run, padded_right
from ..explain.lengths import longest_input
from .classifier import Classifier
from .cue_results import CueEffect, Reading
from .held import Held


def as_is(held: Sequence[Held]) -> Reading:
    """The rows as they are."""
    return reading(held, [h.probabilities for h in held])


def answers_without(classifier: Classifier, held: Sequence[Held]) -> list[Tensor]:
    """``(held, classes)`` probabilities of each batch's rows, with the cue hidden."""
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
    classifier: Classifier, cue: CueEffect, held: Sequence[Held], others: Sequence[tuple[CueEffect, list[Held]]]
) -> None:
    """Measure the cue exchanged for the strongest of another class, if there is one among ``others``."""
    fitting = [other for other in others if other[0].label != cue.label]
    if not fitting:
        return
    donor, rows = max(fitting, key=lambda other: other[0].coverage * other[0].strength)
    if classifier.reads_tokens:
        answers = _answers(classifier, held, lambda h: with_other_tokens(classifier, h, donor.identities))
    elif _same_shape(classifier.units.key, [*held, rows[0]]):
        answers = _answers(classifier, held, lambda h: with_other_places(classifier, h, rows[0]))
    else:
        return
    cue.exchanged, cue.exchanged_for = reading(held, answers), donor.text


def _answers(classifier: Classifier, held: Sequence[Held], changed: Callable[[Held], dict[str, Any]]) -> list[Tensor]:
    return [classifier.predict(changed(h)) for h in held]


def with_other_tokens(classifier: Classifier, h: Held, donor: Sequence[int]) -> dict[str, Any]:
    """The other tokens where the longest run of the cue stood; what stands elsewhere is hidden."""
    units, tokenizer, inputs = classifier.units, classifier.tokenizer, h.inputs
    width = h.mask.shape[1] + len(donor)
    if hasattr(tokenizer, "model_max_length"):
        width = min(width, max(longest_input(classifier.model, tokenizer), h.mask.shape[1]))
    inputs = padded_right(inputs, units, width)
    mask = torch.nn.functional.pad(h.mask, (0, width - h.mask.shape[1]))
    tokens = torch.tensor(donor, device=mask.device).repeat(len(mask), 1)
    inputs, source = exchange_runs(inputs, units, *longest_run(mask), tokens, torch.full_like(h.rows, len(donor)))
    elsewhere = mask.gather(1, source.clamp(min=0)) & (source >= 0)
    return classifier.hide(inputs, elsewhere, h.rows)


def with_other_places(classifier: Classifier, h: Held, source: Held) -> dict[str, Any]:
    """The places of both cues from a row that holds the other one."""
    key, inputs = classifier.units.key, h.inputs
    x = source.inputs[key][0]
    taken = classifier.units.hidden(inputs, (h.mask | source.mask[0]).unflatten(1, h.batch.grid))
    return {**inputs, key: torch.where(taken, x, inputs[key])}


def _same_shape(key: str, held: Sequence[Held]) -> bool:
    return len({h.batch.inputs[key].shape[1:] for h in held}) == 1
