"""The benchmark: what a seed draws, what is skipped, paired statistics, tables, and a real run of every kind of method."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import paired  # noqa: E402
import run  # noqa: E402
import tables  # noqa: E402
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
        "rdrop": {"kind": "rdrop", "alpha": 2.0},
        "reldrop": {"kind": "reldrop", "alpha": 0.5, "beta": 0.4, "challenge_share": 1.0, **CHALLENGER},
        "odd": {"kind": "odd_epochs", **CHALLENGER},
        "warm": {"kind": "warm_up", "warm_up": 0.5, **CHALLENGER},
        "controlled": {"kind": "controller", "keeps": 0.8, "challenge_softening": 0.0, **CHALLENGER},
        "consistent": {"kind": "consistency", **CHALLENGER},
        "opposite": {"kind": "opposite", "share": 0.5, **CHALLENGER},
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
    assert (result["train_rows"], result["steps_taken"]) == (12, 6 if method == "longer" else 3)
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


def test_a_temperature_without_labels_is_measured_beside_the_run(data_dir):
    experiment = {
        **EXPERIMENT,
        "models": ["minilm"],
        "steps": 30,
        "training": {**EXPERIMENT["training"], "learning_rate": 1e-4},
        "methods": {"plain": {"kind": "plain", "calibrate": True}, "other": {"kind": "plain"}},
    }
    cell, other = run.cells(experiment)
    result = run.run_cell(experiment, cell, str(data_dir), threads=1)
    clean = result["metrics"]["development"]
    for found in result["calibrated"].values():
        assert found["temperature"] > 0
        assert found["metrics"]["development"]["accuracy"] == clean["accuracy"]
        assert (found["metrics"]["development"]["nll"] == clean["nll"]) == (found["temperature"] == 1)
    assert 0 < result["expected_accuracy"] <= 1
    shown = tables.table([result, run.run_cell(experiment, other, str(data_dir), threads=1)])
    assert {"plain, calibrated", "plain, temperature scaled"} <= {line.split("|")[1].strip() for line in shown.splitlines()}


@pytest.mark.parametrize(
    ("name", "model", "size", "rows"),
    [("waves", "fcn-small", None, 620), ("waves", "patchtst", 50, 50), ("pictures", "cnn", 5, 10)],
)
@pytest.mark.parametrize("kind", ["challenger", "attenuate", "mixup"])
def test_series_and_images_run_too(name, model, size, rows, kind, data_dir):
    settings = {
        "challenger": {"kind": "challenger", **CHALLENGER},
        "attenuate": {"kind": "challenger", **CHALLENGER, "challenge_perturbation": "attenuate"},
        "mixup": {"kind": "mixup", "alpha": 0.4},
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
    assert (len(task.train), len(task.development)) == (413, 207)


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


def toy_runs(effect, sets=4, seeds=8, spread=0.02):
    rng = np.random.default_rng(1)
    runs = []
    for name in range(sets):
        for seed in range(seeds):
            for method in ("plain", "ours"):
                error = 0.2 + 0.05 * name + (effect if method == "ours" else 0) + spread * rng.normal()
                runs.append({"method": method, "set": f"s{name}", "model": "m", "size": 1, "seed": seed, "error": error})
    return runs


def test_intervals_hold_a_known_effect_and_exclude_zero_only_where_it_is_there():
    found = paired.paired(toy_runs(-0.05), "ours", "plain", lambda r: r["error"], lower=True)
    assert found.low < -0.05 < found.high < 0
    assert (found.pairs, found.sets) == (32, 4)
    assert found.wins == 4
    assert found.change == pytest.approx(found.mean / 0.275, rel=0.05)
    none = paired.paired(toy_runs(0.0), "ours", "plain", lambda r: r["error"], lower=True)
    assert none.low < 0 < none.high


def test_sets_are_clusters():
    """One set with a large effect is one observation, however many seeds it has."""
    runs = toy_runs(0.0, spread=0.001)
    for r in runs:
        if r["method"] == "ours" and r["set"] == "s0":
            r["error"] -= 0.2
    found = paired.paired(runs, "ours", "plain", lambda r: r["error"], lower=True)
    assert found.low < -0.1
    assert found.high > -0.002  # it may be missing from a draw of sets


def test_only_shared_cells_are_compared():
    runs = [r for r in toy_runs(-0.05) if not (r["method"] == "ours" and r["seed"] > 3)]
    assert paired.paired(runs, "ours", "plain", lambda r: r["error"], lower=True).pairs == 16
    with pytest.raises(SystemExit, match="mixup"):
        paired.paired(runs, "mixup", "plain", lambda r: r["error"], lower=True)


def test_every_quoted_table_is_what_the_committed_runs_say():
    for page in tables.pages():
        assert tables.written(page.read_text()) == page.read_text(), f"run `make tables`: {page.name}"


def test_rivals_stand_against_the_default_on_shared_runs(tmp_path):
    rows = [
        {"model": "m", "set": s, "size": 1, "seed": k, "method": m, "temperature": None, "metrics": {"test": scores(x)}}
        | ({"calibrated": {"challenged temperature": {"metrics": {"test": scores(0.1)}}}} if m == "plain" else {})
        for s in "ab"
        for k in range(3)
        for m, x in (("plain", 0.3), ("smooth", 0.05))
        if (m, k) != ("smooth", 2)
    ]
    (tmp_path / "texts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain, smooth = "+0.200 [+0.200, +0.200]", "-0.050 [-0.050, -0.050]"
    shown = tables.written("<!-- table: against:texts -->\n<!-- end of table -->", tmp_path).splitlines()
    error = "+0.000 [+0.000, +0.000]"
    assert shown[3:5] == [
        f"| smooth | 4 | {error} | {smooth} | {smooth} | {smooth} |",
        f"| plain | 6 | {error} | {plain} | {plain} | {plain} |",
    ]


def scores(x):
    return {"accuracy": 0.5, "ece": x, "nll": x, "brier": x}


def test_the_latest_of_a_cells_runs_counts(tmp_path):
    rows = [{"model": "m", "set": "s", "size": 1, "seed": 0, "method": "plain", "fingerprint": x} for x in "ab"]
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert [r["fingerprint"] for r in tables.runs_of("e", tmp_path)] == ["b"]


def test_diversity_is_averaged_by_method_and_set():
    rows = [
        {"method": m, "set": s, "diversity": {"effective_rank": r, "filter_cosine": 0.25}}
        for m, s, r in (("plain", "a", 2.0), ("plain", "a", 4.0), ("plain", "b", 7.0), ("ours", "a", 9.0))
    ]
    shown = tables.diversity_table([*rows, {"method": "plain", "set": "a"}]).splitlines()
    assert shown[2:] == ["| plain | 3 | 3.0 | 0.250 | 7.0 | 0.250 |", "| ours | 1 | 9.0 | 0.250 |  |  |"]
