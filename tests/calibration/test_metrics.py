"""Calibration metrics against another library and against slow float64 loops."""

import math

import numpy as np
import pytest
import torch
from netcal.metrics import ECE, MCE
from sklearn.calibration import calibration_curve

from hf_challenger import ChallengerError
from hf_challenger.calibration import (
    adaptive_calibration_error,
    brier_score,
    classification_metrics,
    classwise_calibration_error,
    confidence_interval,
    expected_calibration_error,
    fit_temperature,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)
from hf_challenger.errors import ChallengerWarning


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
    assert expected_calibration_error(confident_and_wrong, torch.tensor([1])) == pytest.approx(1, abs=1e-6)
    assert expected_calibration_error(confident_and_wrong, torch.tensor([0])) == pytest.approx(0, abs=1e-6)


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


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("bins", [5, 15])
def test_mce_and_adaptive_ece_equal_netcal(seed, bins):
    logits, labels = predictions(seed)
    probabilities = logits.double().softmax(1)
    mce = MCE(bins).measure(probabilities.numpy(), labels.numpy())
    assert maximum_calibration_error(probabilities, labels, bins) == pytest.approx(mce, abs=1e-6)
    adaptive = ECE(bins, equal_intervals=False).measure(probabilities.numpy(), labels.numpy())
    assert adaptive_calibration_error(probabilities, labels, bins) == pytest.approx(adaptive, abs=1e-9)


def test_adaptive_ece_equals_a_slow_loop_over_sorted_rows():
    logits, labels = predictions(3, rows=600)
    probabilities = logits.double().softmax(1)
    confidence, prediction = probabilities.max(1)
    order = sorted(range(600), key=lambda i: float(confidence[i]))
    total = 0.0
    for b in range(15):
        rows = order[b * 40 : (b + 1) * 40]
        accuracy = sum(int(prediction[i] == labels[i]) for i in rows) / 40
        total += 40 / 600 * abs(accuracy - sum(float(confidence[i]) for i in rows) / 40)
    assert adaptive_calibration_error(probabilities, labels, 15) == pytest.approx(total, abs=1e-12)
    assert reliability_bins(probabilities, labels, 15, equal_mass=True).count.tolist() == [40.0] * 15


def test_equal_confidences_stay_in_one_bin_of_equal_mass():
    probabilities = torch.tensor([[0.9, 0.1]] * 30 + [[0.6, 0.4]] * 2, dtype=torch.float64)
    labels = torch.tensor([0] * 20 + [1] * 12)
    shuffled = torch.randperm(32, generator=torch.Generator().manual_seed(0))
    in_order = adaptive_calibration_error(probabilities, labels, 4)
    assert in_order == pytest.approx((30 * abs(20 / 30 - 0.9) + 2 * 0.6) / 32)
    assert adaptive_calibration_error(probabilities[shuffled], labels[shuffled], 4) == pytest.approx(in_order)


@pytest.mark.parametrize("seed", range(3))
def test_classwise_ece_equals_a_slow_loop_over_classes(seed):
    logits, labels = predictions(seed, rows=300, classes=4)
    probabilities = logits.double().softmax(1)
    total = 0.0
    for k in range(4):
        for b in range(10):
            upper = 1.1 if b == 9 else (b + 1) / 10
            rows = [i for i in range(300) if b / 10 <= float(probabilities[i, k]) < upper]
            if rows:
                share = sum(int(labels[i] == k) for i in rows) / len(rows)
                total += len(rows) / 300 * abs(share - sum(float(probabilities[i, k]) for i in rows) / len(rows))
    assert classwise_calibration_error(probabilities, labels, 10) == pytest.approx(total / 4, abs=1e-6)


