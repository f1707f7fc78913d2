#!/usr/bin/env python
"""From the runner's JSON lines (``runs/<experiment>.jsonl``, not in git) to the csv that tables are made of (``results/<experiment>.csv``).

    python benchmarks/export.py texts

The csv is in long format: one row a run, test part and reading. A temperature that was fitted beside a run makes a method of its own
("plain, temperature scaled"). Columns that no row fills are left out.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from plant import NAMED, is_mark

HERE = Path(__file__).parent
RUNS, RESULTS = HERE / "runs", HERE / "results"

CELL = ("model", "set", "size", "method", "seed", "cue", "strength")  # one run; of runs of one cell the last counts
KEY = (*CELL, "part", "reading")  # one row
SCORES = ("accuracy", "ece", "nll", "brier")
# Entries of a run that hold a dict of numbers: each number is a column.
FURTHER = ("diversity",)
SCALED = "plain"  # the method that is reported with temperature scaling as well
Row = dict[str, Any]


def rows_of(run: dict[str, Any]) -> Iterator[Row]:
    """The rows of one run.

    Args:
        run: with the entries of :data:`CELL` (cue and strength may be missing), ``metrics`` as test part → scores, and
            ``seconds``. A part is named ``part`` or ``part/reading``: ``test/absent`` is part ``test``, reading ``absent``.
    """
    cell = {name: run[name] for name in CELL if run.get(name) is not None}
    # CPU time of the run's one thread; wall time where that was not measured.
    seconds = {"seconds": round(run.get("cpu_seconds") or run["seconds"], 1)}
    seconds |= {k: float(f"{v:.4g}") for name in FURTHER for k, v in (run.get(name) or {}).items()} | cues_of(run)
    for name, scores in run["metrics"].items():
        part, _, reading = name.partition("/")
        place = {"part": part, "reading": reading, "rows": scores["rows"]}
        yield {**cell, **place, **{k: scores[k] for k in SCORES}, **seconds}
        if run["method"] == SCALED and "nll_scaled" in scores:
            method = {"method": f"{SCALED}, temperature scaled"}
            yield {**cell, **method, **place, **{k: scores[f"{k}_scaled"] for k in SCORES}}
        for temperature, found in (run.get("calibrated") or {}).items():
            method = {"method": f"{run['method']}, {temperature}"}
            yield {**cell, **method, **place, **{k: found["metrics"][name][k] for k in SCORES}}


def cues_of(run: dict[str, Any]) -> dict[str, int]:
    """How many cues a run found; of planted text cues also how many are marks, and whether the first of them is (1 or 0)."""
    cue, cues = run.get("cue"), run.get("cues")
    if cues is None or cue is None:
        return {}
    found = {"cues": len(cues)}
    if cue in NAMED:
        marks = [is_mark(c["cue"], cue, c["class"]) for c in cues]
        found |= {"marks": sum(marks), "mark_first": int(bool(marks) and marks[0])}
    return found


def export(experiment: str, runs: Path = RUNS, results: Path = RESULTS, replace: bool = False) -> Path:
    """Write the csv of an experiment from its JSON lines.

    Raises:
        SystemExit: there are no JSON lines, or the csv holds runs that they lack and ``replace`` is off.
    """
    source, target = runs / f"{experiment}.jsonl", results / f"{experiment}.csv"
    if not source.is_file():
        raise SystemExit(f"There is no {source}. Run benchmarks/run.py benchmarks/experiments/{experiment}.json first.")
    latest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in source.read_text().splitlines():
        try:
            run = json.loads(line)
        except json.JSONDecodeError:  # a write that was cut short; the runner does that run anew
            continue
        latest[tuple(run.get(name) for name in CELL)] = run
    rows = [row for run in latest.values() for row in rows_of(run)]
    if target.is_file() and not replace:
        missing = {_key(row) for row in read(target)} - {_key(row) for row in rows}
        if missing:
            raise SystemExit(
                f"{target} holds {len(missing)} rows that {source.name} lacks, for example"
                f" {' '.join(filter(None, sorted(missing)[0]))}. They would be lost: fetch those runs first, or call again with"
                " --replace."
            )
    write(target, rows)
    return target


def write(path: Path, rows: list[Row]) -> None:
    """One line a row, sorted, so that two exports of the same runs are equal; empty columns are left out."""
    names = dict.fromkeys((*CELL[:5], "part", "cue", "strength", "reading", "rows", *SCORES, "seconds"))
    names |= dict.fromkeys(name for row in rows for name in row)
    filled = [name for name in names if any(row.get(name) not in (None, "") for row in rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, filled, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=_order))


def read(path: Path) -> list[Row]:
    """The rows of a csv: entries of :data:`KEY` as strings, "" where the column is missing; others as numbers, left out where empty."""
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows = [
        dict.fromkeys(KEY, "") | {k: v if k in KEY else float(v) for k, v in line.items() if k in KEY or v} for line in lines
    ]
    keys = [_key(row) for row in rows]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise SystemExit(f"{path} holds two rows of the run {' '.join(filter(None, twice))}. Export it anew.")
    return rows


def _key(row: Row) -> tuple[str, ...]:
    return tuple("" if row.get(name) is None else str(row[name]) for name in KEY)


def _order(row: Row) -> tuple[Any, ...]:
    """By set, size and method, with numbers as numbers."""
    text = dict(zip(KEY, _key(row), strict=True))
    number = {name: float(text[name] or -1) for name in ("size", "seed", "strength")}
    names = ("cue", "strength", "model", "set", "size", "method", "part", "reading", "seed")
    return tuple(number.get(name, text[name]) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", nargs="+")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the JSON lines")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the csv files")
    parser.add_argument("--replace", action="store_true", help="also where the csv holds runs that the JSON lines lack")
    args = parser.parse_args()
    for experiment in args.experiment:
        print(export(experiment, args.runs, args.results, args.replace))


if __name__ == "__main__":
    main()
