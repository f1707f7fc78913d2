"""Data sets that no model can be trained on as they are, told with the way out before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import DataCollatorWithPadding

from .checks import refuse_labels
from .errors import ChallengerError

NO_CLASSES = {str: "strings", bool: "truth values", type(None): "missing values"}
ENCODE = "data.class_encode_column({column!r}) makes them so"
REMOVE = "Remove these rows, or give them -100, which leaves them out of the loss"
CAST = "data.cast_column({column!r}, datasets.Value('int64')) makes them so"
WAY_OUT = {"strings": ENCODE, "truth values": CAST, "missing values": REMOVE}


def check_data(dataset: Any, where: str, columns: Iterable[str], collator: Any, main_input: str | None = None) -> None:
    """Raise :class:`ChallengerError` where labels are no numbers, or texts were not tokenized.

    Args:
        dataset: what Trainer takes; a :class:`datasets.Dataset` without a transform or a list of rows, or a dictionary of them, is
            read. Others are left to the collator.
        where: what it is called, for the message.
        columns: names that the label column may have.
        collator: one of the user's own may make numbers of labels, and tokens of texts; nothing is refused then.
        main_input: that the model takes.
    """
    if not getattr(collator, "__module__", type(collator).__module__).startswith("transformers."):
        return
    if isinstance(dataset, dict):
        for name, part in dataset.items():
            check_data(part, f"{where} {name!r}", columns, collator, main_input)
        return
    names = _columns(dataset)
    reads_tokens = isinstance(collator, DataCollatorWithPadding) and main_input == "input_ids"
    if names and reads_tokens and not {"input_ids", "inputs_embeds"} & set(names):
        raise ChallengerError(
            f"{where} has the columns {', '.join(map(repr, names))}, and no 'input_ids': its texts were not tokenized. For"
            " example: data.map(lambda rows: tokenizer(rows['text'], truncation=True), batched=True)"
        )
    column = _first(columns, names)
    found = None if column is None else _no_class(dataset, column)
    if found is not None:
        what, example = found
        raise ChallengerError(
            f"The column {column!r} of {where} holds {what}{example}; numbers of classes from 0 on are expected."
            f" {WAY_OUT[what].format(column=column)}."
        )


def check_evaluation_labels(dataset: Any, model: nn.Module, columns: Iterable[str]) -> None:
    """:func:`~.checks.check_classes` for the whole of an evaluation set, where its labels can be read at no cost.

    Args:
        dataset: what Trainer takes; a :class:`datasets.Dataset` or a list of rows, with one integer a row, or a dictionary of them, is read.
        columns: names that the label column may have.
    """
    for name, part in dataset.items() if isinstance(dataset, dict) else [("", dataset)]:
        labels = _classes(part, columns)
        if labels is None:
            continue
        refuse_labels(labels, model, f"In the evaluation set{f' {name!r}' if name else ''}")


def _classes(dataset: Any, columns: Iterable[str]) -> Tensor | None:
    """``(rows,)`` integers, or None where they are none or would have to be computed."""
    # A transform rarely changes labels that are integers.
    column = _first(columns, dataset.column_names if isinstance(dataset, Dataset) else _columns(dataset))
    if column is None:
        return None
    if isinstance(dataset, Dataset):
        if "int" not in str(getattr(dataset.features[column], "dtype", "")):
            return None
        return torch.as_tensor(dataset.with_format("numpy")[column][:])
    found = [value.tolist() if isinstance(value, (Tensor, np.generic)) else value for value in _values(dataset, column)]
    return torch.tensor(found) if all(isinstance(v, int) and not isinstance(v, bool) for v in found) else None


def _first(columns: Iterable[str], names: list[str]) -> str | None:
    return next((c for c in columns if c in names), None)


def _values(dataset: Any, column: str) -> Any:
    """Of a data set whose :func:`_columns` can be read."""
    return dataset.with_format(None)[column][:] if isinstance(dataset, Dataset) else [row.get(column) for row in dataset]


def _columns(dataset: Any) -> list[str]:
    """Names of the columns that can be read at no cost."""
    if isinstance(dataset, Dataset) and dataset.format["type"] != "custom":
        return list(dataset.column_names)
    return list(dataset[0]) if _is_rows(dataset) else []


def _is_rows(dataset: Any) -> bool:
    return isinstance(dataset, list) and bool(dataset) and all(isinstance(row, Mapping) for row in dataset)


def _no_class(dataset: Any, column: str) -> tuple[str, str] | None:
    """What of :data:`NO_CLASSES` the column holds, and an example; None: nothing of these."""
    if isinstance(dataset, Dataset):
        dtype = str(getattr(dataset.features[column], "dtype", ""))
        if "string" not in dtype and dtype != "bool" and not dataset.data.column(column).null_count:
            return None
    for value in _values(dataset, column):
        if type(value) in NO_CLASSES:
            return NO_CLASSES[type(value)], "" if value is None else f" ({value!r})"
    return None
