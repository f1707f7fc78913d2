"""The Python of docs/quickstart.md trains what the example script trains, to the last bit of its weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from blocks import ROOT, blocks, run
from safetensors.torch import load_file
from surroundings import csv_files, encoder

SCRIPT = ROOT / "examples" / "text_classification" / "run_text_classification.py"
# Where the model is saved and what is logged.
NO_MATTER = {"output_dir", "logging_dir", "logging_steps", "report_to", "run_name", "dataloader_pin_memory"}
NO_MATTER |= {"per_device_eval_batch_size", "disable_tqdm"}  # of evaluations; of the verbosity that other tests set


def test_the_python_of_the_quick_start_is_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    csv_files(tmp_path)
    encoder(tmp_path)
    tiny = "sentence-transformers/all-MiniLM-L6-v2"
    flags = [
        "--train_file",
        "train.csv",
        "--test_file",
        "test.csv",
        "--model_name_or_path",
        f"./{tiny}",
        "--output_dir",
        "out",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(SCRIPT), *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

    monkeypatch.setattr("hf_challenger.command_line.packaged_encoder", lambda: f"./{tiny}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (block,) = (block for block in blocks("docs/quickstart.md") if block.language == "python")
    names: dict[str, Any] = {}
    run(block, names, environment)

    script, python = (
        torch.load(folder / "training_args.bin", weights_only=False) for folder in (Path("out/challenger"), Path("my-model"))
    )
    differ = {name for name in vars(script) if str(getattr(script, name)) != str(getattr(python, name))}
    assert differ - NO_MATTER == set()
    assert (python.learning_rate, python.warmup_steps, python.num_train_epochs) == (3e-4, 0.1, 15)
    weights, others = load_file("out/challenger/model.safetensors"), load_file("my-model/model.safetensors")
    assert weights.keys() == others.keys()
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert Path("out/challenger/cues.json").read_text() == Path("my-model/cues.json").read_text()
    (result,) = json.loads(Path("out/results.json").read_text())
    evaluated = [log for log in names["trainer"].state.log_history if "eval_nll" in log][-1]
    assert evaluated["eval_nll"] == pytest.approx(result["test_nll"], rel=1e-5)
