#!/usr/bin/env python
"""What a challenged step costs: its time and memory over those of a step of Trainer on the same batch.

A step is ``training_step`` of the real trainer, the optimizer's step and ``zero_grad``. The ways of training are interleaved
in one process (Trainer, one, Trainer, the next, …) on the same batches, and a ratio is taken between the two Trainer steps
around it, so that a machine that slows down slows both. All rows pass the threshold ("ChallengerTrainer"), or none does.

    python benchmarks/step_cost.py                   # all cases; writes results/step_cost.json and the picture
    python benchmarks/step_cost.py --cases minilm-16x64 --device cuda --bf16
    python benchmarks/step_cost.py --profile         # where the time of a challenged step goes, for docs/cost.md

``make tables`` writes the tables.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import platform
import statistics
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

BERTS = {  # hidden, layers, heads, intermediate, vocabulary: BERT-mini, all-MiniLM-L6-v2, BERT-base
    "mini": (256, 4, 4, 1024, 30522),
    "minilm": (384, 6, 12, 1536, 30522),
    "base": (768, 12, 12, 3072, 30522),
}
# model-rows x length; PatchTST: time steps of 3 channels; ResNet: pixels a side
SHORT = ["mini-8x16", "mini-16x64", "mini-64x64", "mini-8x512", "minilm-16x16", "minilm-8x64", "minilm-64x64"]
SHORT += ["minilm-16x128", "minilm-8x512", "patchtst-32x128", "resnet-32x32"]
FULL = ["minilm-16x64", "base-8x128"]  # every way of training, and memory
WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "Trainer": ("plain", {}),
    "ChallengerTrainer": ("challenger", {"challenge_threshold": 0.0}),
    "ChallengerTrainer, no row passes the threshold": ("challenger", {"challenge_threshold": 0.999999}),
    "ChallengerTrainer, challenge_share .2": ("challenger", {"challenge_threshold": 0.0, "challenge_share": 0.2}),
    "random hiding": ("challenger", {"challenge_threshold": 0.0, "challenge_attribution": "none"}),
    "append mode, every row": (
        "challenger",
        {"challenge_threshold": 0.0, "challenge_mix": "append", "challenge_share": 1.0},
    ),
    "R-Drop": ("rdrop", {}),
    "integrated gradients (20 steps) in place of LRP": (
        "challenger",
        {"challenge_threshold": 0.0, "challenge_attribution": "ig20"},
    ),
}
IN_EVERY_CASE = list(WAYS)[:4]


def build(case: str) -> tuple[Any, dict[str, Any]]:
    """Model with random weights, which no time depends on, and one batch."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PatchTSTConfig, PatchTSTForClassification

    from hf_challenger.small_models import image_model

    torch.manual_seed(0)
    name, _, shape = case.partition("-")
    rows, length = map(int, shape.split("x"))
    labels = torch.randint(0, 2, (rows,))
    if name in BERTS:
        hidden, layers, heads, intermediate, vocabulary = BERTS[name]
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=intermediate,
        )
        ids = torch.randint(1000, 20000, (rows, length))
        return BertForSequenceClassification(config), {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": labels,
        }
    if name == "patchtst":
        sizes = {"num_input_channels": 3, "context_length": length, "patch_length": 8, "patch_stride": 8, "d_model": 128}
        config = PatchTSTConfig(**sizes, num_targets=2, num_hidden_layers=3, num_attention_heads=8, ffn_dim=256)
        return PatchTSTForClassification(config), {"past_values": torch.randn(rows, length, 3), "target_values": labels}
    model = image_model("resnet", length, length, 3, num_labels=2)
    return model, {"pixel_values": torch.randn(rows, 3, length, length), "labels": labels}


