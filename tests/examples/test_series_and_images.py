"""The examples for series and images, run as a user runs them: as processes of their own, on embedded real data."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("kind", "model"), [("image", "vit"), ("time_series", "patchtst")])
def test_compare_prints_a_table_and_saves_results_and_pictures(kind, model, tmp_path):
    script = ROOT / "examples" / f"{kind}_classification" / f"run_{kind}_classification.py"
    flags = ["--compare", "--model", model, "--max_steps", "4", "--output_dir", str(tmp_path), "--use_cpu", "true"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| `ChallengerTrainer` | " in done.stdout
    for method in ("plain", "challenger"):
        result = json.loads((tmp_path / method / f"{method}_results.json").read_text())
        assert 0 <= result["test_accuracy"] <= 1
        assert result["test_nll"] > 0
        assert (tmp_path / method / "model.safetensors").is_file()
    card = (tmp_path / "challenger" / "README.md").read_text()
    pictures = re.findall(r"\]\((pictures/.+?\.png)\)", card)
    assert pictures == ["pictures/reliability_diagram.png", *(f"pictures/heat_map_{i}.png" for i in (1, 2, 3))]
    assert all((tmp_path / "challenger" / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert "test, plain `Trainer`" in card
    assert {"image": "digits", "time_series": "BasicMotions"}[kind] in card
    assert "Warning" not in done.stderr, done.stderr
    for row in (tmp_path / "results.md").read_text().splitlines():
        assert row in done.stdout


def test_the_other_embedded_set_is_chosen_by_name(tmp_path):
    script = ROOT / "examples" / "time_series_classification" / "run_time_series_classification.py"
    flags = ["--set", "italypowerdemand", "--model", "fcn-small", "--max_steps", "4", "--output_dir", str(tmp_path)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *flags, "--use_cpu", "true"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "67 rows, 2 classes" in done.stdout
    assert "Warning" not in done.stderr, done.stderr
