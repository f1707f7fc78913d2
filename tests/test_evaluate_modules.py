"""The folders in metrics/ as `evaluate` modules, without network."""

from pathlib import Path

import evaluate
import pytest
import torch
from netcal.metrics import ECE
from sklearn.metrics import accuracy_score, log_loss

METRICS = Path(__file__).parents[1] / "metrics"
NAMES = ["calibration_error", "brier_score", "negative_log_likelihood", "probability_accuracy"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(evaluate.config, "HF_EVALUATE_CACHE", str(tmp_path))


def load(name):
    return evaluate.load(str(METRICS / name))


def predictions(rows=200):
    generator = torch.Generator().manual_seed(0)
    probabilities = (torch.randn(rows, 4, generator=generator, dtype=torch.float64) * 2).softmax(1)
    return probabilities, torch.randint(4, (rows,), generator=generator)


def test_every_folder_is_a_module_and_a_space():
    assert sorted(folder.name for folder in METRICS.iterdir() if folder.is_dir()) == sorted(NAMES)
    for name in NAMES:
        files = {file.name for file in (METRICS / name).iterdir()}
        assert {f"{name}.py", "README.md", "app.py", "requirements.txt"} <= files
        assert (METRICS / name / "README.md").read_text().startswith("---\ntitle: ")


def test_modules_loaded_from_their_folders_equal_other_libraries():
    probabilities, labels = predictions()
    given = {"predictions": probabilities.tolist(), "references": labels.tolist()}
    assert load("calibration_error").compute(**given, bins=10)["ece"] == pytest.approx(
        ECE(10).measure(probabilities.numpy(), labels.numpy()), abs=1e-6
    )
    assert load("negative_log_likelihood").compute(**given)["nll"] == pytest.approx(log_loss(labels, probabilities))
    assert load("probability_accuracy").compute(**given)["accuracy"] == accuracy_score(labels, probabilities.argmax(1))
    brier = sum(sum((p - (k == label)) ** 2 for k, p in enumerate(row)) for row, label in zip(*given.values(), strict=True))
    assert load("brier_score").compute(**given)["brier"] == pytest.approx(brier / len(labels))


def test_combine_mixes_all_of_them_batch_by_batch():
    probabilities, labels = predictions()
    together = evaluate.combine([load(name) for name in NAMES])
    for start in range(0, 200, 50):
        together.add_batch(
            predictions=probabilities[start : start + 50].tolist(), references=labels[start : start + 50].tolist()
        )
    got = together.compute()
    assert set(got) == {"ece", "adaptive_ece", "classwise_ece", "mce", "brier", "nll", "accuracy"}
    for name in NAMES:
        alone = load(name).compute(predictions=probabilities.tolist(), references=labels.tolist())
        assert {key: got[key] for key in alone} == pytest.approx(alone)


def test_class_numbers_in_place_of_probabilities_are_refused():
    with pytest.raises(ValueError, match="Predictions and/or references don't match the expected format"):
        load("calibration_error").compute(predictions=[0, 1], references=[0, 1])


def test_logits_in_place_of_probabilities_are_refused():
    with pytest.raises(ValueError, match="softmax"):
        load("brier_score").compute(predictions=[[3.0, -1.0]], references=[0])