def trainers(case: str, ways: list[str], args: argparse.Namespace) -> tuple[dict[str, Callable[[], None]], Any]:
    """One call a way of training: a step on the case's batch."""
    import torch
    from methods import make_trainer
    from transformers import AutoTokenizer  # noqa: F401  (imported here, so that no timing contains it)

    from hf_challenger import ChallengerConfig
    from hf_challenger.attribution.methods import METHODS, integrated_gradients

    METHODS["ig20"] = functools.partial(integrated_gradients, n_steps=20)
    torch.set_num_threads(args.threads)
    model, batch = build(case)
    label = "target_values" if "target_values" in batch else "labels"
    optimizers: list[Any] = []  # one for all
    steps: dict[str, Callable[[], None]] = {}
    for way in ways:
        kind, options = WAYS[way]
        config = ChallengerConfig(
            tempfile.mkdtemp(),
            report_to="none",
            use_cpu=args.device == "cpu",
            bf16=args.bf16,
            per_device_train_batch_size=len(batch[label]),
            label_names=[label],
            **{"challenge_share": 0.5, **options},  # also where that is not the default
        )
        trainer = make_trainer(kind, {}, model=model, args=config)
        trainer.current_gradient_accumulation_steps = 1
        device = trainer.args.device
        model.to(device)
        if not optimizers:
            optimizers.append(torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True))

        def step(trainer: Any = trainer, device: Any = device) -> None:
            trainer.training_step(model, {k: v.to(device) for k, v in batch.items()})
            optimizers[0].step()
            model.zero_grad()
            trainer.state.global_step += 1  # other rows are chosen in the next step
            if device.type == "cuda":
                torch.cuda.synchronize()

        steps[way] = step
    return steps, model


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def measure(case: str, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One dict a way of training: ratios to Trainer's step."""
    ways = list(WAYS) if case in FULL else IN_EVERY_CASE
    if case == "base-8x128":  # minutes a step, and the ratio is that of the smaller model
        ways = [way for way in ways if "integrated" not in way]
    steps, _ = trainers(case, ways, args)
    for step in steps.values():
        step()  # first calls allocate
    plain: list[float] = [seconds(steps["Trainer"])]
    ratios: dict[str, list[float]] = {way: [] for way in ways[1:]}
    began = time.perf_counter()
    repeat = 0
    while repeat < args.repeats and (repeat < 3 or time.perf_counter() - began < args.seconds_per_case):
        for way, values in ratios.items():
            if "integrated" in way and repeat >= 2:
                continue
            took = seconds(steps[way])
            plain.append(seconds(steps["Trainer"]))
            values.append(2 * took / (plain[-2] + plain[-1]))
        repeat += 1
    for way, values in ratios.items():
        yield {
            "case": case,
            "way": way,
            "ratio": statistics.mean(values),
            "interval": interval(values),
            "ratios": [round(r, 3) for r in values],
            "trainer_seconds": statistics.median(plain),
        }


def interval(values: list[float]) -> list[float]:
    """95 % bootstrap interval of the mean. Rows are chosen by chance, so that steps differ in earnest."""
    import numpy as np

    rng = np.random.default_rng(0)
    means = rng.choice(values, (4000, len(values))).mean(1)
    return [float(x) for x in np.percentile(means, [2.5, 97.5])]


def memory(case: str, way: str, args: argparse.Namespace) -> float:
    """Peak memory of three steps beyond what the process held before the model was built, in MiB."""
    import torch

    if args.device == "cuda":
        steps, _ = trainers(case, [way], args)
        for _ in range(3):
            steps[way]()
        return torch.cuda.max_memory_allocated() / 2**20
    trainers("mini-8x16", [way], args)  # imports, and what stays of them
    before = _status("VmRSS")
    steps, _ = trainers(case, [way], args)
    for _ in range(3):
        steps[way]()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """Of this process, in KiB (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    raise SystemExit("Memory on the CPU is read from /proc, which this system lacks.")


def profile(case: str, args: argparse.Namespace, repeats: int = 10) -> list[tuple[str, float]]:
    """Shares of a challenged step: (part, share), by torch.profiler."""
    import torch
    from torch.profiler import ProfilerActivity, record_function
    from torch.profiler import profile as profiler

    from hf_challenger.attribution import interception, lrp
    from hf_challenger.challenge import Challenger

    def labelled(owner: Any, name: str, label: str) -> None:
        original = getattr(owner, name)

        @functools.wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            with record_function(label):
                return original(*args, **kwargs)

        setattr(owner, name, call)

    way = "ChallengerTrainer"
    steps, model = trainers(case, [way], args)
    labelled(Challenger, "challenge", "challenge")
    labelled(lrp.LRP, "attribute", "attribution")
    labelled(lrp, "times_gradient", "attribution's backward")
    labelled(interception.Interception, "check_graph", "check of the graph")
    labelled(torch.Tensor, "backward", "training backward")
    labelled(torch.optim.AdamW, "step", "optimizer")
    forward = type(model).forward

    @functools.wraps(forward)  # the signature tells whether a model takes an attention mask
    def of_the_model(self: Any, *args: Any, **kwargs: Any) -> Any:
        with record_function("training forward" if self.training else "attribution's forward"):
            return forward(self, *args, **kwargs)

    type(model).forward = of_the_model
    for _ in range(3):
        steps[way]()
    with profiler(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(repeats):
            with record_function("step"):
                steps[way]()
    time_of = {e.key: e.cpu_time_total for e in recorded.key_averages()}
    own = {
        "training forward": time_of["training forward"],
        "training backward": time_of["training backward"],
        "optimizer": time_of["optimizer"],
        "attribution's forward": time_of["attribution's forward"],
        "attribution's backward": time_of["attribution's backward"],
        "check of the attribution's graph": time_of["check of the graph"],
    }
    own["the engine's other work (state, leaves, sums)"] = time_of["attribution"] - sum(
        own[k] for k in own if k.startswith(("attr", "check"))
    )
    own["choosing, hiding, mixing"] = time_of["challenge"] - time_of["attribution"]
    own["the rest of Trainer's step"] = time_of["step"] - sum(own.values())
    return [(part, value / time_of["step"]) for part, value in own.items()]


def table(path: Path = RESULTS) -> str:
    """Ratios of time, one row a case; then all ways of training and memory, for the two cases that have them."""
    report = json.loads(path.read_text())
    results = {(r["case"], r["way"]): r for r in report["results"]}
    lines = ["| model | rows × length | repeats | Trainer, s | " + " | ".join(IN_EVERY_CASE[1:]) + " |"]
    lines.append("|" + "---|" * (len(IN_EVERY_CASE) + 3))
    for case in [*FULL, *SHORT]:
        shown = [results.get((case, way)) for way in IN_EVERY_CASE[1:]]
        if shown[0] is None:
            continue
        model, _, shape = case.partition("-")
        lines.append(
            f"| {model} | {shape.replace('x', ' × ')} | {len(shown[0]['ratios'])} | {shown[0]['trainer_seconds']:.3f} | "
            + " | ".join("" if r is None else _ratio(r) for r in shown)
            + " |"
        )
    lines += ["", "| way of training | " + " | ".join(f"{c}: time | memory" for c in FULL) + " |"]
    lines.append("|" + "---|" * (2 * len(FULL) + 1))
    of_memory = report["peak_memory_mib"]
    for way in list(WAYS)[1:]:
        cells = [way]
        for case in FULL:
            r = results.get((case, way))
            cells.append("" if r is None else _ratio(r))
            peak = of_memory.get(case, {}).get(way)
            cells.append("" if peak is None else f"{peak / of_memory[case]['Trainer']:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def profile_table(path: Path = RESULTS) -> str:
    report = json.loads(path.read_text())["profile"]
    lines = ["| part of a challenged step | " + " | ".join(report) + " |", "|" + "---|" * (len(report) + 1)]
    for part in next(iter(report.values())):
        lines.append(f"| {part} | " + " | ".join(f"{shares[part]:.1%}" for shares in report.values()) + " |")
    return "\n".join(lines)


def _ratio(r: dict[str, Any]) -> str:
    return f"{r['ratio']:.2f} [{min(r['ratios']):.2f}, {max(r['ratios']):.2f}]"


def picture(report: dict[str, Any], path: Path) -> None:
    """Cost of the default step in every case, by the number of tokens (time steps, pixels) in a batch."""
    import matplotlib.pyplot as plt

    def size(r: dict[str, Any]) -> int:
        rows, length = map(int, r["case"].partition("-")[2].split("x"))
        return rows * length

    results = sorted((r for r in report["results"] if r["way"] == "ChallengerTrainer"), key=size)
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    axes.axvline(4 / 3, color="0.5", linestyle="--", linewidth=1, label="the arithmetic, 1.33")
    marks = {"mini": ("o", "#2166ac"), "minilm": ("s", "#e08214"), "base": ("^", "#1b7837")}
    for place, r in enumerate(results):
        mark, colour = marks.get(r["case"].partition("-")[0], ("D", "0.35"))
        axes.plot([min(r["ratios"]), max(r["ratios"])], [place, place], color=colour, linewidth=1.5)
        axes.plot([r["ratio"]], [place], mark, color=colour)
    axes.set_yticks(range(len(results)), [r["case"].replace("-", "  ").replace("x", " × ") for r in results])
    axes.set(
        xlabel="time of a step / Trainer's: mean and range of the repeats", ylabel="model, rows × length", xlim=(1, None)
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=[*FULL, *SHORT], help="MODEL-ROWSxLENGTH")
    parser.add_argument("--repeats", type=int, default=24)
    parser.add_argument(
        "--seconds_per_case", type=float, default=40, help="no further repeat after that, once there are three"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--profile", action="store_true", help="of minilm-16x64 and mini-8x16")
    parser.add_argument("--no_memory", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    report = (
        json.loads(args.output.read_text())
        if args.output.is_file()
        else {"results": [], "peak_memory_mib": {}, "profile": {}}
    )
    if args.profile:
        context = multiprocessing.get_context("spawn")
        for case in ("minilm-16x64", "mini-8x16"):
            with context.Pool(1) as pool:
                report["profile"][case] = dict(pool.apply(profile, (case, args)))
            print(case, report["profile"][case])
    else:
        import torch

        report |= {
            "setting": f"{'bf16' if args.bf16 else 'fp32'}, {args.device}, {args.threads} thread(s), AdamW (fused), sdpa",
            "versions": {"torch": torch.__version__, "python": platform.python_version()},
            "hardware": f"{platform.machine()}, {os.cpu_count()} cores",
            "load_at_start": os.getloadavg()[0],
        }
        for case in args.cases:
            report["results"] = [r for r in report["results"] if r["case"] != case]
            for result in measure(case, args):
                report["results"].append(result)
                print(f"{case}: {result['way']}: {_ratio(result)}", flush=True)
            if case in FULL and not args.no_memory:
                context = multiprocessing.get_context("spawn")
                for way in WAYS:
                    with context.Pool(1) as pool:
                        peak = pool.apply(memory, (case, way, args))
                    report["peak_memory_mib"].setdefault(case, {})[way] = round(peak)
                    print(f"{case}: {way}: {peak:.0f} MiB", flush=True)
            args.output.write_text(json.dumps(report, indent=1) + "\n")
        if args.output == RESULTS:
            picture(report, PICTURE)
    args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
