"""py.typed holds: a strict user's mypy accepts correct code, and finds mistakes and whatever lost its types."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONSUMER = Path(__file__).with_name("consumer.py")
pytest.importorskip("mypy", reason="it is in the extra dev")


def mypy(package: Path, file: Path, cache: Path) -> str:
    """What a strict mypy says of a file; it finds the package as an installed one, so that errors inside are not shown."""
    config = cache.parent / "mypy.ini"
    # other packages are large: their names count as Any here, which takes seconds instead of minutes.
    config.write_text(
        "[mypy]\nstrict = true\ndisallow_subclassing_any = false\nfollow_imports = skip\n"
        "[mypy-hf_challenger.*]\nfollow_imports = silent\n"
    )
    command = [sys.executable, "-m", "mypy", "--config-file", str(config), "--cache-dir", str(cache), str(file)]
    done = subprocess.run(
        command,
        env={"MYPYPATH": str(package), "PATH": ""},
        cwd=cache.parent,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_strict_user_gets_types_and_is_told_of_mistakes(tmp_path: Path) -> None:
    """One cache for all three runs: the standard library is read once."""
    cache = tmp_path / "cache"
    said = mypy(ROOT, CONSUMER, cache)
    assert "Success" in said, said

    wrong = tmp_path / "wrong.py"
    wrong.write_text("from hf_challenger import Chalenger\nfrom hf_challenger.predict import predict\npredict(1)\n")
    said = mypy(ROOT, wrong, cache)
    assert 'has no attribute "Chalenger"' in said
    assert 'Missing positional arguments "tokenizer", "texts"' in said

    shutil.copytree(ROOT / "hf_challenger", tmp_path / "package" / "hf_challenger")
    module = tmp_path / "package" / "hf_challenger" / "calibration" / "temperature.py"
    source = module.read_text(encoding="utf-8")
    typed = "def fit_temperature(logits: Array, labels: Array) -> float:"
    assert typed in source
    module.write_text(source.replace(typed, "def fit_temperature(logits, labels):"), encoding="utf-8")
    assert 'untyped function "fit_temperature"' in mypy(tmp_path / "package", CONSUMER, cache)
