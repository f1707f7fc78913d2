"""A user's strictly typed code. Only mypy reads it: each call must be typed, and each result what is said here."""

from typing import assert_type

from torch import Tensor, nn
from torch.utils.data import Dataset

from hf_challenger import LRP, ChallengedBatch, ChallengeOptions, Challenger, ChallengerConfig, ChallengerTrainer, Cue
from hf_challenger.attribution import LayerLRP
from hf_challenger.calibration import (
    CalibrationCallback,
    apply_temperature,
    brier_score,
    expected_accuracy,
    expected_calibration_error,
    fit_temperature,
    temperature_for_accuracy,
)
from hf_challenger.explain import Explanation, explain
from hf_challenger.predict import predict


def train(model: nn.Module, rows: Dataset[dict[str, Tensor]]) -> list[str]:
    args = ChallengerConfig("out", challenge_share=0.5)
    trainer = ChallengerTrainer(model, args, train_dataset=rows)
    trainer.add_callback(CalibrationCallback(trainer))
    trainer.train()
    assert_type(trainer.cues, list[Cue])
    return [f"{cue.text} {cue.strength + cue.coverage}" for cue in trainer.cues]


def challenge(model: nn.Module, batch: dict[str, Tensor], labels: Tensor) -> ChallengedBatch:
    challenged = Challenger(model, ChallengeOptions()).challenge(batch, labels, step=0)
    assert_type(challenged, ChallengedBatch)
    return challenged


def relevance(model: nn.Module, batch: dict[str, Tensor]) -> None:
    LRP(model, composite="attnlrp", strict=True).attribute(batch, target=0)
    LayerLRP(model, "encoder").attribute(batch, target=0)
    assert_type(explain(model, None, "a text"), Explanation)
    assert_type(predict(model, None, ["a text"]), list[tuple[str, float]])


def calibrate(model: nn.Module, logits: Tensor, labels: Tensor, batches: list[dict[str, Tensor]]) -> None:
    assert_type(expected_calibration_error(logits.softmax(1), labels), float)
    assert_type(brier_score(logits.softmax(1), labels), float)
    assert_type(fit_temperature(logits, labels), float)
    temperature_for_accuracy(logits, expected_accuracy(model, batches))
    apply_temperature(model, fit_temperature(logits, labels))
