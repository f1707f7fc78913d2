#!/usr/bin/env python
"""How soon a planted cue is found, by the share of the steps that attribute their rows.

    python benchmarks/detection.py --data_dir DATA       # resumable; writes results/detection.csv

MiniLM, 100 texts of development sets, 200 steps of 8 rows, a cue in 95 % of the rows. A run ends once each class's planted cue is known.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import os
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
RESULTS = HERE / "results" / "detection.csv"
SHARES = {"1/2": 1 / 2, "1/3": 1 / 3, "1/4": 1 / 4, "1/6": 1 / 6}
SETS, CUES, SEEDS, STEPS = ("sst2", "trec"), ("word", "phrase"), (0, 1, 2), 200
FIELDS = ("share", "set", "cue", "seed", "first_step", "found", "classes", "all_step")


def run(data_dir: Path, share: str, name: str, cue: str, seed: int) -> dict[str, Any]:
    """Steps after which the first planted cue and the last one were known; empty: not within the training."""
    import torch
    from plant import is_mark
    from sets import load
    from transformers import TrainerCallback, set_seed

    from hf_challenger import ChallengerConfig, ChallengerTrainer
    from hf_challenger.challenge import challenger

    torch.set_num_threads(1)
    challenger.ATTRIBUTED = SHARES[share]
    task = load("minilm", data_dir, name, 100, seed, "development", cue, 0.95)
    set_seed(seed)
    model, tokenizer = task.build()
    seen: dict[int, int] = {}  # class -> step after which its planted cue was known

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            for found in trainer.cues:
                if is_mark(found.text, cue, found.label):
                    seen.setdefault(found.label, state.global_step)
            control.should_training_stop = len(seen) == model.config.num_labels

    with tempfile.TemporaryDirectory() as folder:
        config = ChallengerConfig(
            folder,
            seed=seed,
            max_steps=STEPS,
            learning_rate=1e-4,
            warmup_steps=0.1,
            per_device_train_batch_size=8,
            weight_decay=0.01,
            optim="adamw_torch_fused",
            calibrate=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            log_level="error",
        )
        trainer = ChallengerTrainer(model, config, train_dataset=task.train, processing_class=tokenizer, callbacks=[Watch()])
        trainer.train()
    complete = len(seen) == model.config.num_labels
    return {
        "share": share,
        "set": name,
        "cue": cue,
        "seed": seed,
        "found": len(seen),
        "classes": model.config.num_labels,
        "first_step": min(seen.values(), default=""),
        "all_step": max(seen.values()) if complete else "",
    }


def table(results: Path) -> str:
    """One line a share: mean steps, over the runs in which all shares found something, and how many of the cues were found."""
    with results.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    by_share: dict[str, dict[tuple[str, ...], dict[str, str]]] = defaultdict(dict)
    for row in rows:
        by_share[row["share"]][row["set"], row["cue"], row["seed"]] = row
    known = [share for share in SHARES if share in by_share]
    common = set.intersection(*(set(by_share[share]) for share in known))
    everywhere = [key for key in common if all(by_share[share][key]["first_step"] for share in known)]
    lines = ["| share of the steps | runs | planted cues found | first one at step, mean | range |", "|---|---|---|---|---|"]
    for share in known:
        runs = [by_share[share][key] for key in common]
        found, classes = (sum(int(row[field]) for row in runs) for field in ("found", "classes"))
        steps = [int(by_share[share][key]["first_step"]) for key in everywhere]
        lines.append(f"| {share} | {len(runs)} | {found} of {classes} | {fmean(steps):.0f} | {min(steps)} to {max(steps)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with a folder for each set")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    done: set[tuple[str, ...]] = set()
    if args.results.is_file():
        with args.results.open(encoding="utf-8") as file:
            done = {(row["share"], row["set"], row["cue"], row["seed"]) for row in csv.DictReader(file)}
    with args.results.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        if not done:
            writer.writeheader()
        for seed, cue, name, share in itertools.product(SEEDS, CUES, SETS, SHARES):
            if (share, name, cue, str(seed)) not in done:
                writer.writerow(row := run(args.data_dir, share, name, cue, seed))
                file.flush()
                print(row, flush=True)
    print(table(args.results))


if __name__ == "__main__":
    main()
