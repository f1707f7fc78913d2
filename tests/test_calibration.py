"""Calibration metrics against another library and against slow float64 loops."""

import math

import numpy as np
import pytest
import torch
from netcal.metrics import ECE

from hf_challenger.calibration import brier_score, classification_metrics, expected_calibration_error, fit_temperature


def predictions(seed, rows=700, classes=6, sharpness=2.5):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator) * sharpness
    labels = torch.where(
        torch.rand(rows, generator=generator) < 0.6, logits.argmax(1), torch.randint(classes, (rows,), generator=generator)
    )
    return logits, labels


def slow_ece(probabilities, labels, bins=15):
    total = 0.0
    for b in range(bins):
        inside = []
        for row, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
            confidence = max(row)
            if b / bins < confidence <= (b + 1) / bins:
                inside.append((confidence, row.index(confidence) == label))
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            confidence = sum(c for c, _ in inside) / len(inside)
            total += len(inside) / len(labels) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("seed", range(3))
def test_ece_equals_netcal_and_a_slow_loop(seed):
    logits, labels = predictions(seed)
    probabilities = logits.double().softmax(1)
    ece = expected_calibration_error(probabilities, labels)
    assert ece == pytest.approx(slow_ece(probabilities, labels), abs=1e-6)
    assert ece == pytest.approx(ECE(15).measure(probabilities.numpy(), labels.numpy()), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_accuracy_nll_and_brier_equal_slow_loops(seed):
    logits, labels = predictions(seed)
    got = classification_metrics(logits, labels)
    probabilities = np.exp(logits.double().numpy())
    probabilities /= probabilities.sum(1, keepdims=True)
    right = nll = brier = 0.0
    for p, label in zip(probabilities, labels.tolist(), strict=True):
        right += p.argmax() == label
        nll -= math.log(p[label])
        brier += sum((p[k] - (k == label)) ** 2 for k in range(len(p)))
    n = len(labels)
    assert got["accuracy"] == pytest.approx(right / n)
    assert got["nll"] == pytest.approx(nll / n)
    assert got["brier"] == pytest.approx(brier / n)
    assert got["ece"] == pytest.approx(slow_ece(torch.as_tensor(probabilities), labels), abs=1e-6)


def test_known_values():
    confident_and_wrong = torch.tensor([[1.0, 0.0]])
    assert brier_score(confident_and_wrong, torch.tensor([1])) == 2
    assert expected_calibration_error(confident_and_wrong, torch.tensor([1])) == 1
    assert expected_calibration_error(confident_and_wrong, torch.tensor([0])) == 0


def test_unlabelled_rows_are_left_out():
    logits, labels = predictions(0)
    ignored = labels.clone()
    ignored[::3] = -100
    kept = ignored != -100
    assert classification_metrics(logits, ignored) == classification_metrics(logits[kept], labels[kept])


def test_confidence_of_exactly_one_and_of_a_bins_edge_are_counted():
    probabilities = torch.tensor([[1.0, 0.0], [0.6, 0.4], [0.8, 0.2]], dtype=torch.float64)
    assert expected_calibration_error(probabilities, torch.tensor([0, 0, 1])) == pytest.approx((0.4 + 0.8) / 3, abs=1e-6)


@pytest.mark.parametrize("factor", [0.2, 1.0, 7.0])
def test_temperature_is_where_the_slope_of_the_nll_is_zero(factor):
    logits, labels = predictions(1)
    temperature = fit_temperature(logits * factor, labels)
    log_t = torch.tensor(math.log(temperature), dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits.double() * factor / log_t.exp(), labels)
    (slope,) = torch.autograd.grad(loss, log_t)
    assert abs(slope) < 1e-5
    assert temperature == pytest.approx(fit_temperature(logits, labels) * factor, rel=1e-4)
