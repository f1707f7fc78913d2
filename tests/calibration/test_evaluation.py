"""What is counted as single-label classification, and whose values win."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from transformers import EvalPrediction

from hf_challenger import ChallengerTrainer
from hf_challenger.calibration import compute_metrics
from hf_challenger.calibration.evaluation import CalibrationMetrics, logits_position, scores
from hf_challenger.errors import ChallengerWarning

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


def test_the_first_of_several_outputs_in_a_plain_trainer() -> None:
    prediction = EvalPrediction(predictions=(LOGITS, np.zeros((20, 7))), label_ids=LABELS)
    assert compute_metrics(prediction) == scores(LOGITS, LABELS)


@pytest.mark.parametrize(
    ("outputs", "ignored", "position"),
    [
        ({"loss": 0, "embedding": 1, "logits": 2}, (), 1),
        ({"embedding": 1, "logits": 2, "past": 3}, ("embedding",), 0),
        ({"prediction_logits": 1, "embedding": 0}, (), 0),
        ({"loss": 0, "mine": 1}, (), 0),
        ((1, 2, 3), (), 0),
    ],
)
def test_logits_are_found_by_name(outputs: Any, ignored: Any, position: int) -> None:
    shapes = {k: torch.zeros(2, 3) for k in outputs} if isinstance(outputs, dict) else [torch.zeros(2, 3) for _ in outputs]
    assert logits_position(shapes, ignored) == position


def test_a_run_that_has_diverged_goes_on_and_its_metrics_tell(trainer: Any) -> None:
    run = trainer()
    run.model.classifier.weight.data.fill_(float("nan"))
    metrics = run.evaluate()
    assert all(math.isnan(metrics[f"eval_{name}"]) for name in ("loss", "accuracy", "ece", "nll", "brier"))


def test_users_values_win() -> None:
    metrics = CalibrationMetrics(lambda prediction: {"ece": -1.0, "mine": 2.0})
    found = metrics(EvalPrediction(predictions=LOGITS, label_ids=LABELS))
    assert (found["ece"], found["mine"]) == (-1.0, 2.0)
    assert found["accuracy"] == pytest.approx((LOGITS.argmax(1) == LABELS).mean())


# --- in the trainer ---------------------------------------------------------------------------------------------------


class Own(torch.nn.Module):
    """A classifier of series that returns its outputs in the order, and of the kind, that it is told."""

    main_input_name = "past_values"

    def __init__(self, order: tuple[str, ...] = ("logits",), bare: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(6, 3)
        self.order, self.bare = order, bare

    def forward(self, past_values: torch.Tensor, labels: Any = None, others: Any = None) -> Any:
        logits = self.head(past_values)
        if self.bare:
            return logits
        found = {"logits": logits, "embedding": -logits, "large": past_values.repeat(1, 100)}
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, **{name: found[name] for name in self.order}}


def series(rows: int = 20, second: bool = False) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(1)
    data = [{"past_values": torch.randn(6, generator=generator), "labels": i % 3} for i in range(rows)]
    return [{**row, "others": 1} for row in data] if second else data


def run(config: Any, model: Any, data: Any = None, **kwargs: Any) -> ChallengerTrainer:
    options = {k: kwargs.pop(k) for k in [*kwargs] if k not in ("compute_metrics", "compute_loss_func", "preprocess")}
    args = config(per_device_eval_batch_size=8, challenge_share=0.0, **options)
    given = {"preprocess_logits_for_metrics": kwargs.pop("preprocess", None), **kwargs}
    return ChallengerTrainer(model, args, eval_dataset=series() if data is None else data, **given)


def expected() -> dict[str, float]:
    rows = series()
    with torch.no_grad():
        logits = Own().head(torch.stack([row["past_values"] for row in rows]))
    found = scores(logits, torch.tensor([row["labels"] for row in rows]))
    return {f"eval_{name}": pytest.approx(value, abs=1e-6) for name, value in found.items()}


def found_in(metrics: dict[str, float]) -> dict[str, float]:
    return {k: v for k, v in metrics.items() if k in expected()}


@pytest.mark.parametrize("order", [("logits",), ("embedding", "logits"), ("large", "embedding", "logits")])
@pytest.mark.parametrize("concatenated", [True, False])
@pytest.mark.parametrize("users", [None, lambda prediction: {"mine": 1.0}], ids=["alone", "with_users"])
@pytest.mark.parametrize("preprocess", [None, lambda outputs, labels: labels], ids=["raw", "preprocessed"])
def test_the_metrics_are_of_the_logits(
    order: tuple[str, ...], concatenated: bool, users: Any, preprocess: Any, config: Any
) -> None:
    trainer = run(config, Own(order), eval_do_concat_batches=concatenated, compute_metrics=users, preprocess=preprocess)
    assert found_in(trainer.evaluate()) == expected()
    assert (trainer.evaluate().get("eval_mine") == 1.0) == (users is not None)


def test_batch_by_batch_the_metrics_are_of_the_logits_too(config: Any) -> None:
    trainer = run(config, Own(("embedding", "logits")), batch_eval_metrics=True)
    assert found_in(trainer.evaluate()) == expected()


def test_a_bare_tensor_is_the_logits(config: Any) -> None:
    def loss(outputs: torch.Tensor, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(outputs, labels)

    trainer = run(config, Own(bare=True), compute_loss_func=loss)
    assert found_in(trainer.evaluate()) == expected()
    assert trainer.predict(series()).predictions.shape == (20, 3)


def test_several_labels_give_no_metrics_and_one_warning(config: Any) -> None:
    trainer = run(config, Own(), series(second=True), label_names=["labels", "others"])
    with pytest.warns(ChallengerWarning, match="2 labels each.*not reported"):
        assert not found_in(trainer.evaluate())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        trainer.evaluate()


def test_evaluate_keeps_the_logits_alone_and_predict_everything(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[int] = []
    call = CalibrationMetrics.__call__

    def noted(self: Any, prediction: EvalPrediction, **kwargs: Any) -> Any:
        arrays = prediction.predictions if isinstance(prediction.predictions, tuple) else (prediction.predictions,)
        kept.append(sum(array.shape[1] for array in arrays))
        return call(self, prediction, **kwargs)

    monkeypatch.setattr(CalibrationMetrics, "__call__", noted)
    trainer = run(config, Own(("large", "logits")))
    trainer.evaluate()
    assert [array.shape for array in trainer.predict(series()).predictions] == [(20, 600), (20, 3)]
    users = run(config, Own(("large", "logits")), compute_metrics=lambda prediction: {})
    users.evaluate()
    assert kept == [3, 603, 603]
