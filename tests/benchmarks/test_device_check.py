"""benchmarks/device_check.py: it refuses without a GPU, runs its small form on the CPU, and goes on where it stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def check(*options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "device_check.py"), *map(str, options)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_without_a_gpu_it_refuses_and_says_how_to_try_it() -> None:
    done = check()
    assert done.returncode == 2
    assert "there is no GPU that torch can use" in done.stderr


@pytest.mark.faults
def test_the_small_form_runs_every_part_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    folder, output = tmp_path / "toy", tmp_path / "check.json"
    folder.mkdir()
    for name, rows in (("train", 60), ("test", 20)):
        lines = [f"the film number {i} was {'good' if i % 2 else 'bad'} indeed,{i % 2}" for i in range(rows)]
        (folder / f"{name}.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    options = ("--device", "cpu", "--small", "--data_dir", tmp_path, "--set", "toy", "--output", output)
    done = check(*options)
    assert not done.returncode, done.stdout + done.stderr
    report = json.loads(output.read_text())
    assert report["device"] == "cpu"
    parts = report["parts"]
    assert {"ChallengerTrainer", "random hiding", "row-level LRP"} < {
        r["way"] for r in parts["step_cost tiny-8x16"]["results"]
    }
    assert parts["bf16"]["losses"][-1] < parts["bf16"]["losses"][0]
    assert len(parts["cue_cell"]["runs"]) == 4
    assert "skipped" in parts["fp16"]
    del parts["bf16"]
    output.write_text(json.dumps(report))
    again = check(*options)
    assert again.stdout.count("done before") == 5
    assert "bf16" in json.loads(output.read_text())["parts"]