@pytest.mark.parametrize("equal_mass", [False, True])
def test_reliability_bins_equal_scikit_learns_calibration_curve(equal_mass):
    logits, labels = predictions(4)
    probabilities = logits.double().softmax(1)
    confidence, prediction = probabilities.max(1)
    strategy = "quantile" if equal_mass else "uniform"
    accuracy, mean_confidence = calibration_curve(prediction == labels, confidence, n_bins=10, strategy=strategy)
    bins = reliability_bins(probabilities, labels, 10, equal_mass)
    filled = bins.count > 0
    np.testing.assert_allclose(bins.accuracy[filled].numpy(), accuracy, atol=1e-12)
    np.testing.assert_allclose(bins.confidence[filled].numpy(), mean_confidence, atol=1e-12)
    assert bins.count.sum() == 700


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bins_and_ece_agree_on_confidences_of_exactly_one(dtype):
    probabilities = torch.tensor([[1.0, 0.0], [0.96, 0.04], [1.0, 0.0], [0.5, 0.5]], dtype=dtype)
    labels = torch.tensor([1, 0, 0, 0])
    expected = (3 * abs(2 / 3 - (1 + 0.96 + 1) / 3) + 0.5) / 4  # the first three rows share the last bin
    assert reliability_bins(probabilities, labels).error == pytest.approx(expected, abs=1e-7)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected, abs=1e-6)


def test_perfect_and_worst_predictions():
    sure = torch.eye(3)[torch.tensor([0, 1, 2, 0])]
    right, wrong = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 2, 0, 1])
    for metric in (expected_calibration_error, maximum_calibration_error, adaptive_calibration_error):
        assert metric(sure, right) == pytest.approx(0, abs=1e-6)
        assert metric(sure, wrong) == pytest.approx(1, abs=1e-6)
    assert classwise_calibration_error(sure, right) == pytest.approx(0, abs=1e-6)
    assert classwise_calibration_error(sure, wrong) == pytest.approx(2 / 3, abs=1e-6)


def test_confidence_interval_of_the_accuracy_is_the_binomials():
    probabilities = torch.tensor([[0.9, 0.1]]).repeat(400, 1)
    labels = torch.tensor([0] * 320 + [1] * 80)

    def accuracy(p, y):
        return float((p.argmax(1) == y).double().mean())

    low, high = confidence_interval(accuracy, probabilities, labels, draws=2000)
    half_width = 1.96 * math.sqrt(0.8 * 0.2 / 400)
    assert low == pytest.approx(0.8 - half_width, abs=0.006)
    assert high == pytest.approx(0.8 + half_width, abs=0.006)


def test_confidence_interval_is_a_function_of_its_seed_and_leaves_torchs_random_state():
    logits, labels = predictions(0, rows=100)
    probabilities = logits.softmax(1)
    state = torch.get_rng_state()
    first = confidence_interval(expected_calibration_error, probabilities, labels, draws=50, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    assert first == confidence_interval(expected_calibration_error, probabilities, labels, draws=50, seed=3)
    assert first != confidence_interval(expected_calibration_error, probabilities, labels, draws=50, seed=4)
    assert first[0] < first[1]
    narrow = confidence_interval(expected_calibration_error, probabilities, labels, level=0.5, draws=50, seed=3)
    assert first[0] < narrow[0] < narrow[1] < first[1]


@pytest.mark.parametrize(
    ("probabilities", "labels", "words"),
    [
        (torch.tensor([[2.0, -1.0]]), torch.tensor([0]), "softmax"),
        (torch.tensor([[3.0, 1.0]]), torch.tensor([0]), "sum to 1"),
        (torch.tensor([[float("nan"), 0.5]]), torch.tensor([0]), "sum to 1"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([-100]), "Leave out rows labelled -100"),
        (torch.tensor([[0.5, 0.5]]), torch.tensor([0, 1]), "shape"),
        (torch.tensor([0.5, 0.5]), torch.tensor([0, 1]), "shape"),
        (torch.zeros(0, 2), torch.zeros(0), "at least one row"),
    ],
)
def test_bad_predictions_are_refused_with_the_way_out(probabilities, labels, words):
    for metric in (expected_calibration_error, adaptive_calibration_error, classwise_calibration_error):
        with pytest.raises(ChallengerError, match=words):
            metric(probabilities, labels)


def test_bad_bins_and_levels_are_refused():
    probabilities, labels = torch.tensor([[0.5, 0.5]]), torch.tensor([0])
    with pytest.raises(ChallengerError, match=r"the classes; got torch\.float32"):
        expected_calibration_error(torch.tensor([[0.5, 0.5]]), torch.tensor([0.7]))
    with pytest.raises(ChallengerError, match="bins=0"):
        reliability_bins(probabilities, labels, 0)
    with pytest.raises(ChallengerError, match="level=95"):
        confidence_interval(expected_calibration_error, probabilities, labels, level=95)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [10, 14, 15, 20])
