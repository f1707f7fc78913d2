#!/usr/bin/env python
"""Whether the cue memory and the cue report stay flat or linear on large data; no model decides any of it.

    python benchmarks/large_data.py                  # minutes on one core; writes results/large_data.csv

Streamed: batches of 32 rows over 128,000 token ids are remembered; a line is the mean over the last tenth of the rows. Hidden: the
cues of 1,000 classes are looked up in 8 rows of some length. Report: 500 of so many rows are read with a tiny model.
"""

from __future__ import annotations

import argparse
import csv
import os
import pickle
import random
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
RESULTS = HERE / "results" / "large_data.csv"
VOCABULARY, BATCH = 128_000, 32
Line = dict[str, Any]


def streamed(classes: int, rows: int, points: int) -> tuple[list[Line], Any]:
    """Seconds of ``remember`` a batch, and the memory's size, at so many points of a stream in which every class has a cue."""
    import torch

    from hf_challenger.challenge.cues import UNITS, CueMemory

    torch.manual_seed(0)
    memory, found, spent, batches = CueMemory(0.8), [], 0.0, 0
    for batch in range(rows // BATCH):
        labels = torch.randint(classes, (BATCH,))
        ids = torch.randint(1000, VOCABULARY, (BATCH, UNITS))
        ids[:, 0] = labels  # the cue
        shares = torch.full((BATCH, UNITS), 0.1 / UNITS)
        shares[:, 0] = 0.9
        keys = torch.arange(batch * BATCH, (batch + 1) * BATCH)
        began = time.perf_counter()
        memory.remember(labels, keys, ids, shares)
        spent, batches = spent + time.perf_counter() - began, batches + 1
        if (batch + 1) % (rows // BATCH // points) == 0:
            mib = len(pickle.dumps(memory.state_dict())) / 2**20
            line = {"what": f"streamed, {classes} classes", "size": (batch + 1) * BATCH, "seconds": spent / batches}
            found.append({**line, "mib": mib})
            spent, batches = 0.0, 0
    return found, memory


def hidden(memory: Any, lengths: tuple[int, ...]) -> list[Line]:
    import torch

    found = []
    for length in lengths:
        labels, ids = torch.randint(1000, (8,)), torch.randint(1000, VOCABULARY, (8, length))
        maskable, chosen = torch.ones_like(ids, dtype=torch.bool), torch.ones(8, dtype=torch.bool)
        memory.drop_mask(ids, maskable, labels, chosen)
        began = time.perf_counter()
        for _ in range(5):
            memory.drop_mask(ids, maskable, labels, chosen)
        found.append(
            {"what": "hidden, tokens a row", "size": length, "seconds": (time.perf_counter() - began) / 5, "mib": ""}
        )
    return found


def report(sizes: tuple[int, ...]) -> list[Line]:
    sys.path.insert(0, str(HERE.parent / "tests"))
    from tiny import tiny_bert, tiny_rows, tiny_tokenizer

    from hf_challenger.report.cue_report import cue_report

    some, model, found = tiny_rows(200), tiny_bert(), []
    for size in sizes:
        data = [random.Random(i).choice(some) for i in range(size)]
        began = time.perf_counter()
        cue_report(model, data, tiny_tokenizer())
        found.append({"what": "report, rows", "size": size, "seconds": time.perf_counter() - began, "mib": ""})
    return found


def table(path: Path = RESULTS) -> str:
    if not path.is_file():
        return "No results yet."
    lines = ["| what | size | seconds | MiB |", "|---|---|---|---|"]
    for row in csv.DictReader(path.open()):
        mib = f"{float(row['mib']):.1f}" if row["mib"] else ""
        lines.append(f"| {row['what']} | {int(row['size']):,} | {float(row['seconds']):.4f} | {mib} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)
    lines: list[Line] = []
    for classes in (10, 1000):
        found, memory = streamed(classes, args.rows, 4)
        lines += found
    lines += hidden(memory, (512, 1024, 2048, 4096))
    lines += report((args.rows // 100, args.rows // 10, args.rows))
    with args.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["what", "size", "seconds", "mib"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


if __name__ == "__main__":
    main()
