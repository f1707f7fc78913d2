"""What an attribution costs: its time over that of one plain training step of the same batch.

A plain step is forward in train mode, loss, backward and AdamW. The repeats are interleaved (step, each attribution, step,
...), so that a machine that slows down slows all of them; a ratio is taken within each repeat.

    python benchmarks/attribution/cost.py            # writes results/cost.json, then the table in README.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from autolrp_method import INSTALLED, autolrp_relevance
from faithfulness import default_text_model
from tables import write_tables
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSequenceClassification, BertConfig

from hf_challenger.attribution.methods import METHODS, integrated_gradients

Batch = dict[str, Tensor]
ATTRIBUTIONS: dict[str, Callable[[nn.Module, Batch, Tensor], Tensor]] = {
    "lrp, attnlrp": lambda model, batch, target: METHODS["lrp"](model, batch, target, "attnlrp"),
    "lrp, cp_lrp": lambda model, batch, target: METHODS["lrp"](model, batch, target, "cp_lrp"),
    "input_x_gradient": lambda model, batch, target: METHODS["input_x_gradient"](model, batch, target, ""),
    **({"autolrp": autolrp_relevance} if INSTALLED else {}),
    "integrated_gradients-50": lambda model, batch, target: integrated_gradients(model, batch, target, n_steps=50),
}
# name → config of the shape, rows and length. Time does not depend on the values of the weights: they are random.
CASES: dict[str, tuple[Callable[[], Any], int, int]] = {
    "all-MiniLM-L6-v2": (lambda: AutoConfig.from_pretrained(default_text_model(), num_labels=2), 16, 64),
    "BERT-base": (lambda: BertConfig(num_labels=2), 8, 128),
}


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measured(name: str, repeats: int, repeats_of_slow: int) -> list[dict[str, Any]]:
    config, rows, length = CASES[name]
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config()).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    load = os.getloadavg()[0]
    batch = {
        "input_ids": torch.randint(1000, 20000, (rows, length)),
        "attention_mask": torch.ones(rows, length, dtype=torch.long),
    }
    labels = torch.randint(0, 2, (rows,))

    def step() -> None:
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    ATTRIBUTIONS["lrp, attnlrp"](model, batch, labels)  # first calls allocate
    ratios: dict[str, list[float]] = {}
    steps: list[float] = []
    for repeat in range(repeats):
        before = seconds(step)
        steps.append(before)
        for attribution, call in ATTRIBUTIONS.items():
            slow = attribution.startswith("integrated")
            if slow and repeat >= repeats_of_slow:
                continue
            took = seconds(lambda call=call: call(model, batch, labels))  # type: ignore[misc]
            after = seconds(step)
            steps.append(after)
            ratios.setdefault(attribution, []).append(2 * took / (before + after))  # between two steps
            before = after
    return [
        {
            "model": name,
            "batch": f"{rows} x {length}",
            "attribution": attribution,
            "ratio_quartiles": quartiles(values),
            "ratios": values,
            "repeats": len(values),
            "load_at_start": load,
            "step_seconds_quartiles": quartiles(steps),
        }
        for attribution, values in ratios.items()
    ]


def quartiles(values: list[float]) -> list[float]:
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--repeats_of_slow", type=int, default=3, help="of integrated gradients")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = Path(__file__).parent / "results" / "cost.json"
    old = json.loads(path.read_text())["results"] if path.exists() else []
    kept = [r for r in old if r["model"] not in args.models]
    results = [r for name in args.models for r in measured(name, args.repeats, args.repeats_of_slow)]
    report = {
        "command": "python benchmarks/attribution/cost.py",
        "setting": "fp32, CPU, AdamW, sdpa attention",
        "threads": args.threads,
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "results": kept + results,
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
    for r in results:
        print(r["model"], r["attribution"], r["ratio_quartiles"], r["repeats"])
    write_tables()


if __name__ == "__main__":
    main()
