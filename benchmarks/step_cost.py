#!/usr/bin/env python
"""What a step costs: time and peak memory over those of a step of Trainer on the same batches.

A step is ``training_step`` of the real trainer, the optimizer's step and ``zero_grad``. A stretch is so many steps in a row, of
which exactly the share attributes that the rate says; one cue is known and hidden. The ways of training take turns step by step
in one process on the same batches, so that a machine that slows down slows all of them. A ratio compares the whole stretch. One
thread on a CPU is timed by the processor's clock, which other jobs do not move.

    python benchmarks/step_cost.py                   # the cases of the device; writes results/step_cost.json, page and picture
    python benchmarks/step_cost.py --device cuda     # bf16, the larger cases
    python benchmarks/step_cost.py --profile         # the same, and where the time of a stretch goes
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
RESULTS = HERE / "results" / "step_cost.json"
PICTURE = HERE.parent / "docs" / "pictures" / "step_cost.png"

BERTS = {  # hidden, layers, heads, intermediate: all-MiniLM-L6-v2, BERT-base, and one for tests
    "minilm": (384, 6, 12, 1536),
    "base": (768, 12, 12, 3072),
    "tiny": (32, 2, 2, 64),
}
CASES = {"cpu": ["minilm-16x64", "base-8x128"], "cuda": ["base-32x128", "modernbert-8x1024", "decoder1b-4x512"]}
SETTLED = "ChallengerTrainer, memory settled"
WAYS: dict[str, dict[str, Any] | None] = {
    "Trainer": None,
    "ChallengerTrainer": {},  # while its memory is not settled
    SETTLED: {},
    "random hiding": {"challenge_selection": "random", "challenge_attribution": "none"},
    "row-level LRP": {"challenge_selection": "top"},
}
CUE = 999  # a token in every row of class 1


def build(case: str) -> tuple[Any, dict[str, Any]]:
    """Model with random weights, which no time depends on, and one batch that holds a cue."""
    import torch
    from transformers import (
        BertConfig,
        BertForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
        ModernBertConfig,
        ModernBertForSequenceClassification,
    )

    torch.manual_seed(0)
    name, _, shape = case.partition("-")
    rows, length = map(int, shape.split("x"))
    labels = torch.arange(rows) % 2
    ids = torch.randint(1000, 20000, (rows, length))
    ids[labels == 1, 3] = CUE
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    if name == "modernbert":
        return ModernBertForSequenceClassification(ModernBertConfig()), batch
    if name == "decoder1b":
        from peft import LoraConfig, TaskType, get_peft_model

        config = LlamaConfig(
            vocab_size=128256,
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=16,
            num_attention_heads=32,
            num_key_value_heads=8,
            pad_token_id=0,
        )
        lora = LoraConfig(task_type=TaskType.SEQ_CLS, r=8, target_modules=["q_proj", "v_proj"])
        return get_peft_model(LlamaForSequenceClassification(config), lora), batch
    hidden, layers, heads, intermediate = BERTS[name]
    config = BertConfig(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=intermediate
    )
    return BertForSequenceClassification(config), batch


def step_numbers(seed: int, share: float) -> Iterator[int]:
    """Numbers of steps without end, evenly spread, of which just that share attributes: few drawn steps would hold more or fewer."""
    from hf_challenger.challenge.challenger import STEPS
    from hf_challenger.keyed_random import keyed_uniform

    attributes, others = (
        (n for n in itertools.count() if (float(keyed_uniform(seed, STEPS, n)) < share) == wanted)
        for wanted in (True, False)
    )
    every = round(1 / share)
    for n in itertools.count(1):
        yield next(others if n % every else attributes)


def trainers(case: str, ways: list[str], args: argparse.Namespace) -> tuple[dict[str, Callable[[], None]], Any]:
    """One call a way of training: a step on the case's batch."""
    import torch
    from transformers import Trainer

    from hf_challenger import ChallengerConfig, ChallengerTrainer
    from hf_challenger.challenge import ChallengeOptions, Cue
    from hf_challenger.challenge.challenger import ATTRIBUTED, ATTRIBUTED_SETTLED

    torch.set_num_threads(args.threads)
    model, batch = build(case)
    cue = Cue(1, CUE, (CUE,), 1.0, 0.9)
    steps: dict[str, Callable[[], None]] = {}
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.to("cpu" if args.device == "cpu" else "cuda")
    optimizer = torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    for way in ways:
        options = WAYS[way]
        config = ChallengerConfig(
            tempfile.mkdtemp(),
            report_to="none",
            use_cpu=args.device == "cpu",
            bf16=args.device == "cuda",
            per_device_train_batch_size=len(batch["labels"]),
            **(options or {}),
        )
        trainer: Any = (Trainer if options is None else ChallengerTrainer)(model=model, args=config)
        trainer.current_gradient_accumulation_steps = 1
        model.to(config.device)
        inputs = {k: v.to(config.device) for k, v in batch.items()}
        if options is not None:
            challenger = trainer._challenger_for(model, ChallengeOptions.of(config))
            challenger.memory.load_state_dict({"rows": {}, "cues": [vars(cue)]})

        numbers = step_numbers(config.seed, ATTRIBUTED_SETTLED if way == SETTLED else ATTRIBUTED)

        def step(
            trainer: Any = trainer, inputs: Any = inputs, settled: bool = way == SETTLED, numbers: Any = numbers
        ) -> None:
            trainer.state.global_step = next(numbers)
            if getattr(trainer, "_challenger", None) is not None:  # which of its rates the memory is fed at
                trainer._challenger.memory._rows_since_news = 10**9 if settled else -(10**9)
            trainer.training_step(model, dict(inputs))
            optimizer.step()
            model.zero_grad()
            if getattr(trainer, "_challenger", None) is not None:
                trainer._challenger.update()
            if args.device == "cuda":
                torch.cuda.synchronize()

        steps[way] = step
    return steps, model


