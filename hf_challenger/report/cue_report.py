"""Which cues a classifier leans on over a data set: found by LRP, decided by what the model does without them."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DataCollatorWithPadding, default_data_collator
from transformers.utils.logging import tqdm

from ..attribution.lrp import LRP
from ..attribution.state import attribution_state
from ..attribution.targets import score_of
from ..challenge.cues import FEWEST_ROWS, Cue, CueMemory, companions, find_cues, most_relevant, row_keys
from ..challenge.perturbation import perturbation_for
from ..checks import check_inputs
from ..detokenize import pieces
from ..errors import ChallengerError
from ..explain.lengths import longest_input
from ..inputs import units_for
from ..inputs.main_input import LABEL_KEYS, taken_by
from ..keyed_random import Draw
from ..logits import logits_of
from ..peft_base import without_peft
from .cue_results import ClassPicture, CueEffect, CueReport, Example, Reading
from .exchange import exchange_tokens
from .pictures import picture_of

ROWS = 500  # of a data set that are read: about a minute for MiniLM on two cores
TOP = 3  # candidates of each class
THRESHOLD = 0.1  # strength of a candidate; words of clean texts hold less
EFFECT_ROWS = 100  # on which a candidate is measured
EXAMPLES = 3  # rows shown for each cue that is leaned on
LONGEST = 512  # tokens of a text that are read
SHOWN = 60  # tokens of an example that are shown
TOKENS, BLOCK_ROWS = 4096, 16  # a batch

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
) -> CueReport:
    """The strongest cues of each class, and what the model does without them.

    Relevance is that of a row's label, over rows which the model predicts as it; without labels, that of its prediction. The
    cues are those of :func:`~hf_challenger.challenge.cues.find_cues`, with a low threshold. Each is then hidden in rows of its
    class that hold it. What that changes tells whether the model leans on it, see :attr:`~.cue_results.CueEffect.leaned_on`.

    Args:
        model: a single-label classifier. It comes back as it was.
        data: texts; or rows as the model's collator takes them, with or without labels (a ``Dataset`` or a list).
        tokenizer: needed for texts.
        labels: of texts: names in ``model.config.id2label``, or indices. None: the model's predictions.
        pairs: second text of each, for a model of sentence pairs.
        rows: how many are read at most, drawn with a fixed seed.
        top: candidates of each class at most.
        collator: rows → batch. None: padding by the tokenizer, or stacking.

    Raises:
        ChallengerError: no rows, a head that gives no single label, labels that the model does not know.
    """
    check_head(model)
    if rows < 1 or top < 1:
        raise ChallengerError(f"rows={rows} and top={top}: both are expected to be 1 or more.")
    if isinstance(data, (str, dict)):
        found = f"has the splits {', '.join(map(repr, data))}" if isinstance(data, dict) else "is a string"
        raise ChallengerError(f"data {found}; a list of texts, or the rows of one data set, are expected.")
    if not len(data):
        raise ChallengerError("The data set is empty. Give at least one row.")
    notes: list[str] = []
    chosen = sorted(random.Random(0).sample(range(len(data)), rows)) if len(data) > rows else list(range(len(data)))
    if isinstance(data[0], str):
        given = _tokenized(model, tokenizer, data, labels, pairs, chosen, notes)
    else:
        given = [data[i] for i in chosen]
        if collator is None:
            given = [_accepted(model, row) for row in given]
    if collator is None:
        collator = DataCollatorWithPadding(tokenizer) if hasattr(tokenizer, "pad") else default_data_collator
    return _Reader(model, tokenizer, collator).report(given, top, len(data), notes)


def check_head(model: nn.Module) -> None:
    """Raise :class:`ChallengerError` unless the model gives each row one label."""
    config: Any = getattr(model, "config", None)
    classes, problem = getattr(config, "num_labels", None), getattr(config, "problem_type", None)
    if (classes is not None and classes < 2) or problem in ("regression", "multi_label_classification"):
        raise ChallengerError(
            f"The model has {classes} output(s) and problem_type {problem!r}; a classifier with one label a row is expected."
        )


def class_indices(labels: Sequence[str | int], model: nn.Module) -> list[int]:
    """Names in ``model.config.id2label``, or indices, as indices.

    Raises:
        ChallengerError: the model knows no such class.
    """
    names = {str(name): int(i) for i, name in (getattr(model.config, "id2label", None) or {}).items()}
    folded = {name.casefold(): i for name, i in names.items()}
    found: list[int] = []
    for label in labels:
        text = str(label).strip()
        index = names.get(text, folded.get(text.casefold()))
        if index is None and text.isdecimal() and int(text) in names.values():
            index = int(text)
        if index is None:
            known = list(names)
            raise ChallengerError(
                f"The model does not know the label {text!r}; its classes are {', '.join(map(repr, known[:10]))}"
                f"{', …' if len(known) > 10 else ''}. Correct id2label in the model's config.json, or leave the labels out"
                " (--unlabelled)."
            )
        found.append(index)
    return found


def _tokenized(
    model: nn.Module,
    tokenizer: Any,
    texts: Sequence[str],
    labels: Sequence[str | int] | None,
    pairs: Sequence[str] | None,
    chosen: Sequence[int],
    notes: list[str],
) -> list[dict[str, Any]]:
    """Rows of the chosen texts, without padding; ``notes`` tell how many were cut."""
    if tokenizer is None:
        raise ChallengerError("Texts need a tokenizer. Pass the model's own.")
    for what, column in (("labels", labels), ("pairs", pairs)):
        if column is not None and len(column) != len(texts):
            raise ChallengerError(f"There are {len(texts)} texts, but {len(column)} {what}. Give one for each text.")
    classes = None if labels is None else class_indices(labels, model)
    limit = min(longest_input(model, tokenizer), LONGEST)
    found, cut = [], 0
    for i in chosen:
        ids = tokenizer(texts[i], None if pairs is None else pairs[i], truncation=True, max_length=limit)
        row = dict(ids)
        if len(row["input_ids"]) == limit:
            whole = tokenizer(texts[i], None if pairs is None else pairs[i], verbose=False)
            cut += len(whole["input_ids"]) > limit
        found.append(row if classes is None else {**row, "labels": classes[i]})
    if cut:
        notes.append(f"{cut} of {len(chosen)} texts are longer than {limit} tokens; only their start was read.")
    return found


def _accepted(model: nn.Module, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the model takes of a row: a data set may hold the text as well."""
    names = {*inspect.signature(without_peft(model).forward).parameters, *LABEL_KEYS, "label"}
    return {key: value for key, value in row.items() if key in names}


