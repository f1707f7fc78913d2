"""The classes of a classifier: their names and indices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any

from .errors import ChallengerError

SHOWN = 10  # classes that an error lists


def check_single_label(model: Any) -> None:
    """Raise :class:`ChallengerError` unless the model gives each row one label."""
    config = getattr(model, "config", None)
    classes, problem = getattr(config, "num_labels", None), getattr(config, "problem_type", None)
    if problem == "multi_label_classification":
        raise ChallengerError(f"The model gives each row several labels ({problem}); a classifier with one is expected.")
    if problem == "regression" or (classes is not None and classes < 2):
        raise ChallengerError(
            f"The model has {classes} output{'' if classes == 1 else 's'} of a regression, which tells no classes; a classifier"
            " with one label a row is expected."
        )


def class_index(id2label: Mapping[Any, Any], label: str | int) -> int:
    """The index of a class that is given by name or index.

    Raises:
        ChallengerError: the model has no such class.
    """
    return _indices([label], id2label, "Choose one of them.")[0]


def class_indices(labels: Sequence[str | int], model: Any) -> list[int]:
    """Names in ``model.config.id2label``, or indices, of rows' labels, as indices.

    All are read in the same way: one by one, the names 1, 2, … and the indices 0, 1, … would mix. Integers are indices, if the model has
    all of them, and strings are names, if it knows all of them.

    Raises:
        ChallengerError: the model has no such class.
    """
    way = "Correct the labels, or id2label in the model's config.json; or leave the labels out (--unlabelled)."
    return _indices(labels, getattr(model.config, "id2label", None) or {}, way)


def _indices(labels: Sequence[str | int], id2label: Mapping[Any, Any], way_out: str) -> list[int]:
    names = {str(name): int(i) for i, name in id2label.items()}
    folded = {name.casefold(): i for name, i in names.items()}
    texts = [str(label).strip() for label in labels]
    by_name = [names.get(text, folded.get(text.casefold())) for text in texts]
    by_index = [int(text) if text.isdecimal() and int(text) in names.values() else None for text in texts]
    ways = [by_name, by_index]
    if all(isinstance(label, Integral) for label in labels):
        ways.reverse()
    for found in ways:
        if None not in found:
            return found  # type: ignore[return-value]
    meant = next((way for way in ways if set(way) != {None}), ways[0])
    unknown = texts[meant.index(None)]
    known = ", ".join(map(repr, [*names][:SHOWN])) + (", …" if len(names) > SHOWN else "")
    raise ChallengerError(f"The model has no class {unknown!r}; its classes are {known}. {way_out}")
