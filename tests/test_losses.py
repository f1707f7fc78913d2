"""Problem types and labels that do not fit."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from hf_challenger import ChallengerError
from hf_challenger.losses import check_labels, problem_type_of

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


@pytest.mark.parametrize(
    ("declared", "outputs", "labels", "expected"),
    [
        (None, 1, torch.zeros(2), REGRESSION),
        (None, 1, torch.zeros(2, dtype=torch.long), REGRESSION),
        (None, 3, torch.zeros(2, dtype=torch.long), SINGLE),
        (None, 3, torch.zeros(2, 3), MULTI),
        (REGRESSION, 3, torch.zeros(2, 3), REGRESSION),
        (MULTI, 3, torch.zeros(2, 3, dtype=torch.long), MULTI),
    ],
)
def test_problem_type_follows_transformers(declared: str | None, outputs: int, labels: Tensor, expected: str) -> None:
    assert problem_type_of(declared, outputs, labels) == expected


@pytest.mark.parametrize(
    ("labels", "problem", "words"),
    [
        (torch.tensor([0, 4]), SINGLE, r"Label 4 is outside the model's 4 classes \(0 to 3\).*num_labels"),
        (torch.tensor([-1, 0]), SINGLE, r"Label -1 is outside"),
        (torch.zeros(2, 4, dtype=torch.long), SINGLE, r"shape \(2, 4\).*one integer a row, \(2,\).*multi_label"),
        (torch.zeros(2), SINGLE, r"type torch.float32.*one integer a row"),
        (torch.zeros(2), MULTI, r"shape \(2,\).*one number a row and output, \(2, 4\).*pass integers"),
        (torch.full((2, 4), math.nan), MULTI, r"labels of row 0 of the batch are NaN or infinite.*-100 leaves"),
    ],
)
def test_labels_that_do_not_fit(labels: Tensor, problem: str, words: str) -> None:
    with pytest.raises(ChallengerError, match=words):
        check_labels(torch.zeros(2, 4), labels, problem)


def test_scores_per_token_are_refused() -> None:
    with pytest.raises(ChallengerError, match=r"scores of shape \(2, 7, 4\) for 2 labelled rows.*token classification"):
        check_labels(torch.zeros(2, 7, 4), torch.zeros(2, dtype=torch.long), SINGLE)