@dataclass
class _Batch:
    """Rows that were read. ``units`` are in one line, whatever their grid; probabilities are those of the rows as they are."""

    inputs: dict[str, Any]
    grid: tuple[int, ...]
    classes: Tensor  # (rows,); -1: the row has none
    probabilities: Tensor  # (rows, classes)
    maskable: Tensor  # (rows, units)
    identities: Tensor  # (rows, units)
    keys: Tensor  # (rows,)
    found: Tensor  # (rows, UNITS) identities
    shares: Tensor  # (rows, UNITS)
    positive: Tensor  # (rows, units) shares of the row's positive relevance


@dataclass
class _Held:
    """Rows of one batch that hold a cue, and the units that belong to it."""

    batch: _Batch
    rows: Tensor  # (held,) indices
    mask: Tensor  # (held, units) bool


class _Reader:
    """Reads rows with one model."""

    def __init__(self, model: nn.Module, tokenizer: Any, collator: Collate) -> None:
        self.model, self.tokenizer, self.collator = model, tokenizer, collator
        self.units: Any = units_for(model, tokenizer)
        self.perturb = perturbation_for("auto", self.units)
        self.tokens = bool(self.units.is_sequence_of_tokens)
        self.device = next(model.parameters()).device
        self.names = getattr(getattr(model, "config", None), "id2label", None) or {}
        self.labelled = False

    def report(self, rows: list[Any], top: int, given: int, notes: list[str]) -> CueReport:
        batches = [self._read(batch) for batch in _progress(self._batches(rows), "reading rows")]
        found = [cue for label in self._classes(batches, notes) for cue in self._candidates(batches, label, top)]
        cues: dict[int, CueEffect] = {}
        places: dict[int, list[_Held]] = {}
        for n, cue in enumerate(_progress(found, "hiding cues")):
            places[n] = self._holding(batches, [cue])
            held = _some(places[n], EFFECT_ROWS)
            if held:
                cues[n] = self._effect(cue, held, batches, places[n])
        leaned = [n for n, cue in cues.items() if cue.leaned_on]
        for n in leaned:
            self._exchange(cues[n], _some(places[n], EFFECT_ROWS), [(cues[m], places[m]) for m in leaned])
        order = sorted(cues.values(), key=lambda cue: (not cue.leaned_on, -cue.coverage * cue.drop))
        read = sum(len(batch.classes) for batch in batches)
        result = CueReport(order, self.labelled, read, given, notes=notes)
        if not self.tokens:
            result.pictures = self._class_pictures(batches)
        held = self._holding(batches, [found[n] for n in leaned])
        if held:
            result.rows_with_cue = sum(len(h.rows) for h in held)
            result.as_is, result.hidden = self._as_is(held), self._reading(held, self._answers(held, self._hidden))
        return result

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _batches(self, rows: list[Any]) -> list[list[Any]]:
        """Texts of like length together, so that a batch has little padding."""
        if not (self.tokens and isinstance(rows[0], Mapping) and self.units.key in rows[0]):
            return [rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS)]
        batches: list[list[Any]] = [[]]
        for row in sorted(rows, key=lambda row: len(row[self.units.key])):
            if (len(batches[-1]) + 1) * len(row[self.units.key]) > TOKENS and batches[-1]:
                batches.append([])
            batches[-1].append(row)
        return batches

    def _read(self, rows: list[Any]) -> _Batch:
        """Predictions and relevance, with one forward and one backward pass."""
        batch = {k: v.to(self.device) if isinstance(v, Tensor) else v for k, v in self.collator(rows).items()}
        given = [batch.pop(key) for key in list(batch) if key in (*LABEL_KEYS, "label")]
        if self.units.key not in batch:
            raise ChallengerError(
                f"The rows hold {', '.join(batch) or 'nothing'}, but the model needs {self.units.key!r}. Give texts, or rows as"
                " the model takes them."
            )
        batch = taken_by(self.model, batch)
        check_inputs(batch, self.model)
        maskable = self.units.maskable(batch)
        labels = self._labels(given, len(maskable))
        seen: list[Tensor] = []

        def score(logits: Tensor) -> Tensor:
            seen.append(logits.detach())
            predicted = logits.detach().flatten(1).argmax(-1)
            return score_of(logits, predicted if labels is None else labels.clamp(min=0))

        relevance = self.units.per_unit(LRP(self.model).attribute(batch, target=score, main_input=self.units.key)).flatten(1)
        relevance = relevance.masked_fill(~relevance.isfinite().all(1, keepdim=True), 0)
        probabilities = self._probabilities(seen[-1])
        identities, may_hide = self.units.identities(batch).flatten(1), maskable.flatten(1)
        found, shares = most_relevant(relevance, may_hide, identities)
        positive = relevance.float().clamp(min=0) * may_hide
        return _Batch(
            batch,
            tuple(maskable.shape[1:]),
            probabilities.argmax(-1) if labels is None else labels,
            probabilities,
            may_hide,
            identities,
            row_keys(identities, may_hide, None if self.tokens else batch[self.units.key]),
            found,
            shares,
            positive / positive.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny),
        )

    def _labels(self, given: list[Any], rows: int) -> Tensor | None:
        if not given:
            return None
        labels = given[0]
        if labels.is_floating_point() or labels.numel() != rows:
            raise ChallengerError(
                f"The labels are {labels.dtype} of shape {tuple(labels.shape)}; one class index a row, (rows,), is expected."
            )
        self.labelled = True
        return labels.reshape(-1).long()

    def _probabilities(self, logits: Tensor) -> Tensor:
        logits = logits.flatten(1).float()
        if not logits.isfinite().all():
            raise ChallengerError(
                "The model's logits are NaN or infinite: its weights are damaged. Load another checkpoint."
            )
        return logits.softmax(-1)

    # --- cues ---------------------------------------------------------------------------------------------------------

    def _classes(self, batches: list[_Batch], notes: list[str]) -> list[int]:
        """Classes with rows enough to look for cues; ``notes`` name the others."""
        classes = torch.cat([batch.classes for batch in batches])
        right = torch.cat([batch.classes == batch.probabilities.argmax(-1) for batch in batches])
        present = [int(label) for label in classes.unique() if label >= 0]
        if not present:
            raise ChallengerError("No row has a label. Leave the labels out: the model's predictions then take their place.")
        few = [label for label in present if int((right & (classes == label)).sum()) < FEWEST_ROWS]
        if few:
            shown = ", ".join(map(self._name, few[:5])) + (", …" if len(few) > 5 else "")
            notes.append(f"Fewer than {FEWEST_ROWS} rows are predicted as their class, so no cue is found there: {shown}.")
        return [label for label in present if label not in few]

    def _candidates(self, batches: list[_Batch], label: int, top: int) -> list[Cue]:
        """The strongest of a class, over different rows that the model gets right."""
        rows: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        for batch in batches:
            right = (batch.classes == label) & (batch.probabilities.argmax(-1) == label) & (batch.shares.sum(1) > 0)
            for i in right.nonzero().flatten().tolist():
                rows[int(batch.keys[i])] = batch.found[i].cpu().numpy(), batch.shares[i].cpu().numpy()
        if len(rows) < FEWEST_ROWS:
            return []
        identities, shares = (np.stack(column) for column in zip(*rows.values(), strict=True))
        others = np.concatenate(
            [batch.found[(batch.classes != label).to(batch.found.device)].cpu().numpy() for batch in batches]
        )
        others = others[:: max(len(others) // len(identities), 1)]  # about as many
        cues = []
        for seed, strength in find_cues(identities, shares, THRESHOLD)[:top]:
            members = companions(identities, seed, others if len(others) else None, None if self.tokens else shares)
            cues.append(Cue(label, seed, members, 0.0, strength, self.units.text_of(members), self._name(label)))
        return cues

    def _holding(self, batches: list[_Batch], cues: Sequence[Cue]) -> list[_Held]:
        """Rows that hold one of these cues of their class. A row that is nothing but cue does not count."""
        memories = [CueMemory(THRESHOLD, levels=self.units.levels) for _ in cues]
        for memory, cue in zip(memories, cues, strict=True):
            memory.load_state_dict({"rows": {}, "cues": [vars(cue)]})
        labels = {cue.label for cue in cues}
        found = []
        for batch in batches:
            if labels.isdisjoint(batch.classes.tolist()):
                continue
            mask = torch.zeros_like(batch.maskable)
            for memory, cue in zip(memories, cues, strict=True):
                of_cue = memory.drop_mask(batch.identities, batch.maskable, batch.classes)
                if not self.tokens:  # there a memory hides a place, whatever stands in it
                    of_cue &= (batch.identities == cue.seed).any(1, keepdim=True)
                mask |= of_cue
            rows = (mask.any(1) & (batch.maskable & ~mask).any(1)).nonzero().flatten()
            if len(rows):
                found.append(_Held(batch, rows, mask[rows]))
        return found

    # --- effects ------------------------------------------------------------------------------------------------------

    def _effect(self, cue: Cue, held: list[_Held], batches: list[_Batch], everywhere: list[_Held]) -> CueEffect:
        of_class = sum(int((batch.classes == cue.label).sum()) for batch in batches)
        answers = self._answers(held, self._hidden)
        effect = CueEffect(
            cue.text,
            cue.class_name,
            sum(len(h.rows) for h in everywhere) / of_class,
            cue.strength,
            sum(len(h.rows) for h in held),
            self._as_is(held),
            self._reading(held, answers),
            label=cue.label,
            identities=cue.identities,
        )
        if effect.leaned_on and (not self.tokens or hasattr(self.tokenizer, "decode")):
            effect.examples = self._examples(held, answers)
        return effect

    def _exchange(self, cue: CueEffect, held: list[_Held], others: list[tuple[CueEffect, list[_Held]]]) -> None:
        """Measured with the strongest cue of another class. A cue that is a place comes from a row that holds it."""
        fitting = [other for other in others if other[0].label != cue.label]
        if not fitting:
            return
        donor, rows = max(fitting, key=lambda other: other[0].coverage * other[0].strength)
        if self.tokens:
            limit = longest_input(self.model, self.tokenizer) if hasattr(self.tokenizer, "model_max_length") else None

            def exchanged(inputs: dict[str, Any], h: _Held) -> dict[str, Any]:
                return exchange_tokens(inputs, self.units, h.mask, donor.identities, limit)
        else:
            source = rows[0]
            x, places = source.batch.inputs[self.units.key][source.rows[0]], source.mask[0]
            if any(h.batch.inputs[self.units.key].shape[1:] != x.shape for h in held):
                return

            def exchanged(inputs: dict[str, Any], h: _Held) -> dict[str, Any]:
                taken = self.units.hidden(inputs, (h.mask | places).unflatten(1, h.batch.grid))
                return {**inputs, self.units.key: torch.where(taken, x, inputs[self.units.key])}

        cue.exchanged = self._reading(held, self._answers(held, exchanged))
        cue.exchanged_for = donor.text

    def _hidden(self, inputs: dict[str, Any], h: _Held) -> dict[str, Any]:
        return self.perturb(inputs, h.mask.unflatten(1, h.batch.grid), self.units, Draw(0, 0, 0, h.rows))

    def _answers(self, held: list[_Held], change: Callable[[dict[str, Any], _Held], dict[str, Any]]) -> list[Tensor]:
        """``(held, classes)`` probabilities of each batch's rows, changed."""
        answers = []
        with attribution_state(self.model), torch.no_grad():
            for h in held:
                rows = len(h.batch.classes)
                some = {k: v[h.rows] if isinstance(v, Tensor) and len(v) == rows else v for k, v in h.batch.inputs.items()}
                answers.append(self._probabilities(logits_of(self.model(**change(some, h)), self.model)))
        return answers

    def _as_is(self, held: list[_Held]) -> Reading:
        return self._reading(held, [h.batch.probabilities[h.rows] for h in held])

    def _reading(self, held: list[_Held], answers: list[Tensor]) -> Reading:
        before = torch.cat([h.batch.probabilities[h.rows].argmax(-1) for h in held])
        classes = torch.cat([h.batch.classes[h.rows] for h in held])
        after = torch.cat(answers)
        predicted = after.argmax(-1)
        accuracy = float((predicted == classes).float().mean()) if self.labelled else None
        probability = float(after.gather(1, classes.unsqueeze(1)).mean())
        return Reading(accuracy, probability, float((predicted != before).float().mean()))

    def _examples(self, held: list[_Held], answers: list[Tensor]) -> list[Example]:
        """Rows whose prediction changes first, then those whose class loses most."""
        ranked = []
        for h, after in zip(held, answers, strict=True):
            before = h.batch.probabilities[h.rows]
            own = h.batch.classes[h.rows].unsqueeze(1)
            change = (before.argmax(-1) != after.argmax(-1)).float() + (before - after).gather(1, own).squeeze(1)
            ranked += [(float(c), h, i, before[i], after[i]) for i, c in enumerate(change)]
        ranked.sort(key=lambda entry: -entry[0])
        return [self._example(*entry[1:]) for entry in ranked[:EXAMPLES]]

    def _example(self, h: _Held, i: int, before: Tensor, after: Tensor) -> Example:
        batch, row = h.batch, h.rows[i]
        if not self.tokens:
            x = batch.inputs[self.units.key]
            shown = picture_of(self.units, x, x[row], batch.positive[row].unflatten(0, batch.grid), h.mask[i])
            return Example([], [], [], self._top(before), self._top(after), shown)
        special = set(self.units.special_ids)
        ids = batch.identities[row].tolist()
        attended = self.units.attended(batch.inputs)[row].tolist()
        content = [k for k, token in enumerate(ids) if attended[k] and token not in special]
        first = next(n for n, k in enumerate(content) if h.mask[i, k])
        start = max(0, min(first - SHOWN // 2, len(content) - SHOWN))
        window = content[start : start + SHOWN]
        words, goes_on = pieces(self.tokenizer, [ids[k] for k in window])
        marked = [bool(h.mask[i, k]) for k in window]
        if start:
            words, goes_on, marked = ["…", *words], [False, *goes_on], [False, *marked]
        if start + SHOWN < len(content):
            words, goes_on, marked = [*words, "…"], [*goes_on, False], [*marked, False]
        return Example(words, goes_on, marked, self._top(before), self._top(after))

    def _class_pictures(self, batches: list[_Batch]) -> list[ClassPicture]:
        """Mean input and mean share of the positive relevance of each class, over the rows of the first row's shape."""
        key, first = self.units.key, batches[0]
        alike = [b for b in batches if b.inputs[key].shape[1:] == first.inputs[key].shape[1:]]
        x, positive = torch.cat([b.inputs[key] for b in alike]), torch.cat([b.positive for b in alike])
        classes, found = torch.cat([b.classes for b in alike]), []
        for label in classes.unique().tolist():
            if label >= 0:
                own = classes == label
                relevance = positive[own].mean(0).unflatten(0, first.grid)
                picture = picture_of(self.units, first.inputs[key], x[own].mean(0), relevance)
                found.append(ClassPicture(self._name(label), int(own.sum()), picture))
        return found

    def _top(self, probabilities: Tensor) -> tuple[str, float]:
        label = int(probabilities.argmax())
        return self._name(label), float(probabilities[label])

    def _name(self, label: int) -> str:
        return str(self.names.get(label, label))


def _some(held: list[_Held], count: int) -> list[_Held]:
    """At most ``count`` rows, evenly from all batches: those are sorted by length."""
    total = sum(len(h.rows) for h in held)
    if total <= count:
        return held
    kept = torch.zeros(total, dtype=torch.bool)
    kept[torch.linspace(0, total - 1, count).long()] = True
    kept = kept.to(held[0].rows.device)
    parts = kept.split([len(h.rows) for h in held])
    return [_Held(h.batch, h.rows[part], h.mask[part]) for h, part in zip(held, parts, strict=True) if part.any()]


def _progress(items: Sequence[Any], what: str) -> Iterable[Any]:
    """A bar on stderr, if it is a terminal; transformers' own switches turn it off."""
    bar: Iterable[Any] = tqdm(items, desc=what, disable=None, leave=False)
    return bar
