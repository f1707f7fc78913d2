"""The table of how soon planted cues are found."""

import csv
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def detection(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import detection

    yield detection
    sys.modules.pop("detection")


def test_only_runs_that_all_shares_have_are_compared(detection, tmp_path):
    rows = [
        ("1/2", 0, 10, 2), ("1/2", 1, 20, 2), ("1/2", 2, 30, 1),
        ("1/3", 0, 12, 2), ("1/3", 1, "", 0),
    ]  # fmt: skip
    path = tmp_path / "detection.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, detection.FIELDS)
        writer.writeheader()
        for share, seed, first, found in rows:
            writer.writerow(
                {"share": share, "set": "a", "cue": "word", "seed": seed, "first_step": first, "found": found, "classes": 2}
            )
    lines = detection.table(path).splitlines()
    assert lines[2:] == ["| 1/2 | 2 | 4 of 4 | 10 | 10 to 10 |", "| 1/3 | 2 | 2 of 4 | 12 | 12 to 12 |"]
