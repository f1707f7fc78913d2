"""Which cues a classifier leans on over a data set: found by LRP, decided by what the model does without them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from transformers import DataCollatorWithPadding, default_data_collator
from transformers.utils.logging import tqdm

from ..challenge.cues import Cue
from ..challenge.places import PlaceMemory
from ..classes import check_single_label
from ..errors import ChallengerError
from ..inputs.main_input import LABEL_KEYS
from .attributed import AttributedBatch, attributed
from .candidates import candidates, place_memory
from .classifier import Classifier
from .cue_results import CueEffect, CueReport
from .effects import answers_without, as_is, exchange, reading
from .examples import class_pictures, examples
from .held import Held, at_most, count, rows_holding
from .rows import accepted, batched, tokenized

ROWS = 500  # of a data set that are read: about a minute for MiniLM on two cores
TOP = 3  # candidates of each class
EFFECT_ROWS = 100  # on which a candidate is measured

Collate = Callable[[list[Any]], Mapping[str, Any]]


def cue_report(
    model: nn.Module,
    data: Any,
    tokenizer: Any = None,
    labels: Sequence[str | int] | None = None,
    *,
    pairs: Sequence[str] | None = None,
    rows: int = ROWS,
    top: int = TOP,
    collator: Collate | None = None,
    units: Any = None,
    label_names: Sequence[str] = LABEL_KEYS,
) -> CueReport:
    """The strongest cues of each class, and what the model does without them.

    Relevance is that of a row's label, over rows which the model predicts as it; without labels, that of its prediction. The
    cues are those that training would find, with a low threshold. Each is then hidden in rows of its class that hold it. What
    that changes tells whether the model leans on it, see :attr:`~.cue_results.CueEffect.leaned_on`.

    Args:
        model: a single-label classifier. It comes back as it was.
        data: texts; or rows as the model's collator takes them, with or without labels (a ``Dataset`` or a list).
        tokenizer: needed for texts.
        labels: of texts: names in ``model.config.id2label``, or indices. None: the model's predictions.
        pairs: second text of each, for a model of sentence pairs.
        rows: how many are read at most, drawn with a fixed seed.
        top: candidates of each class at most.
        collator: rows → batch. None: padding by the tokenizer, or stacking.
        units: the adapter that says what may be hidden, see :func:`~..inputs.units_for`. None: the model's main input tells.
        label_names: of the labels in a batch.

    Raises:
        ChallengerError: no rows, a head that gives no single label, labels that the model does not know.
    """
    check_single_label(model)
    if rows < 1 or top < 1:
        raise ChallengerError(f"rows={rows} and top={top}: both are expected to be 1 or more.")
    if isinstance(data, (str, dict)):
        found = f"has the splits {', '.join(map(repr, data))}" if isinstance(data, dict) else "is a string"
        raise ChallengerError(f"data {found}; a list of texts, or the rows of one data set, are expected.")
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
        raise ChallengerError(
            f"data is {type(data).__name__}, whose rows cannot be drawn from. Give a list or a Dataset, such as"
            " list(data.take(500))."
        )
    if not len(data):
        raise ChallengerError("The data set is empty. Give at least one row.")
    notes: list[str] = []
    unread: list[str] = []
    chosen = sorted(random.Random(0).sample(range(len(data)), rows)) if len(data) > rows else list(range(len(data)))
    if isinstance(data[0], str):
        given = tokenized(model, tokenizer, data, labels, pairs, chosen, notes)
    else:
        given = [data[i] for i in chosen]
        if collator is None:
            given = [accepted(model, row) for row in given]
    if collator is None:
        collator = DataCollatorWithPadding(tokenizer) if hasattr(tokenizer, "pad") else default_data_collator
    classifier = Classifier(model, tokenizer, units, label_names)
    batches = [
        attributed(classifier, collator(batch)) for batch in _progress(batched(given, classifier.units), "reading rows")
    ]
    places = place_memory(classifier, batches)
    found_cues = candidates(classifier, batches, top, notes, unread, places)
    effects = _effects(classifier, batches, found_cues, places)
    if unmeasured := sum(effect is None for effect in effects):
        notes.append(f"{unmeasured} candidates could not be measured: without them nothing would be left of any row.")
    leaned_on = [cue for cue, effect in zip(found_cues, effects, strict=True) if effect and effect.leaned_on]
    order = sorted((e for e in effects if e), key=lambda cue: (not cue.leaned_on, -cue.coverage * cue.drop))
    report = CueReport(order, batches[0].labelled, len(given), len(data), notes=notes, unread=unread)
    if not classifier.reads_tokens:
        report.pictures = class_pictures(classifier, batches)
    if held := rows_holding(batches, leaned_on, classifier.units, places):
        report.rows_with_cue = count(held)
        report.as_is, report.hidden = as_is(held), reading(held, answers_without(classifier, held, batches))
    return report


def _effects(
    classifier: Classifier, batches: list[AttributedBatch], cues: list[Cue], places: PlaceMemory | None
) -> list[CueEffect | None]:
    """Each cue's effect, None where no row holds it."""
    found: list[tuple[CueEffect | None, list[Held]]] = []
    for cue in _progress(cues, "hiding cues"):
        held = rows_holding(batches, [cue], classifier.units, places)
        found.append((_effect(classifier, cue, held, batches) if held else None, held))
    leaned_on = [(effect, held) for effect, held in found if effect is not None and effect.leaned_on]
    for effect, held in leaned_on:
        exchange(classifier, effect, at_most(held, EFFECT_ROWS), [other for other, _ in leaned_on], batches)
    return [effect for effect, _ in found]


def _effect(classifier: Classifier, cue: Cue, everywhere: list[Held], batches: list[AttributedBatch]) -> CueEffect:
    held = at_most(everywhere, EFFECT_ROWS)
    answers = answers_without(classifier, held, batches)
    effect = CueEffect(
        cue.text,
        cue.class_name,
        count(everywhere) / sum(int((batch.classes == cue.label).sum()) for batch in batches),
        cue.strength,
        count(held),
        as_is(held),
        reading(held, answers),
        label=cue.label,
        identities=cue.identities,
    )
    if effect.leaned_on and (not classifier.reads_tokens or hasattr(classifier.tokenizer, "decode")):
        effect.examples = examples(classifier, held, answers)
    return effect


def _progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    """A bar on stderr, if it is a terminal; transformers' own switches turn it off."""
    bar: Iterable[Any] = tqdm(items, desc=what, disable=None, leave=False)
    return bar
