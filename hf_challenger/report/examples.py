"""Rows that show a cue, and the mean picture of each class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..detokenize import pieces
from .attributed import AttributedBatch
from .classifier import Classifier
from .cue_results import ClassPicture, Example
from .held import Held
from .pictures import picture_of

EXAMPLES = 3  # rows shown for each cue that is leaned on
SHOWN = 60  # tokens of an example that are shown


def examples(classifier: Classifier, held: Sequence[Held], answers: Sequence[Tensor]) -> list[Example]:
    """Rows whose prediction changes first, then those whose class loses most; ``answers`` are without the cue."""
    ranked = []
    for h, after in zip(held, answers, strict=True):
        before, own = h.probabilities, h.classes.unsqueeze(1)
        change = (before.argmax(-1) != after.argmax(-1)).float() + (before - after).gather(1, own).squeeze(1)
        ranked += [(float(c), h, i, before[i], after[i]) for i, c in enumerate(change)]
    ranked.sort(key=lambda entry: -entry[0])
    return [_example(classifier, *entry[1:]) for entry in ranked[:EXAMPLES]]


def _example(classifier: Classifier, h: Held, i: int, before: Tensor, after: Tensor) -> Example:
    told = classifier.most_probable(before), classifier.most_probable(after)
    batch, row, units = h.batch, h.rows[i], classifier.units
    if not classifier.reads_tokens:
        x = batch.inputs[units.key]
        on_grid = h.mask[i, h.mask.shape[1] - batch.maskable.shape[1] :]  # without the levels of channels
        shown = picture_of(units, x, x[row], batch.positive[row].unflatten(0, batch.grid), on_grid)
        return Example([], [], [], *told, shown)
    special = set(units.special_ids)
    ids, attended = batch.identities[row].tolist(), units.attended(batch.inputs)[row].tolist()
    content = [k for k, token in enumerate(ids) if attended[k] and token not in special]
    first = next(n for n, k in enumerate(content) if h.mask[i, k])
    start = max(0, min(first - SHOWN // 2, len(content) - SHOWN))
    window = content[start : start + SHOWN]
    words, goes_on = pieces(classifier.tokenizer, [ids[k] for k in window])
    marked = [bool(h.mask[i, k]) for k in window]
    if start:
        words, goes_on, marked = ["…", *words], [False, *goes_on], [False, *marked]
    if start + SHOWN < len(content):
        words, goes_on, marked = [*words, "…"], [*goes_on, False], [*marked, False]
    return Example(words, goes_on, marked, *told)


def class_pictures(classifier: Classifier, batches: Sequence[AttributedBatch]) -> list[ClassPicture]:
    """Mean input and mean share of the positive relevance of each class, over the rows of the first row's shape."""
    key, first = classifier.units.key, batches[0]
    alike = [b for b in batches if b.inputs[key].shape[1:] == first.inputs[key].shape[1:]]
    x, positive = torch.cat([b.inputs[key] for b in alike]), torch.cat([b.positive for b in alike])
    classes, found = torch.cat([b.classes for b in alike]), []
    for label in classes.unique().tolist():
        if label >= 0:
            own = classes == label
            relevance = positive[own].mean(0).unflatten(0, first.grid)
            picture = picture_of(classifier.units, first.inputs[key], x[own].mean(0), relevance)
            found.append(ClassPicture(classifier.class_name(label), int(own.sum()), picture))
    return found
