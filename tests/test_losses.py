"""Losses per row against torch's own, and against slow re-derivations in float64."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hf_challenger import ChallengerError
from hf_challenger.losses import check_labels, problem_type_of, row_losses

SINGLE, MULTI, REGRESSION = "single_label_classification", "multi_label_classification", "regression"


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2


LABELS = torch.tensor([0, 3, -100, 1, 1, 2])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.int64, torch.int8])
def test_single_label_is_torchs_cross_entropy(logits: Tensor, smoothing: float, dtype: torch.dtype) -> None:
    losses, counts = row_losses(logits, LABELS.to(dtype), SINGLE, label_smoothing=smoothing)
    expected = F.cross_entropy(logits, LABELS, label_smoothing=smoothing)
    assert torch.allclose(losses.sum() / counts.sum(), expected, atol=1e-12)
    assert counts.tolist() == [1, 1, 0, 1, 1, 1]
    assert losses[2] == 0


def test_softening_comes_first_and_smoothing_on_top(logits: Tensor) -> None:
    gives_up = torch.tensor([0.0, 0.5, 0.3, 1.0, 0.1, 0.0], dtype=torch.float64)
    losses, _ = row_losses(logits, LABELS, SINGLE, gives_up, label_smoothing=0.2)
    for row, label in enumerate(LABELS.tolist()):
        if label == -100:
            continue
        p = [math.exp(z) / sum(math.exp(k) for k in logits[row].tolist()) for z in logits[row].tolist()]
        target = [(1 - gives_up[row].item()) * (k == label) + gives_up[row].item() / 4 for k in range(4)]
        target = [0.8 * t + 0.2 / 4 for t in target]
        assert sum(target) == pytest.approx(1)
        assert losses[row].item() == pytest.approx(-sum(t * math.log(q) for t, q in zip(target, p, strict=True)), abs=1e-10)


def test_multi_label_is_torchs_bce(logits: Tensor) -> None:
    labels = (torch.rand(6, 4, generator=torch.Generator().manual_seed(1)) > 0.5).double()
    losses, counts = row_losses(logits, labels, MULTI)
    assert torch.allclose(losses.sum() / counts.sum(), F.binary_cross_entropy_with_logits(logits, labels), atol=1e-12)
    labels[0, 1] = -100
    losses, counts = row_losses(logits, labels, MULTI)
    keep = labels[0] != -100
    assert counts[0] == 3
    assert torch.allclose(losses[0], F.binary_cross_entropy_with_logits(logits[0, keep], labels[0, keep], reduction="sum"))


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_regression_is_torchs_mse(logits: Tensor, shape: tuple[int, ...]) -> None:
    labels = torch.arange(6.0, dtype=torch.float64).reshape(shape)
    losses, counts = row_losses(logits[:, :1], labels, REGRESSION)
    assert torch.allclose(losses.sum() / counts.sum(), F.mse_loss(logits[:, 0], labels.reshape(6)), atol=1e-12)


def test_losses_of_half_precision_logits_are_float32(logits: Tensor) -> None:
    assert row_losses(logits.bfloat16(), LABELS, SINGLE)[0].dtype == torch.float32


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
