"""The rows of a data set as a model takes them, in batches."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from ..classes import class_indices
from ..errors import ChallengerError
from ..explain.lengths import longest_input
from ..inputs.main_input import LABEL_KEYS
from ..peft_base import without_peft

LONGEST = 512  # tokens of a text that are read
TOKENS, BLOCK_ROWS = 4096, 16  # a batch


def tokenized(
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


def accepted(model: nn.Module, row: Mapping[str, Any]) -> dict[str, Any]:
    """What the model takes of a row: a data set may hold the text as well."""
    base = without_peft(model)
    names = {*inspect.signature(base.forward).parameters, *LABEL_KEYS, "label"}
    return {key: value for key, value in row.items() if key in names}


def batched(rows: Sequence[Any], units: Any) -> list[list[Any]]:
    """Batches of rows; texts of like length come together, so that a batch has little padding."""
    if not (units.is_sequence_of_tokens and isinstance(rows[0], Mapping) and units.key in rows[0]):
        return [list(rows[start : start + BLOCK_ROWS]) for start in range(0, len(rows), BLOCK_ROWS)]
    batches: list[list[Any]] = [[]]
    for row in sorted(rows, key=lambda row: len(row[units.key])):
        if (len(batches[-1]) + 1) * len(row[units.key]) > TOKENS and batches[-1]:
            batches.append([])
        batches[-1].append(row)
    return batches
