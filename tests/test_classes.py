"""Labels of rows: names or indices, all in the same way."""

import numpy as np
import pytest

from hf_challenger.classes import class_indices
from hf_challenger.errors import ChallengerError


class OfNames:
    def __init__(self, *names):
        self.config = type("config", (), {"id2label": dict(enumerate(names))})()


SIGNS, STARS = OfNames("-1", "0", "1"), OfNames("1", "2", "3", "4", "5")


@pytest.mark.parametrize(
    ("labels", "model", "indices"),
    [
        (["-1", "0", "1"], SIGNS, [0, 1, 2]),  # names
        ([-1, 0, 1], SIGNS, [0, 1, 2]),  # no indices: -1 is none
        (["0", "1", "2"], SIGNS, [0, 1, 2]),  # no names: 2 is none
        ([0, 1], SIGNS, [0, 1]),  # integers are indices, where they can be
        (["0", "1"], SIGNS, [1, 2]),  # strings are names, where they can be
        (["1", "5", "3"], STARS, [0, 4, 2]),
        (list(range(5)), STARS, [0, 1, 2, 3, 4]),
        (np.array([0, 4]), STARS, [0, 4]),
        (["Good", " bad"], OfNames("good", "BAD"), [0, 1]),
    ],
)
def test_all_are_read_in_the_same_way(labels, model, indices):
    assert class_indices(labels, model) == indices


@pytest.mark.parametrize(("labels", "unknown"), [(["1", "6"], "6"), (["a", "1"], "a"), ([0, 7], "7")])
def test_a_class_that_is_not_there_is_named(labels, unknown):
    with pytest.raises(ChallengerError, match=f"no class '{unknown}'; its classes are '1', '2'"):
        class_indices(labels, STARS)
