"""The benchmark: what a seed draws, what is skipped, and one real run of each kind of method."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import run  # noqa: E402
from sets import draw, load_text  # noqa: E402

EXPERIMENT = {
    "model": "text_cnn",
    "report": "development",
    "sets": ["toy"],
    "sizes": [12],
    "seeds": [0],
    "training": {"max_steps": 3, "learning_rate": 1e-3, "per_device_train_batch_size": 6, "use_cpu": True},
    "methods": {
        "plain": {"kind": "plain"},
        "ours": {"kind": "challenger"},
        "rdrop": {"kind": "rdrop"},
        "odd": {"kind": "odd_epochs"},
    },
}


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, rows in (("train", 60), ("test", 20), ("test_contrast", 20), ("test_oos", 4)):
        lines = [f"the film number {i} was {'good' if i % 2 else 'bad'} indeed,{i % 2}" for i in range(rows)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return tmp_path


@pytest.mark.parametrize("size", [3, 10, 47])
def test_a_subset_is_stratified_and_apart_from_the_development_rows(size):
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    train, development = draw(labels, size, 25, seed=1)
    assert len(set(train)) == size
    assert len(set(development)) == 25
    assert not set(train) & set(development)
    counts = np.bincount(labels[train], minlength=3)
    assert (counts >= 1).all()
    assert np.abs(counts - size * np.array([0.6, 0.3, 0.1])).max() <= 1
    again, _ = draw(labels, size, 25, seed=1)
    assert np.array_equal(train, again)
    assert not np.array_equal(np.sort(train), np.sort(draw(labels, size, 25, seed=2)[0]))


@pytest.mark.parametrize("method", EXPERIMENT["methods"])
def test_every_kind_of_method_runs_and_reports(method, data_dir):
    (cell,) = (c for c in run.cells(EXPERIMENT) if c["method"] == method)
    result = run.run_cell(EXPERIMENT, cell, str(data_dir), threads=1)
    assert (result["train_rows"], result["steps"]) == (12, 3)
    metrics = result["metrics"]["development"]
    assert metrics["rows"] == 36  # 60 - 12 to train on - 12 for the temperature
    assert metrics["accuracy"] == metrics["accuracy_scaled"]
    assert 0 <= metrics["ece_scaled"] <= 1


def test_reporting_reads_every_test_part_but_out_of_scope_ones(data_dir):
    assert set(load_text(data_dir, "toy").test) == {"test", "test_contrast"}


def test_a_finished_run_is_skipped_until_its_settings_change(data_dir, tmp_path):
    cell = run.cells(EXPERIMENT)[0]
    path = run.path_of(tmp_path, "x", cell)
    assert not run.finished(path, run.fingerprint(EXPERIMENT, cell))
    path.parent.mkdir()
    path.write_text(json.dumps({"fingerprint": run.fingerprint(EXPERIMENT, cell)}))
    assert run.finished(path, run.fingerprint(EXPERIMENT, cell))
    changed = {**EXPERIMENT, "training": {**EXPERIMENT["training"], "max_steps": 4}}
    assert not run.finished(path, run.fingerprint(changed, cell))


def test_a_missing_set_is_named(tmp_path):
    with pytest.raises(SystemExit, match="--data_dir"):
        load_text(tmp_path, "absent")
