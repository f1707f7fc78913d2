"""FSDP2 on two gloo processes: sharded parameters, and still the masks and weights of one process."""

from __future__ import annotations

from pathlib import Path

import run_fsdp2
import torch
from launch import torchrun
from tiny import tiny_bert


def test_sharded_training_is_that_of_one_process(tmp_path: Path) -> None:
    done = torchrun("run_fsdp2.py", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert all(first["sharded"])  # else it was DDP in disguise
    chosen = list(zip(first["chosen"], second["chosen"], strict=True))
    assert any(0 in pair and max(pair) > 0 for pair in chosen), chosen  # one rank challenged while the other did not
    model = tiny_bert().double()
    one = run_fsdp2.train(model, 0, 1)
    size = run_fsdp2.ROWS // 2
    joined = [
        mask
        for step in range(run_fsdp2.STEPS)
        for rank in (first, second)
        for mask in rank["masks"][step * size : (step + 1) * size]
    ]
    assert joined == one["masks"]
    for a, b, c in zip(first["losses"], second["losses"], one["losses"], strict=True):
        assert abs((a + b) / 2 - c) < 1e-9
    for name, parameter in model.named_parameters():
        assert torch.allclose(first["weights"][name], parameter, atol=1e-9), name
