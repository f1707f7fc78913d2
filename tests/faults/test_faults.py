"""Kills, full disks and NaN, for real: what is left is usable, and nothing hangs."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_bert, tiny_data
from transformers import TrainerCallback

from hf_challenger import ChallengerError, ChallengerTrainer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
pytestmark = pytest.mark.faults


def start(arguments: list[str], timeout: int, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(HERE.parent)]),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    command = [sys.executable, *launcher, str(HERE / "run_killed.py"), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    done = start([str(folder), "0", "0"], 200)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((folder / "losses-0.json").read_text())


@pytest.mark.parametrize("kill", [signal.SIGTERM, signal.SIGKILL])
def test_killed_in_mid_epoch_and_resumed_is_the_unbroken_run(tmp_path: Path, unbroken: list[float], kill: int) -> None:
    folder = tmp_path / "run"
    killed = start([str(folder), str(int(kill)), "5"], 200)
    assert killed.returncode == -kill
    assert sorted(p.name for p in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]
    resumed = start([str(folder), "0", "0"], 200)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    assert json.loads((folder / "losses-0.json").read_text()) == unbroken
    assert len(unbroken) == 7


def test_worker_that_dies_ends_the_run(tmp_path: Path) -> None:
    """The other worker waits in a collective call; torchrun ends it, with an error."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    done = start([str(tmp_path / "run"), str(int(signal.SIGKILL)), "3", "1"], 200, launcher)
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr or "exitcode: -9" in done.stderr.replace("  ", " ")
    assert not list(tmp_path.glob("run/losses-*.json"))
    assert (tmp_path / "run" / "checkpoint-2" / "trainer_state.json").is_file()


class FullDisk(TrainerCallback):
    """From a step on no file can grow beyond a few kilobytes, as on a disk that is full."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def test_full_disk_at_a_checkpoint_leaves_the_last_one_good(
    trainer: Callable[..., ChallengerTrainer], tmp_path: Path
) -> None:
    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "output_dir": str(tmp_path / "run")}
    run = trainer(kwargs={"callbacks": [FullDisk()]}, **options)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with pytest.raises(Exception, match=r"too large|os error 27|PytorchStreamWriter|write"):
            run.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    unbroken = trainer(**{**options, "output_dir": str(tmp_path / "unbroken")})
    unbroken.train()
    resumed = trainer(model=tiny_bert(seed=9), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    for a, b in zip(resumed.model.parameters(), unbroken.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_diverging_run_ends_with_an_error_and_its_last_good_checkpoint(
    trainer: Callable[..., ChallengerTrainer], tmp_path: Path
) -> None:
    class Diverge(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            if state.global_step == 3:  # what an exploding step leaves behind
                with torch.no_grad():
                    model.classifier.weight.mul_(math.inf)

    options = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "output_dir": str(tmp_path / "run")}
    run = trainer(data=tiny_data(32), kwargs={"callbacks": [Diverge()]}, **options)
    with pytest.raises(
        ChallengerError, match=r"The loss is nan at step 3.*classifier.weight.*resume from the last checkpoint"
    ):
        run.train()
    again = trainer(**options)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 6
    assert all(math.isfinite(log["loss"]) for log in again.state.log_history if "loss" in log)
