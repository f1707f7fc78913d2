"""Results of several runs as one table, for the example scripts."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {"plain": "`Trainer`", "challenger": "`ChallengerTrainer`", "named": "`ChallengerTrainer`, the leak named"}
METRICS = {
    "accuracy ↑": "test_accuracy",
    "ECE ↓": "test_ece",
    "NLL ↓": "test_nll",
    "Brier ↓": "test_brier",
    "seconds": "seconds",
}


def comparison_table(results: Sequence[Mapping[str, Any]], columns: Mapping[str, str] = METRICS) -> str:
    """One markdown row a method: the mean over its runs, with the standard deviation where there are several.

    Args:
        results: one a run, with ``method`` (a key of :data:`NAMES`) and the keys that ``columns`` names.
        columns: heading → key. ``seconds`` are printed without decimals, all else with three.
    """
    lines = [f"| trained with | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for method, name in NAMES.items():
        runs = [result for result in results if result["method"] == method]
        if runs:
            cells = (_mean([float(run[key]) for run in runs], 0 if key == "seconds" else 3) for key in columns.values())
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: list[float], digits: int) -> str:
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"
