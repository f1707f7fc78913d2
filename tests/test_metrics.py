"""What is counted as single-label classification, and whose values win."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from transformers import EvalPrediction

from hf_challenger.metrics import CalibrationMetrics, scores

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(20, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, 20)


@pytest.mark.parametrize(
    ("logits", "labels"),
    [
        (LOGITS, None),
        (None, LABELS),
        (LOGITS[:, :1], LABELS),
        (LOGITS, LABELS.astype(np.float32)),
        (LOGITS, np.zeros((20, 3), dtype=np.int64)),
        (LOGITS[:, None], LABELS),
        (LOGITS, np.full(20, -100)),
    ],
    ids=["no labels", "no logits", "one output", "float labels", "multi-label", "per token", "all ignored"],
)
def test_no_calibration_of_other_problems(logits: Any, labels: Any) -> None:
    assert scores(logits, labels) == {}


def test_ignored_rows_are_left_out() -> None:
    labels = LABELS.copy()
    labels[5:] = -100
    assert scores(LOGITS, labels) == pytest.approx(scores(LOGITS[:5], LABELS[:5]))


def test_models_with_more_outputs_than_logits() -> None:
    assert scores((LOGITS, np.zeros((20, 7))), (LABELS,)) == scores(LOGITS, LABELS)


def test_a_run_that_has_diverged_goes_on_and_its_metrics_tell(trainer: Any) -> None:
    run = trainer()
    run.model.classifier.weight.data.fill_(float("nan"))
    metrics = run.evaluate()
    assert all(math.isnan(metrics[f"eval_{name}"]) for name in ("loss", "accuracy", "ece", "nll", "brier"))


def test_users_values_win() -> None:
    metrics = CalibrationMetrics(lambda prediction: {"ece": -1.0, "mine": 2.0}, kept=False, batched=False)
    found = metrics(EvalPrediction(predictions=LOGITS, label_ids=LABELS))
    assert (found["ece"], found["mine"]) == (-1.0, 2.0)
    assert found["accuracy"] == pytest.approx((LOGITS.argmax(1) == LABELS).mean())
