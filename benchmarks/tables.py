#!/usr/bin/env python
"""Write the quoted tables from the committed runs, between ``<!-- table: NAME -->`` and ``<!-- end of table -->``.

    python benchmarks/tables.py                      # all tables of README.md, docs/ and benchmarks/README.md
    python benchmarks/tables.py --show images        # one, on the screen

NAME is an experiment, maybe with sets to choose: ``images``, ``series:trace,medicalimages``; the same with ``against:`` before it,
for paired differences from what the library does by default (:data:`OURS`); or one of :data:`OTHERS`. Sizes of one set, and
models, are averaged first.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import step_cost
from paired import Comparison, paired

HERE = Path(__file__).parent
ROOT = HERE.parent
MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.S)
CELL = ("model", "set", "size", "method", "seed")
# title, metric, lower is better
COLUMNS = (("error", "error", True), ("ECE", "ece", True), ("NLL", "nll", True), ("Brier", "brier", True))


def runs_of(name: str, results: Path = HERE / "results") -> list[dict[str, Any]]:
    """Runs of an experiment, or of some of its sets; of a run that was done anew with other settings, the latest."""
    experiment, _, sets = name.partition(":")
    path = results / f"{experiment}.jsonl"
    if not path.is_file():
        raise SystemExit(f"There is no {path}; known: {', '.join(sorted(p.stem for p in results.glob('*.jsonl')))}.")
    runs = [json.loads(line) for line in path.read_text().splitlines()]
    runs = list({tuple(r[k] for k in CELL): r for r in runs}.values())
    if sets:
        runs = [r for r in runs if r["set"] in sets.split(",")]
    return runs


def score(metric: str, part: str = "") -> Callable[[dict[str, Any]], float]:
    def value(run: dict[str, Any]) -> float:
        metrics = run["metrics"][part or next(iter(run["metrics"]))]
        return float(1 - metrics["accuracy"] if metric == "error" else metrics[metric])

    return value


def table(runs: list[dict[str, Any]], baseline: str = "plain", part: str = "") -> str:
    """One row a method: means over sets, and paired differences from the baseline with 95 % intervals."""
    runs = _with_temperatures(runs, baseline)
    shown = list(dict.fromkeys(run["method"] for run in runs))
    lines = [
        "| method | runs | "
        + " | ".join(f"{title} ↓" for title, _, _ in COLUMNS)
        + " | error − plain | ECE − plain | NLL − plain | better / same / worse | time |",
        "|" + "---|" * (len(COLUMNS) + 7),
    ]
    for method in sorted(shown, key=lambda m: _mean(runs, m, "nll", part)):
        cells = [method, str(sum(r["method"] == method for r in runs))]
        cells += [f"{_mean(runs, method, metric, part):.3f}" for _, metric, _ in COLUMNS]
        if method == baseline:
            cells += ["", "", "", "", "1"]
        else:
            compared = {m: paired(runs, method, baseline, score(m, part), True) for m in ("error", "ece", "nll")}
            cells += [_interval(c) for c in compared.values()]
            error = compared["error"]
            timed = all(run.get("seconds") for run in runs if run["method"] == method)
            cells += [
                f"{error.wins} / {error.ties} / {error.losses}",
                f"{paired(runs, method, baseline, _seconds, True).change + 1:.2f}" if timed else "",
            ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# What the library does by default, as the runner calls it: experiment → method.
OURS = dict.fromkeys(("images", "images_vit", "small"), "challenger, challenged temperature")
OURS_ELSE = "plain, challenged temperature"


def against_table(name: str, results: Path) -> str:
    """Paired differences of every other method from the default, on the runs that both have; above 0: the default is better."""
    runs, ours = runs_of(name, results), OURS.get(name.partition(":")[0], OURS_ELSE)
    runs = _with_temperatures(runs)
    rivals = [m for m in dict.fromkeys(run["method"] for run in runs) if m != ours]
    lines = [f"| minus {ours} | pairs | error | ECE | NLL | Brier |", "|" + "---|" * 6]
    found = {m: [paired(runs, m, ours, score(metric), True) for _, metric, _ in COLUMNS] for m in rivals}
    for rival, compared in sorted(found.items(), key=lambda item: item[1][2].mean):
        lines.append(f"| {rival} | {compared[0].pairs} | {' | '.join(_interval(c) for c in compared)} |")
    return "\n".join(lines)


def _seconds(run: dict[str, Any]) -> float:
    return float(run.get("cpu_seconds") or run["seconds"])


def _with_temperatures(runs: list[dict[str, Any]], scaled: str = "plain") -> list[dict[str, Any]]:
    """The runs, and what temperatures make of them, as methods of their own."""
    return [*runs, *_scaled(runs, scaled), *_calibrated(runs)]


def _scaled(runs: list[dict[str, Any]], method: str) -> list[dict[str, Any]]:
    """The method's runs with their temperature-scaled scores, as a method of its own."""
    return [
        {
            **run,
            "method": f"{method}, temperature scaled",
            "metrics": {
                part: {k.removesuffix("_scaled"): v for k, v in scores.items() if k.endswith("_scaled")}
                for part, scores in run["metrics"].items()
            },
        }
        for run in runs
        if run["method"] == method and run["temperature"] is not None
    ]


