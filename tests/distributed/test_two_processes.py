"""Two gloo processes on the CPU, started by torchrun: the same gradients, masks, logs and metrics as one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from launch import torchrun
from run_two import train

# A run on two processes, and what a single process must be given to match it.
CHALLENGED = {"challenge_selection": "sample", "challenge_share": 0.5, "challenge_rate": 0.3, "calibrate": False}
BY_8 = {"per_device_train_batch_size": 8}
BY_16 = {"per_device_train_batch_size": 16}
TWICE_4 = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
CUES = {"challenge_share": 0.5, "challenge_threshold": 0.3, "calibrate": False, "num_train_epochs": 12}
# 21 rows in batches of 4 on two processes: accelerate fills the last pair of batches up from the start of the data.
UNEVEN = [*range(21)]
UNEVEN_AS_SEEN = [*range(21), 0, 1, 2]

PAIRS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "challenged": ({"options": CHALLENGED | BY_8}, {"options": CHALLENGED | BY_16}),
    "accumulated": ({"options": CHALLENGED | TWICE_4}, {"options": CHALLENGED | BY_16}),
    "cues": (
        {"options": CUES | BY_8, "leaky": True},
        {"options": CUES | BY_16, "leaky": True},
    ),
    "cues_accumulated": (
        {"options": CUES | TWICE_4, "leaky": True},
        {"options": CUES | BY_16, "leaky": True},
    ),
    "plain": ({"options": {"challenge_share": 0.0} | BY_8}, {"options": {"challenge_share": 0.0} | BY_16}),
    "calibrated": (
        {"options": CHALLENGED | {"calibrate": True, "per_device_eval_batch_size": 4} | BY_8},
        {"options": CHALLENGED | {"calibrate": True, "per_device_eval_batch_size": 8} | BY_16},
    ),
    "plain_accumulated": ({"options": {"challenge_share": 0.0} | TWICE_4}, {"options": {"challenge_share": 0.0} | BY_16}),
    "multi_label": (
        {"options": CHALLENGED | BY_8, "problem": "multi_label_classification"},
        {"options": CHALLENGED | BY_16, "problem": "multi_label_classification"},
    ),
    "regression": (
        {"options": CHALLENGED | BY_8, "problem": "regression"},
        {"options": CHALLENGED | BY_16, "problem": "regression"},
    ),
    "uneven_last_batch": (
        {"options": CHALLENGED | {"per_device_train_batch_size": 4}, "rows": UNEVEN},
        {"options": CHALLENGED | BY_8, "rows": UNEVEN_AS_SEEN},
    ),
    "static_graph": ({"options": CHALLENGED | BY_8, "static_graph": True}, {"options": CHALLENGED | BY_16}),
    "find_unused_parameters": (
        {"options": CHALLENGED | BY_8 | {"ddp_find_unused_parameters": True}},
        {"options": CHALLENGED | BY_16},
    ),
}


@pytest.fixture(scope="module")
def both_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two ranks saw of every run, all made in one launch."""
    folder = tmp_path_factory.mktemp("two")
    done = torchrun("run_two.py", str(folder), json.dumps({name: two for name, (two, _) in PAIRS.items()}))
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", PAIRS)
def test_two_processes_are_one(both_ranks: list[dict[str, Any]], tmp_path: Path, name: str) -> None:
    first, second = (rank[name] for rank in both_ranks)
    one = train(str(tmp_path), **PAIRS[name][1])
    assert (first["processes"], one["processes"]) == (2, 1)
    assert first["wrapper"] == "DistributedDataParallel"
    assert first["static_graph"] == (name == "static_graph")
    assert len(first["gradients"]) == len(one["gradients"]) > 1
    for a, b, c in zip(first["gradients"], second["gradients"], one["gradients"], strict=True):
        assert torch.equal(a, b)  # in sync
        assert float((a - c).norm() / c.norm()) < 1e-6  # and what one process computes
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))
    assert first["temperature"] == second["temperature"]
    assert (one["temperature"] is not None) == (name == "calibrated")
    if one["temperature"] is not None:
        assert first["temperature"] == pytest.approx(one["temperature"], rel=1e-6)
    assert sorted(first["masks"] + second["masks"]) == sorted(one["masks"])
    assert any(any(mask) for _, _, mask in one["masks"]) != name.startswith("plain")
    assert len(first["cues"]) == len(second["cues"]) == len(one["cues"])
    assert bool(one["cues"]) == name.startswith("cues")
    for a, b, c in zip(first["cues"], second["cues"], one["cues"], strict=True):
        assert a == b
        assert a[:3] == c[:3]
        assert a[3:] == pytest.approx(c[3:], rel=1e-4)
    for a, b in zip(first["logs"], one["logs"], strict=True):
        for key in {"loss", "challenged_share", "cues_found"} & set(b):
            assert a[key] == pytest.approx(b[key], rel=1e-4), key
    for key, value in one["metrics"].items():
        if key.endswith(("loss", "accuracy", "ece", "nll", "brier")):
            # Trainer's own eval_loss averages batches, in which the rows that fill up the last one count too.
            tolerance = 0.2 if key == "eval_loss" else 1e-4
            assert first["metrics"][key] == second["metrics"][key] == pytest.approx(value, rel=tolerance), key