def seconds(call: Callable[[], Any], args: argparse.Namespace) -> float:
    clock = time.process_time if args.device == "cpu" and args.threads == 1 else time.perf_counter
    began = clock()
    call()
    return clock() - began


def measure(case: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """One dict a way of training: the ratio of each stretch to Trainer's."""
    steps, _ = trainers(case, args.ways, args)
    for step in steps.values():
        step()  # first calls allocate
    spent: list[dict[str, float]] = []
    for _ in range(args.repeats):
        sums = dict.fromkeys(steps, 0.0)
        for n in range(args.steps):
            order = list(steps) if n % 2 else list(steps)[::-1]
            for way in order:
                sums[way] += seconds(steps[way], args)
        spent.append(sums)
    return [
        {
            "case": case,
            "way": way,
            "ratio": statistics.mean(sums[way] / sums["Trainer"] for sums in spent),
            "ratios": [round(sums[way] / sums["Trainer"], 3) for sums in spent],
            "trainer_seconds": statistics.mean(sums["Trainer"] for sums in spent) / args.steps,
            "device": args.device,
            "steps": args.steps,
        }
        for way in list(steps)[1:]
    ]


def memory(case: str, way: str, args: argparse.Namespace) -> float:
    """Peak memory of eight steps, in MiB; on the CPU beyond what the process held before the model was built."""
    import torch

    before = 0
    if args.device == "cpu":
        trainers("tiny-8x16", [way], args)  # imports, and what stays of them
        before = _status("VmRSS")
    steps, _ = trainers(case, [way], args)
    for _ in range(8):  # of which some attribute
        steps[way]()
    return torch.cuda.max_memory_allocated() / 2**20 if args.device == "cuda" else (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """Of this process, in KiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise SystemExit("Memory on the CPU is read from /proc, which this system lacks.")


def profile(case: str, args: argparse.Namespace) -> dict[str, float]:
    """Part of a stretch of steps, memory not settled → its share, by torch.profiler."""
    import torch
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as profiler

    from hf_challenger.attribution import lrp
    from hf_challenger.challenge import Challenger, CueMemory

    def labelled(owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            with record_function(label):
                return original(*args, **kwargs)

        setattr(owner, name, call)

    steps, model = trainers(case, ["ChallengerTrainer"], args)
    labelled(Challenger, "challenge", "challenge")
    labelled(CueMemory, "remember", "remember")
    labelled(lrp.LRP, "attribute", "attribution")
    labelled(torch.Tensor, "backward", "training backward")
    labelled(torch.optim.AdamW, "step", "optimizer")
    forward = type(model).forward

    @functools.wraps(forward)  # the signature tells whether a model takes an attention mask
    def of_the_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        with record_function("training forward" if self.training else "attribution's forward"):
            return forward(self, *args, **kwargs)

    type(model).forward = of_the_model
    steps["ChallengerTrainer"]()
    with profiler(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(args.steps):
            with record_function("step"):
                steps["ChallengerTrainer"]()
    spent = {e.key: e.cpu_time_total for e in recorded.key_averages()}
    parts = {
        "training forward": spent["training forward"],
        "training backward": spent["training backward"],
        "optimizer": spent["optimizer"],
        "attribution": spent.get("attribution", 0),
        "looking for cues": spent.get("remember", 0),
        "checks, hiding": spent["challenge"] - spent.get("attribution", 0),
    }
    parts["the rest of Trainer's step"] = spent["step"] - sum(parts.values())
    return {part: value / spent["step"] for part, value in parts.items()}


def table(path: Path = RESULTS) -> str:
    """Ratios of time and memory, one line a case."""
    report = json.loads(path.read_text())
    ways = list(WAYS)[1:]
    lines = ["| model, rows × length | device | Trainer, s | " + " | ".join(ways) + " | memory, ChallengerTrainer |"]
    lines.append("|" + "---|" * (len(ways) + 4))
    for case in [*CASES["cpu"], *CASES["cuda"]]:
        found = {r["way"]: r for r in report["results"] if r["case"] == case}
        if not found:
            continue
        first, peak = next(iter(found.values())), report["peak_memory_mib"].get(case, {})
        cells = [_ratio(found[way]) if way in found else "" for way in ways]
        more = f"{peak['ChallengerTrainer'] / peak['Trainer']:.2f}" if peak else ""
        name = case.replace("-", ", ").replace("x", " × ")
        lines.append(f"| {name} | {first['device']} | {first['trainer_seconds']:.3f} | {' | '.join(cells)} | {more} |")
    return "\n".join(lines)


def profile_table(path: Path = RESULTS) -> str:
    report = json.loads(path.read_text())["profile"]
    if not report:
        return "No results yet."
    lines = ["| part of steps, memory not settled | " + " | ".join(report) + " |", "|" + "---|" * (len(report) + 1)]
    for part in next(iter(report.values()), {}):
        lines.append(f"| {part} | " + " | ".join(f"{shares[part]:.1%}" for shares in report.values()) + " |")
    return "\n".join(lines)


def _ratio(r: dict[str, Any]) -> str:
    return f"{r['ratio']:.2f} [{min(r['ratios']):.2f}, {max(r['ratios']):.2f}]"


def picture(report: dict[str, Any], path: Path) -> None:
    """Ratio of each way of training in each case, with the range of the stretches."""
    import matplotlib.pyplot as plt

    cases = list(dict.fromkeys(r["case"] for r in report["results"]))
    figure, axes = plt.subplots(figsize=(7.2, 1.2 + 0.9 * len(cases)), layout="constrained")
    for n, (way, mark) in enumerate(zip(list(WAYS)[1:], "osD^", strict=True)):
        for r in report["results"]:
            if r["way"] == way:
                y = cases.index(r["case"]) + 0.2 * (n - 1)
                axes.plot([min(r["ratios"]), max(r["ratios"])], [y, y], color=f"C{n}")
                axes.plot([r["ratio"]], [y], mark, color=f"C{n}", label=way if r["case"] == cases[0] else None)
    axes.set_yticks(range(len(cases)), cases)
    axes.set(xlabel="time of a stretch of steps / Trainer's: mean and range")
    axes.axvline(1, color="0.5", linewidth=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", help="MODEL-ROWSxLENGTH; not set: those of the device")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS), help="the first is Trainer")
    parser.add_argument("--steps", type=int, default=24, help="of a stretch")
    parser.add_argument("--repeats", type=int, default=3, help="stretches")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--no_memory", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("There is no GPU here. Use --device cpu, or a machine with a GPU.")
    report: dict[str, Any] = {"results": [], "peak_memory_mib": {}, "profile": {}}
    if args.output.is_file():
        report |= json.loads(args.output.read_text())
    context = multiprocessing.get_context("spawn")
    for case in args.cases or CASES[args.device]:
        report["results"] = [r for r in report["results"] if r["case"] != case]
        for result in measure(case, args):
            report["results"].append(result)
            print(f"{case}: {result['way']}: {_ratio(result)}", flush=True)
        for way in () if args.no_memory else ("Trainer", "ChallengerTrainer"):
            with context.Pool(1) as pool:
                report["peak_memory_mib"].setdefault(case, {})[way] = round(pool.apply(memory, (case, way, args)))
        if args.profile:
            with context.Pool(1) as pool:
                report["profile"][case] = pool.apply(profile, (case, args))
        name = torch.cuda.get_device_name() if args.device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
        report.setdefault("hardware", {})[args.device] = name
        report["versions"] = {"torch": torch.__version__, "python": platform.python_version()}
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    if args.output == RESULTS:
        picture(report, PICTURE)
        subprocess.run([sys.executable, str(HERE / "tables.py")], check=True)


if __name__ == "__main__":
    main()