def _calibrated(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs with the temperatures that were fitted on their challenged training rows, as methods of their own."""
    return [
        {**run, "method": f"{run['method']}, {name}", "metrics": found["metrics"], "seconds": None, "cpu_seconds": None}
        for run in runs
        for name, found in run.get("calibrated", {}).items()
    ]


def _mean(runs: list[dict[str, Any]], method: str, metric: str, part: str) -> float:
    """Over sets, each of them a mean over its runs."""
    by_set: dict[str, list[float]] = {}
    for run in runs:
        if run["method"] == method:
            by_set.setdefault(run["set"], []).append(score(metric, part)(run))
    return sum(sum(v) / len(v) for v in by_set.values()) / len(by_set)


def _interval(c: Comparison) -> str:
    return f"{c.mean:+.3f} [{c.low:+.3f}, {c.high:+.3f}]"


def diversity_table(runs: list[dict[str, Any]]) -> str:
    """Effective rank of the last hidden features and mean absolute cosine between filters, one row a method."""
    runs = [run for run in runs if run.get("diversity")]
    sets = list(dict.fromkeys(run["set"] for run in runs))
    head = " | ".join(f"{name}: effective rank | filter cosine" for name in sets)
    lines = [f"| method | runs | {head} |", "|" + "---|" * (2 * len(sets) + 2)]
    for method in dict.fromkeys(run["method"] for run in runs):
        own = [run for run in runs if run["method"] == method]
        cells = [method, str(len(own))]
        for name in sets:
            found = [run["diversity"] for run in own if run["set"] == name]
            for key, digits in (("effective_rank", 1), ("filter_cosine", 3)):
                cells.append(f"{sum(f[key] for f in found) / len(found):.{digits}f}" if found else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# README's rows: method of the benchmark → (what it is called there, what labels it takes beyond those it is trained on)
SHORT = {
    "plain": ("`Trainer`", "none"),
    "label smoothing": ("`Trainer`, label smoothing .1", "none"),
    "plain, the same by random hiding": ("`ChallengerTrainer`'s temperature, random hiding in place of LRP", "none"),
    "plain, challenged temperature": ("**`ChallengerTrainer`**", "none"),
    "plain, temperature scaled": ("`Trainer`, temperature scaling", "as many again"),
}


def short_table(runs: list[dict[str, Any]]) -> str:
    """Means over sets, of the sets and seeds that all methods of :data:`SHORT` have."""
    runs = _with_temperatures(runs)
    cells = [{(r["set"], r["seed"]) for r in runs if r["method"] == method} for method in SHORT]
    runs = [r for r in runs if (r["set"], r["seed"]) in set.intersection(*cells)]
    names = sorted({r["set"] for r in runs})
    seeds = len({r["seed"] for r in runs})
    lines = [
        f"| {', '.join(names)}; {seeds} seed{'s' if seeds > 1 else ''} | error ↓ | ECE ↓ | NLL ↓ | Brier ↓ | held-out labels |",
        "|" + "---|" * 6,
    ]
    for method, (name, needs) in SHORT.items():
        scores = [f"{_mean(runs, method, metric, ''):.3f}" for _, metric, _ in COLUMNS]
        lines.append(f"| {' | '.join([name, *scores, needs])} |")
    return "\n".join(lines)


# Tables that are made elsewhere: name → function of the folder of results.
OTHERS: dict[str, Callable[[Path], str]] = {
    "step_cost": lambda results: step_cost.table(results / "step_cost.json"),
    "texts_short": lambda results: short_table(runs_of("texts", results)),
    "images_diversity": lambda results: diversity_table(runs_of("images", results)),
    "step_cost_profile": lambda results: step_cost.profile_table(results / "step_cost.json"),
}


def pages() -> list[Path]:
    """Those that may quote tables."""
    return [ROOT / "README.md", HERE / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def content(name: str, results: Path, *how: str) -> str:
    """The table of that name; ``how``: baseline and test part, where they are not the usual ones."""
    kind, _, rest = name.partition(":")
    if kind == "against":
        return against_table(rest, results)
    return OTHERS[name](results) if name in OTHERS else table(runs_of(name, results), *how)


def written(text: str, results: Path = HERE / "results") -> str:
    """The page with its tables made anew."""
    return MARKED.sub(lambda m: f"{m[1]}{content(m[2], results)}\n{m[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", help="print this table only")
    parser.add_argument("--baseline", default="plain")
    parser.add_argument("--part", default="", help="test part; not set: the first")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    if args.show:
        print(content(args.show, args.results, args.baseline, args.part))
        return
    for page in pages():
        text = written(page.read_text(), args.results)
        if text != page.read_text():
            page.write_text(text)
            print(f"{page.relative_to(ROOT)}: tables written")


if __name__ == "__main__":
    main()
