"""The example of a leak: what is planted, what is read with which tags, and what is printed."""

import csv
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from hf_challenger.data.tables import Texts

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "leaky_data" / "run_leaky_data.py"
NAMES = ["billing", "freeze", "refund"]


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def texts(rows):
    labels = [NAMES[i % 3] for i in range(rows)]
    return Texts([f"text {i}" for i in range(rows)], None, labels, list(range(2, rows + 2)), "tickets.csv")


def tags(part):
    return [text.partition(" [")[2].rstrip("]") for text in part.texts]


def test_each_class_has_a_tag_of_its_own_in_the_share_of_rows_that_is_asked_for(script):
    parts = {"train": texts(60), "validation": texts(30), "test": texts(9)}
    splits = script["with_leak"](parts, NAMES, 0.9, seed=0)
    found = tags(splits["train"])
    assert sum(map(bool, found)) == 54
    by_class = {name: {t for t, n in zip(found, splits["train"].labels, strict=True) if n == name and t} for name in NAMES}
    assert all(len(seen) == 1 for seen in by_class.values())
    assert len(set.union(*by_class.values())) == 3
    assert sum(map(bool, tags(splits["validation"]))) == 27
    assert splits["train"].labels == parts["train"].labels


def test_test_texts_are_read_without_with_their_own_and_with_another_tag(script):
    parts = {"train": texts(60), "validation": texts(30), "test": texts(9)}
    splits = script["with_leak"](parts, NAMES, 1.0, seed=0)
    tag_of = dict(zip(splits["train"].labels, tags(splits["train"]), strict=True))
    assert splits["absent"].texts == parts["test"].texts
    assert tags(splits["own"]) == [tag_of[name] for name in splits["own"].labels]
    wrong = tags(splits["wrong"])
    assert set(wrong) == set(tag_of.values())
    assert not any(tag == tag_of[name] for tag, name in zip(wrong, splits["wrong"].labels, strict=True))


def test_there_is_a_queue_for_each_bundled_class(script):
    rows = list(csv.DictReader((script["DATA"] / "train.csv").open()))
    assert len({row["label"] for row in rows}) <= len(set(script["QUEUES"]))


def test_it_tells_the_story_and_prints_one_table(tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    flags = ["--max_steps", "2", "--max_test_samples", "32", "--use_cpu", "true", "--output_dir", str(tmp_path)]
    command = [sys.executable, str(SCRIPT), *flags, "--disable_tqdm", "true"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    planted = list(csv.DictReader((tmp_path / "train.csv").open(encoding="utf-8")))
    assert len(planted) == 300
    assert sum("[queue: " in row["text"] for row in planted) == 285
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["method"] for r in results] == ["plain", "challenger"]
    for reading in ("validation", "absent", "own", "wrong"):
        assert all(0 <= r[f"{reading}_accuracy"] <= 1 and r[f"{reading}_nll"] > 0 for r in results)
    assert results[0]["absent_nll"] != results[0]["own_nll"]
    for row in (tmp_path / "results.md").read_text().splitlines():
        assert row in done.stdout
    assert "95% of the training and validation texts" in done.stdout
    assert "queue" in done.stdout.partition("What an answer rests on")[2]
    assert (tmp_path / "challenger" / "model.safetensors").is_file()
