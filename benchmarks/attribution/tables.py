"""Writes the measured tables into README.md, between its markers, from the JSON files in results/."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# Two-sided 95 % quantile of Student's t by degrees of freedom.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
ORDER = [
    *("attnlrp", "cp_lrp", "epsilon", "gamma", "attnlrp, log_odds", "cp_lrp, log_odds", "gradient", "saliency"),
    *("integrated_gradients-50", "integrated_gradients-50, log_odds", "autolrp", "autolrp, attnlrp"),
    *("attention_rollout", "random"),
]
MEASURES = {
    "area": "Area between the curves (higher is better)",
    "comprehensiveness": "Comprehensiveness (higher is better)",
    "sufficiency": "Sufficiency (lower is better)",
}


def interval(values: list[float]) -> str:
    """Mean ± half the 95 % interval over seeds; says so where there are fewer than three."""
    mean = statistics.mean(values)
    if len(values) < 2:
        return f"{mean:.3f} (1 seed)"
    half = T95[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5
    few = f" ({len(values)} seeds)" if len(values) < 3 else ""
    return f"{mean:.3f} ± {half:.3f}{few}"


def faithfulness() -> str:
    results = [json.loads(path.read_text()) for path in sorted((HERE / "results" / "faithfulness").glob("*.json"))]
    if not results:
        return "No results yet.\n"
    sets = [name for name in ("trec", "sst2", "mnist_small", "gunpoint", "natops") if any(r["set"] == name for r in results)]
    methods = sorted({r["method"] for r in results}, key=ORDER.index)
    lines = []
    for measure, title in MEASURES.items():
        lines += [f"**{title}**", "", "| attribution | " + " | ".join(sets) + " |", "| --- |" + " ---: |" * len(sets)]
        cells: dict[tuple[str, str], list[float]] = {}
        for r in results:
            if measure in r:
                cells.setdefault((r["method"], r["set"]), []).append(r[measure])
        best = {}
        for name in sets:
            means = {m: statistics.mean(cells[m, name]) for m in methods if (m, name) in cells}
            best[name] = (min if measure == "sufficiency" else max)(means.values()) if means else None
        for method in methods:
            row = []
            for name in sets:
                values = cells.get((method, name))
                text = "–" if values is None else interval(values)
                is_best = values is not None and f"{statistics.mean(values):.3f}" == f"{best[name]:.3f}"
                row.append(f"**{text}**" if is_best else text)
            lines.append(f"| {method} | " + " | ".join(row) + " |")
        lines.append("")
    lines += ["**Area minus that of attnlrp, seed by seed** (same model, same rows; above 0: better than attnlrp)", ""]
    lines += ["| attribution | " + " | ".join(sets) + " |", "| --- |" + " ---: |" * len(sets)]
    area = {(r["method"], r["set"], r["seed"]): r["area"] for r in results if "area" in r}
    for method in methods[1:]:
        row = []
        for name in sets:
            seeds = [seed for m, s, seed in area if (m, s) == (method, name) and ("attnlrp", name, seed) in area]
            gaps = [area[method, name, seed] - area["attnlrp", name, seed] for seed in seeds]
            row.append(interval(gaps) if gaps else "–")
        lines.append(f"| {method} | " + " | ".join(row) + " |")
    lines.append("")
    lines += ["| | " + " | ".join(sets) + " |", "| --- |" + " ---: |" * len(sets)]
    lines.append("| test rows × seeds | " + " | ".join(_counts(results, name) for name in sets) + " |")
    lines.append("| accuracy, mean | " + " | ".join(_accuracy(results, name) for name in sets) + " |")
    return "\n".join(lines) + "\n"


def _counts(results: list[dict[str, Any]], name: str) -> str:
    own = [r for r in results if r["set"] == name and "rows" in r]
    return f"{max(r['rows'] for r in own)} × {len({r['seed'] for r in own})}"


def _accuracy(results: list[dict[str, Any]], name: str) -> str:
    by_seed = {r["seed"]: r["accuracy"] for r in results if r["set"] == name}
    return f"{statistics.mean(by_seed.values()):.3f}"


def cost() -> str:
    path = HERE / "results" / "cost.json"
    if not path.exists():
        return "No results yet.\n"
    report = json.loads(path.read_text())
    lines = [
        "| model, batch | attribution | ÷ plain training step (median, quartiles) | repeats |",
        "| --- | --- | ---: | ---: |",
    ]
    for r in report["results"]:
        low, middle, high = r["ratio_quartiles"]
        lines.append(
            f"| {r['model']}, {r['batch']} | {r['attribution']} | {middle:.2f} ({low:.2f} to {high:.2f}) | {r['repeats']} |"
        )
    return "\n".join(lines) + "\n"


def write_tables() -> None:
    path = HERE / "README.md"
    text = path.read_text()
    for name, table in (("faithfulness", faithfulness()), ("cost", cost())):
        start, end = f"<!-- {name}: generated -->\n", f"<!-- {name}: end -->"
        before, rest = text.split(start)
        text = before + start + table + end + rest.split(end, 1)[1]
    path.write_text(text)


if __name__ == "__main__":
    write_tables()