def test_bins_and_ece_agree_on_every_edge(bins, dtype):
    """Vote shares k/n lie on edges, where float32 and float64 round to different sides."""
    for n in range(2, 21):
        confidence = torch.arange((n + 1) // 2, n + 1, dtype=dtype) / n
        probabilities = torch.stack([confidence, 1 - confidence], 1)
        labels = torch.arange(len(confidence)) % 2
        assert reliability_bins(probabilities, labels, bins).error == pytest.approx(
            expected_calibration_error(probabilities, labels, bins), abs=1e-6
        )


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        (torch.full((3, 2), torch.nan), torch.tensor([0, 1, 0]), "NaN"),
        (torch.tensor([[torch.inf, 0.0]]), torch.tensor([0]), "infinity"),
        (torch.zeros(2, 2), torch.tensor([-100, -100]), "None of the 2 rows"),
        (torch.zeros(0, 2), torch.zeros(0).long(), "None of the 0 rows"),
        (torch.zeros(2, 1), torch.tensor([0, 0]), "at least two classes"),
        (torch.zeros(2, 2), torch.tensor([0, 2]), "0 to 1"),
        (torch.zeros(2, 2), torch.tensor([[0, 1], [1, 1]]), "several labels"),
    ],
)
@pytest.mark.parametrize("metric", [fit_temperature, classification_metrics])
def test_bad_logits_are_refused(metric, logits, labels, words):
    with pytest.raises(ChallengerError, match=words):
        metric(logits, labels)


def test_brier_score_refuses_logits_and_missing_labels():
    with pytest.raises(ChallengerError, match="softmax"):
        brier_score(torch.tensor([[4.0, -1.0]]), torch.tensor([0]))
    with pytest.raises(ChallengerError, match="-100"):
        brier_score(torch.tensor([[0.5, 0.5]]), torch.tensor([-100]))


def test_a_temperature_that_the_rows_do_not_tell_is_said():
    with pytest.warns(ChallengerWarning, match="No temperature fits"):
        fit_temperature(torch.eye(3) * 3, torch.arange(3))  # all right: ever sharper is ever better
    with pytest.warns(ChallengerWarning, match="No temperature fits"):
        assert fit_temperature(torch.eye(2) * 3, torch.tensor([1, 0])) == pytest.approx(100, rel=1e-3)  # all wrong
    skipped = fit_temperature(torch.tensor([[3.0, 0], [2, 0], [3, 0], [9, 0]]), torch.tensor([0, 0, 1, -100]))
    assert skipped == pytest.approx(fit_temperature(torch.tensor([[3.0, 0], [2, 0], [3, 0]]), torch.tensor([0, 0, 1])))


def test_numpy_gives_what_tensors_give():
    logits, labels = predictions(0)
    probabilities = logits.softmax(1)
    of_probabilities = (
        expected_calibration_error,
        maximum_calibration_error,
        adaptive_calibration_error,
        classwise_calibration_error,
        brier_score,
    )
    for metric in of_probabilities:
        assert metric(probabilities.numpy(), labels.numpy()) == metric(probabilities, labels)
    for metric in (classification_metrics, fit_temperature, negative_log_likelihood):
        assert metric(logits.numpy(), labels.numpy()) == metric(logits, labels)
    arrays = confidence_interval(brier_score, probabilities.numpy(), labels.numpy(), draws=5)
    assert arrays == confidence_interval(brier_score, probabilities, labels, draws=5)
