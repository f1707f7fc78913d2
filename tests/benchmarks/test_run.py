"""The benchmark: what a seed draws, what is skipped, and a real run of every kind of method."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import run  # noqa: E402
from plant import names  # noqa: E402
from sets import draw, load  # noqa: E402

CHALLENGER = {"challenge_threshold": 0.0}
EXPERIMENT = {
    "models": ["text_cnn"],
    "report": "development",
    "sets": ["toy"],
    "sizes": [12],
    "seeds": [0],
    "steps": 3,
    "training": {"learning_rate": 1e-3, "per_device_train_batch_size": 6, "use_cpu": True},
    "methods": {
        "plain": {"kind": "plain"},
        "ours": {"kind": "challenger", **CHALLENGER},
        "masktune": {"kind": "masktune", "rate_factor": 0.1},
        "rdrop": {"kind": "rdrop", "alpha": 2.0},
        "reldrop": {"kind": "reldrop", "alpha": 0.5, "beta": 0.4},
        "jtt": {"kind": "jtt", "first": 0.34, "upweight": 3},
        "longer": {"kind": "plain", "longer": 2},
    },
}


@pytest.fixture
def data_dir(tmp_path):
    folder = tmp_path / "toy"
    folder.mkdir()
    for name, rows in (("train", 60), ("test", 20), ("test_contrast", 20), ("test_oos", 4)):
        lines = [f"the film number {i} was {'good' if i % 2 else 'bad'} indeed,{i % 2}" for i in range(rows)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    rng = np.random.default_rng(0)
    for name, shape, kind in (("waves", (40, 3), np.float32), ("pictures", (12, 12), np.uint8)):
        (tmp_path / name).mkdir()
        parts = {
            f"x_{part}": (rng.random((620, *shape)) * 255).astype(kind)[:rows]
            for part, rows in (("train", 620), ("test", 30))
        }
        labels = {f"y_{part}": np.arange(rows) % 2 for part, rows in (("train", 620), ("test", 30))}
        np.savez(tmp_path / name / "data.npz", **parts, **labels)
    return tmp_path


@pytest.mark.parametrize("size", [3, 10, 47])
def test_a_subset_is_stratified_and_apart_from_the_held_out_rows(size):
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    train, held_out = draw(labels, size, 25, seed=1)
    assert len(set(train)) == size
    assert len(set(held_out)) == 25
    assert not set(train) & set(held_out)
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
    assert (result["train_rows"], result["steps_taken"]) == (12, {"longer": 6, "masktune": 3 + 2}.get(method, 3))
    metrics = result["metrics"]["development"]
    assert metrics["rows"] == 36  # 60 - 12 to train on - 12 for the temperature
    assert metrics["accuracy"] == metrics["accuracy_scaled"]
    assert 0 <= metrics["ece_scaled"] <= 1
    json.dumps(result)


def test_setfit_runs_on_texts_and_pairs(data_dir):
    pairs = (data_dir / "toy" / "train.csv").read_text().replace("text,", "text1,text2,").replace(" number ", ",number ")
    for name in ("train", "test"):
        (data_dir / "toy" / f"{name}.csv").write_text(pairs)
    for file in (data_dir / "toy").glob("test_*"):
        file.unlink()
    task = load("minilm", data_dir, "toy", 12, 0, "development")
    assert all(" [SEP] number " in text for text in task.train.texts)
    experiment = {
        **EXPERIMENT,
        "models": ["minilm"],
        "methods": {"SetFit": {"kind": "setfit", "num_iterations": 4}},
    }
    (cell,) = run.cells(experiment)
    result = run.run_cell(experiment, cell, str(data_dir), threads=1)
    assert result["steps_taken"] == 2 * 4 * 12 / 16
    assert result["metrics"]["development"]["rows"] == 36
    assert result["metrics"]["development"]["nll"] < 0.69  # two classes by chance


@pytest.mark.parametrize(
    ("name", "model", "size", "rows"),
    [("waves", "fcn-small", None, 620), ("waves", "patchtst", 50, 50), ("pictures", "cnn", 5, 10)],
)
@pytest.mark.parametrize("kind", ["challenger", "masktune", "jtt", "reldrop"])
def test_series_and_images_run_too(name, model, size, rows, kind, data_dir):
    settings = {
        "challenger": {"kind": "challenger", **CHALLENGER},
        "masktune": {"kind": "masktune", "rate_factor": 0.1},
        "jtt": {"kind": "jtt", "first": 0.5, "upweight": 2},
        "reldrop": {"kind": "reldrop", "alpha": 0.5, "beta": 0.4},
    }[kind]
    experiment = {
        **EXPERIMENT,
        "models": [model],
        "sets": [name],
        "sizes": [size],
        "report": "test",
        "methods": {"m": settings},
    }
    (cell,) = run.cells(experiment)
    result = run.run_cell(experiment, cell, str(data_dir), threads=1)
    assert result["train_rows"] == rows
    assert result["metrics"]["test"]["rows"] == 30
    assert (result["temperature"] is None) == (name == "waves")  # a series' small training part has no rows to spare


def test_development_keeps_a_third_of_a_series_training_part(data_dir):
    task = load("fcn-small", data_dir, "waves", None, 0, "development")
    assert (len(task.train), len(task.development["development"])) == (413, 207)


@pytest.mark.parametrize(
    ("name", "model", "cue"), [("toy", "text_cnn", "word"), ("waves", "fcn-small", "bump"), ("pictures", "cnn", "mark")]
)
def test_a_planted_cue_is_in_a_share_of_the_training_rows_and_in_the_readings_that_say_so(name, model, cue, data_dir):
    def contents(rows):
        if hasattr(rows, "texts"):
            return rows.texts
        return [row.numpy().tobytes() for row in rows.x]

    plain = load(model, data_dir, name, 12, 0, "test", "none", 0.0)
    half, whole = (load(model, data_dir, name, 12, 0, "test", cue, strength) for strength in (0.5, 1.0))
    marked = [a != b for a, b in zip(contents(half.train), contents(plain.train), strict=True)]
    assert 2 <= sum(marked) < len(marked) - 1
    assert all(a != b for a, b in zip(contents(whole.train), contents(plain.train), strict=True))
    assert list(plain.test) == ["absent"]
    assert list(whole.test) == ["aligned", "absent", "shuffled", "flipped"]
    assert contents(whole.test["absent"]) == contents(plain.test["absent"])
    aligned, flipped, shuffled = (contents(whole.test[how]) for how in ("aligned", "flipped", "shuffled"))
    assert all(a != b for a, b in zip(aligned, flipped, strict=True))
    same = [a == b for a, b in zip(aligned, shuffled, strict=True)]
    assert any(same)
    assert not all(same)


def test_a_cell_with_a_cue_reports_every_reading(data_dir):
    experiment = {
        **EXPERIMENT,
        "sizes": [28],
        "cues": [{"cue": "word", "strength": 1.0}],
        "methods": {"plain": {"kind": "plain"}, "counts": {"kind": "counts"}},
    }
    for cell in run.cells(experiment):
        result = run.run_cell(experiment, cell, str(data_dir), threads=1)
        assert list(result["metrics"]) == [f"development/{how}" for how in ("aligned", "absent", "shuffled", "flipped")]
        assert {cue["class"] for cue in result["cues"]} == ({0, 1} if cell["method"] == "counts" else set())


def test_reporting_reads_every_test_part_but_out_of_scope_ones(data_dir):
    assert set(load("text_cnn", data_dir, "toy", 12, 0, "test").test) == {"test", "test_contrast"}


def test_a_finished_run_is_skipped_until_its_settings_change_and_half_a_line_is_none(tmp_path):
    cell = run.cells(EXPERIMENT)[0]
    path = tmp_path / "x.jsonl"
    assert run.finished(path) == set()
    path.write_text('{"fingerprint": "cut sho')
    run.append(path, {"fingerprint": run.fingerprint(EXPERIMENT, cell)})
    assert run.finished(path) == {run.fingerprint(EXPERIMENT, cell)}
    changed = {**EXPERIMENT, "training": {**EXPERIMENT["training"], "learning_rate": 4}}
    assert run.fingerprint(changed, cell) not in run.finished(path)
    assert run.fingerprint({**EXPERIMENT, "seeds": [0, 1]}, cell) in run.finished(path)


def test_a_missing_set_is_named(tmp_path):
    with pytest.raises(SystemExit, match="--data_dir"):
        load("text_cnn", tmp_path, "absent", 12, 0, "test")


def test_the_names_of_the_planted_cues_are_given_to_a_method_that_asks_for_them(data_dir):
    methods = {"named": {"kind": "challenger", "challenge_hide": "planted"}}
    experiment = {**EXPERIMENT, "cues": [{"cue": "phrase", "strength": 1.0}], "methods": methods}
    (cell,) = run.cells(experiment)
    result = run.run_cell(experiment, cell, str(data_dir), threads=1)
    assert list(result["metrics"]) == [f"development/{how}" for how in ("aligned", "absent", "shuffled", "flipped")]
    assert names("phrase", 2) == ["posted from the mobile app", "submitted from the web form"]
    with pytest.raises(SystemExit, match="'punctuation' have no names"):
        names("punctuation", 2)
