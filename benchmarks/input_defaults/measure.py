#!/usr/bin/env python
"""Which fill, which unit and which span: a small measurement behind the defaults for images and series.

The sets are for choosing only: MNIST (10 images a class), GunPoint, ArrowHead, NATOPS and SyntheticControl. There are no
validation splits, so a choice is made on their test parts, and no claim about the method may be drawn from them.

    python measure.py --data_dir <folder of the sets> --minutes 25
    python measure.py --table
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from transformers import HfArgumentParser

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parents[1] / "examples")]

from common.data import Rows, load_images, load_series, standardised, subset_per_class  # noqa: E402
from common.models import image_model, series_model  # noqa: E402

from hf_challenger import ChallengeOptions, Challenger  # noqa: E402
from hf_challenger.metrics import calibration  # noqa: E402

RESULTS = HERE / "results.json"
SERIES = ("gunpoint", "arrowhead", "natops", "syntheticcontrol")
# What all runs share, unless a variant says otherwise. Hard labels: the fill is to be seen alone.
COMMON = {"challenge_softening": 0.0}
IMAGE = {**COMMON, "challenge_rate": 0.25}
VARIANTS = {
    "image": {
        "plain": {"challenge_share": 0.0},
        "mean": {**IMAGE, "challenge_perturbation": "mean"},
        "zero": {**IMAGE, "challenge_perturbation": "zero"},
        "noise": {**IMAGE, "challenge_perturbation": "noise"},
        "blur": {**IMAGE, "challenge_perturbation": "blur"},
        "swap": {**IMAGE, "challenge_perturbation": "swap"},
        "mean, patches of 2": {**IMAGE, "challenge_perturbation": "mean", "challenge_unit_size": 2},
        "mean, patches of 7": {**IMAGE, "challenge_perturbation": "mean", "challenge_unit_size": 7},
        "mean, span 2": {**IMAGE, "challenge_perturbation": "mean", "challenge_span": 2},
        "mean, random": {**IMAGE, "challenge_perturbation": "mean", "challenge_selection": "random"},
        "mean, softening 1": {**IMAGE, "challenge_perturbation": "mean", "challenge_softening": 1.0},
    },
    "series": {
        "plain": {"challenge_share": 0.0},
        "mean": {**COMMON, "challenge_perturbation": "mean"},
        "zero": {**COMMON, "challenge_perturbation": "zero"},
        "noise": {**COMMON, "challenge_perturbation": "noise"},
        "interpolate": {**COMMON, "challenge_perturbation": "interpolate"},
        "swap": {**COMMON, "challenge_perturbation": "swap"},
        "mean, span 3": {**COMMON, "challenge_perturbation": "mean", "challenge_span": 3},
        "interpolate, span 3": {**COMMON, "challenge_perturbation": "interpolate", "challenge_span": 3},
        "mean, random": {**COMMON, "challenge_perturbation": "mean", "challenge_selection": "random"},
        "mean, softening 1": {**COMMON, "challenge_perturbation": "mean", "challenge_softening": 1.0},
    },
}


@dataclass
class Arguments:
    data_dir: str = field(default="../shared/data", metadata={"help": "Holds <set>/data.npz."})
    minutes: float = field(default=25, metadata={"help": "No further run is started after that time."})
    seeds: int = field(default=3, metadata={"help": "Seeds 0, 1, …: all variants for one seed before the next seed."})
    steps: int = field(default=300, metadata={"help": "Optimizer steps of each run."})
    table: bool = field(default=False, metadata={"help": "Print the table of results.json, and stop."})


def main() -> None:
    (args,) = HfArgumentParser(Arguments).parse_args_into_dataclasses()
    if args.table:
        print(as_table(json.loads(RESULTS.read_text())))
        return
    torch.set_num_threads(1)
    stop = time.monotonic() + 60 * args.minutes
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    done = {(r["set"], r["variant"], r["seed"]) for r in results}
    for seed in range(args.seeds):
        for name in ("mnist_small", *SERIES):
            for variant, options in VARIANTS["image" if name == "mnist_small" else "series"].items():
                if (name, variant, seed) in done or time.monotonic() > stop:
                    continue
                scores = run(Path(args.data_dir, name), seed, ChallengeOptions(**options), args.steps)
                results.append(
                    {"set": name, "variant": variant, "seed": seed, "steps": args.steps, "options": options, **scores}
                )
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
                print(
                    f"{name} seed {seed} {variant}: {scores['accuracy']:.3f} {scores['ece']:.3f} {scores['nll']:.3f}",
                    flush=True,
                )


def run(folder: Path, seed: int, options: ChallengeOptions, steps: int) -> dict[str, float]:
    """Train once in a plain loop, and score the test part."""
    torch.manual_seed(seed)
    if folder.name == "mnist_small":
        splits = subset_per_class(load_images(folder), 10, seed)
        model = image_model("cnn", 28, 28, 1, num_labels=len(splits.labels))
    else:
        splits = standardised(load_series(folder))
        model = series_model("fcn-small", *splits.x_train.shape[1:], num_labels=len(splits.labels))
    name, shift = model.main_input_name, 2 if folder.name == "mnist_small" else 0
    train = Rows(splits.x_train, splits.y_train, name, largest_shift=shift)
    loader = torch.utils.data.DataLoader(train, batch_size=min(20, len(train)), shuffle=True, drop_last=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    challenger = Challenger(model, options, seed=seed) if options.challenge_share else None
    began, step = time.perf_counter(), 0
    while step < steps:
        for batch in loader:
            labels = batch.pop("labels")
            model.train()
            if challenger is None:
                loss = model(**batch, labels=labels).loss
            else:
                mixed = challenger.challenge(batch, labels, step)
                loss = mixed.loss(model(**mixed.inputs).logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
            if step == steps:
                break
    seconds = time.perf_counter() - began
    model.eval()
    with torch.no_grad():
        x = torch.as_tensor(splits.x_test, dtype=torch.float32)
        logits = torch.cat([model(**{name: part}).logits for part in x.split(100)])
    y = torch.as_tensor(splits.y_test)
    p = logits.double().softmax(-1)
    return {**scores_of(p, y), "seconds": round(seconds, 1)}


def scores_of(p: torch.Tensor, y: torch.Tensor) -> dict[str, float]:
    from transformers import EvalPrediction

    scores = calibration(EvalPrediction(predictions=p.log().float().numpy(), label_ids=y.numpy()))
    return {k: round(float(scores[k]), 4) for k in ("accuracy", "ece", "nll")}


def as_table(results: list[dict]) -> str:
    """For each kind: mean over sets and seeds, and the mean difference to plain in the same set and seed with its 95 % interval."""
    lines = []
    for kind, variants in VARIANTS.items():
        sets = ("mnist_small",) if kind == "image" else SERIES
        mine = {(r["set"], r["seed"], r["variant"]): r for r in results if r["set"] in sets}
        pairs = {(s, n) for s, n, _ in mine}
        full = sorted(pair for pair in pairs if all((*pair, v) in mine for v in variants))
        lines += [
            f"\n{', '.join(sets)}: {len(full)} pairs of set and seed\n",
            "| variant | accuracy | ECE | NLL | accuracy − plain | ECE − plain |\n|---|---|---|---|---|---|",
        ]
        for variant in variants:
            rows = [mine[(*pair, variant)] for pair in full]
            cells = [f"{mean([r[k] for r in rows])[0]:.3f}" for k in ("accuracy", "ece", "nll")]
            for key in ("accuracy", "ece"):
                middle, half = mean([r[key] - mine[(*pair, "plain")][key] for r, pair in zip(rows, full, strict=True)])
                cells.append("" if variant == "plain" else f"{middle:+.3f} ± {half:.3f}")
            lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean(values: list[float]) -> tuple[float, float]:
    """Mean, and half of its 95 % interval (Student's t)."""
    x = torch.tensor(values, dtype=torch.float64)
    if len(x) < 2:
        return float(x.mean()), float("nan")
    t = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 11: 2.20}
    return float(x.mean()), float(x.std() / len(x) ** 0.5) * t.get(len(x) - 1, 1.96)


if __name__ == "__main__":
    main()
