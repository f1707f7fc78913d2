#!/usr/bin/env python
"""Parallel efficiency of ChallengerTrainer beside Trainer's: two gloo processes against one, the same rows a process.

Efficiency is the time of a step on one process over that on two (which do twice the work); 1 is perfect. The runs of both
trainers take turns, and each of them trains through ``trainer.train()``.

    python benchmarks/two_processes.py               # writes results/two_processes.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]
RESULTS = HERE / "results" / "two_processes.json"
KINDS = ("plain", "challenger")


def worker(kind: str, rows: int, steps: int, output: Path) -> None:
    """Train, on one process of however many; the first one writes the seconds of each step."""
    import torch
    from methods import make_trainer
    from step_cost import build
    from transformers import TrainerCallback

    from hf_challenger import ChallengerConfig

    torch.set_num_threads(1)
    model, batch = build(f"minilm-{rows * steps * 2}x64")
    data = [{k: v[i] for k, v in batch.items()} for i in range(len(batch["labels"]))]

    class Clock(TrainerCallback):
        times: ClassVar[list[float]] = []

        def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.times.append(time.perf_counter() - self.began)

    config = ChallengerConfig(
        tempfile.mkdtemp(),
        report_to="none",
        use_cpu=True,
        per_device_train_batch_size=rows,
        max_steps=steps,
        save_strategy="no",
        disable_tqdm=True,
        challenge_threshold=0.0,
        challenge_share=0.5,  # also where that is not the default: it is the challenge in training that is timed
    )
    trainer = make_trainer(kind, {}, model=model, args=config, train_dataset=data)
    trainer.add_callback(Clock)
    trainer.train()
    if trainer.is_world_process_zero():
        output.write_text(json.dumps(Clock.times[2:]))  # the first steps allocate


def launch(kind: str, processes: int, args: argparse.Namespace) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "times.json")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        options = ["--worker", kind, "--rows", args.rows, "--steps", args.steps, "--output", output]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [*command, str(HERE / "two_processes.py"), *map(str, options)], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        times: list[float] = json.loads(output.read_text())
        return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8, help="a process")
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--worker", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.worker:
        worker(args.worker, args.rows, args.steps, args.output)
        return
    repeats = []
    for number in range(args.repeats):
        seconds = {kind: {n: statistics.mean(launch(kind, n, args)) for n in (1, 2)} for kind in KINDS}
        efficiency = {kind: s[1] / s[2] for kind, s in seconds.items()}
        repeats.append({"seconds": seconds, "efficiency": efficiency})
        print(
            f"[{number + 1}/{args.repeats}] efficiency: " + ", ".join(f"{k} {v:.3f}" for k, v in efficiency.items()),
            flush=True,
        )
    report = {
        "setting": f"MiniLM's shape, {args.rows} rows of 64 tokens a process, {args.steps - 2} steps, one thread a process",
        "cores": os.cpu_count(),
        "efficiency": {kind: statistics.mean(r["efficiency"][kind] for r in repeats) for kind in KINDS},
        "challenger_over_plain": [r["efficiency"]["challenger"] / r["efficiency"]["plain"] for r in repeats],
        "repeats": repeats,
    }
    args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(report["efficiency"], report["challenger_over_plain"])


if __name__ == "__main__":
    main()
