"""Both trainers from the same seeds, and the table that the READMEs show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import TrainingArguments

COLUMNS = ("accuracy", "ece", "nll", "brier", "seconds")
NAMES = {"plain": "`Trainer`", "challenger": "`ChallengerTrainer`"}

Config = TypeVar("Config", bound=TrainingArguments)


def every_seed_and_method(
    run: Callable[[str, Config], dict[str, Any]], config: Config, method: str, compare: bool, seeds: list[int]
) -> list[dict[str, Any]]:
    """``run(method, config)`` for each seed, with one method or with both; a comparison prints and saves its table.

    Each run has an ``output_dir`` of its own: ``[seed<seed>/]<method>`` in the one given.
    """
    out, seeds = Path(str(config.output_dir)), seeds or [config.seed]
    results = []
    for seed in seeds:
        for name in NAMES if compare else [method]:
            folder = Path(out, *([f"seed{seed}"] if len(seeds) > 1 else []), name)
            results.append(run(name, replace(config, seed=seed, data_seed=None, output_dir=str(folder))))
    if compare:
        table = as_table(results)
        print(f"\n{table}\n")
        Path(out, "comparison.md").write_text(table + "\n")
        Path(out, "comparison.json").write_text(json.dumps(results, indent=2) + "\n")
    return results


def of_the_temperature(trained: dict[str, float]) -> dict[str, float]:
    """What ``train()`` tells of the temperature, for a file of results; nothing where none was fitted."""
    return {k: trained[k] for k in ("expected_accuracy", "calibration_temperature") if k in trained}


def as_table(results: list[dict[str, Any]]) -> str:
    """One markdown row a method: means over seeds, with the standard deviation where there are several."""
    split = "test" if "test_accuracy" in results[0] else "validation"
    lines = ["| method | accuracy ↑ | ECE ↓ | NLL ↓ | Brier ↓ | seconds |", "|---|---|---|---|---|---|"]
    for method, name in NAMES.items():
        cells = []
        for column in COLUMNS:
            key = column if column == "seconds" else f"{split}_{column}"
            values = torch.tensor([r[key] for r in results if r["method"] == method], dtype=torch.float64)
            digits = 0 if column == "seconds" else 3
            spread = f" ± {values.std():.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.{digits}f}{spread}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)
