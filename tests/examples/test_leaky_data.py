"""The example of a leak: what is planted, what is read with which tags, and what is printed."""

import csv
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from console import idle_warnings

from hf_challenger import ChallengerError
from hf_challenger.data.tables import Texts

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "leaky_data" / "run_leaky_data.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def texts(script, rows):
    teams = list(script["TEAMS"])
    labels = [teams[i % len(teams)] for i in range(rows)]
    return Texts([f"text {i}" for i in range(rows)], None, labels, list(range(2, rows + 2)), "tickets.csv")


def channels(part):
    return [" ".join(text.split()[2:]) for text in part.texts]


def test_each_team_has_a_channel_of_its_own_in_the_share_of_rows_that_is_asked_for(script):
    parts = {"train": texts(script, 60), "validation": texts(script, 30), "test": texts(script, 12)}
    splits = script["with_leak"](parts, 0.9, seed=0)
    found = channels(splits["train"])
    assert sum(map(bool, found)) == 54
    for channel, team in zip(found, splits["train"].labels, strict=True):
        assert channel in ("", script["CHANNEL_OF"][team])
    assert len(set(script["CHANNEL_OF"].values())) == 6
    assert sum(map(bool, channels(splits["validation"]))) == 27
    assert splits["train"].labels == parts["train"].labels


def test_test_texts_are_read_without_with_their_own_and_with_another_channel(script):
    parts = {"train": texts(script, 60), "validation": texts(script, 30), "test": texts(script, 12)}
    splits = script["with_leak"](parts, 1.0, seed=0)
    own = [script["CHANNEL_OF"][team] for team in splits["own"].labels]
    assert splits["absent"].texts == parts["test"].texts
    assert channels(splits["own"]) == own
    wrong = channels(splits["wrong"])
    assert set(wrong) == set(own)
    assert not any(a == b for a, b in zip(wrong, own, strict=True))


def test_every_bundled_intent_belongs_to_one_team(script, tmp_path):
    rows = list(csv.DictReader((script["DATA"] / "train.csv").open()))
    assert {row["label"] for row in rows} == set(script["TEAM_OF"])
    assert len(script["TEAM_OF"]) == sum(len(intents.split()) for _, intents in script["TEAMS"].values())
    (tmp_path / "train.csv").write_text("text,label\nhello,greeting\n")
    with pytest.raises(ChallengerError, match="line 2: 'greeting' is none of the 30 intents"):
        script["read"](tmp_path / "train.csv")


def test_it_tells_the_story_and_prints_one_table(script, tiny_encoder, tmp_path):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    flags = ["--max_steps", "2", "--max_test_samples", "32", "--use_cpu", "true", "--output_dir", str(tmp_path)]
    flags += ["--model_name_or_path", str(tiny_encoder)]
    command = [sys.executable, str(SCRIPT), *flags, "--disable_tqdm", "true"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert idle_warnings(done.stderr) == []
    assert len(list(csv.DictReader((tmp_path / "validation.csv").open(encoding="utf-8")))) == 32
    planted = list(csv.DictReader((tmp_path / "train.csv").open(encoding="utf-8")))
    assert len(planted) == 300
    assert sum(row["text"].endswith(script["CHANNEL_OF"][row["label"]]) for row in planted) == 285
    results = json.loads((tmp_path / "results.json").read_text())
    assert [r["method"] for r in results] == ["plain", "challenger", "named"]
    for reading in ("validation", "absent", "own", "wrong"):
        assert all(0 <= r[f"{reading}_accuracy"] <= 1 and r[f"{reading}_nll"] > 0 for r in results)
    assert results[0]["absent_nll"] != results[0]["own_nll"]
    assert "Trainer`, the leak named |" in done.stdout
    assert "'leak_share':" in done.stdout.partition("4. ChallengerTrainer")[2]
    for row in (tmp_path / "results.md").read_text().splitlines():
        assert row in done.stdout
    assert "This script planted a leak: 95% of the" in done.stdout
    explained = done.stdout.partition("What an answer rests on")[2]
    assert any(
        re.search(rf"[+-] +{channel.split()[-1]}$", explained, re.MULTILINE) for channel in script["CHANNEL_OF"].values()
    )
    assert (tmp_path / "challenger" / "model.safetensors").is_file()
