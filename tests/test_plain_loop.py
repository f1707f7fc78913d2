"""The example loop without Trainer: it runs, it learns, and it needs no challenge."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "examples" / "plain_loop" / "run_plain_loop.py"


@pytest.fixture
def example() -> Any:
    spec = importlib.util.spec_from_file_location("run_plain_loop", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_plain_loop_learns(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    accuracy = example.main(["--cpu", "--epochs", "4"])
    assert accuracy > 0.85
    assert "epoch 4: accuracy" in capsys.readouterr().out


def test_plain_loop_needs_no_challenge(example: Any) -> None:
    assert example.main(["--cpu", "--epochs", "1", "--share", "0"]) >= 0
