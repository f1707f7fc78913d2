#!/usr/bin/env python
"""Write the quoted tables from the committed results, between ``<!-- table: NAME -->`` and ``<!-- end of table -->``.

    python benchmarks/tables.py                      # all tables of README.md, docs/ and benchmarks/
    python benchmarks/tables.py --show texts         # one, on the screen

NAME is one of :data:`TABLES`; or an experiment, maybe with sets to choose (``images``, ``series:trace,natops``), for all of its
methods; or the same after ``differences:`` or ``against:``, for one line a method: its paired differences from ``plain``, or from the
method that was the default (:data:`FORMER_DEFAULT`).

A mean compares methods on the runs that all of them have, and a table says how many runs that leaves out. Development and test
parts never share a table.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import detection
import large_data
import numpy as np
import step_cost
from export import RESULTS, Row, read
from paired import Comparison, half_width, paired, place_of, shared
from plant import NONE

HERE = Path(__file__).parent
ROOT = HERE.parent
MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end of table -->)", re.S)
NAMES = {"accuracy": "accuracy", "ece": "ECE", "nll": "NLL", "brier": "Brier"}


def rows_of(name: str, results: Path = RESULTS) -> list[Row]:
    """Rows of an experiment, or of some of its sets."""
    experiment, _, sets = name.partition(":")
    path = results / f"{experiment}.csv"
    if not path.is_file():
        raise SystemExit(f"There is no {path}; known: {', '.join(sorted(p.stem for p in results.glob('*.csv')))}.")
    return [row for row in read(path) if not sets or row["set"] in sets.split(",")]


def where(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Rows whose columns have those values: ``where(rows, reading="absent", cue="word")``. A wanted "" is ignored."""
    return [row for row in rows if all(value == "" or row[name] == str(value) for name, value in wanted.items())]


def main_part(rows: list[Row], part: str = "") -> list[Row]:
    """Rows of one test part: the one that is named, or "test", or "development" where nothing else was read."""
    parts = {row["part"] for row in rows}
    if not part and "development" in parts and len(parts) > 1:
        raise SystemExit(
            f"Development and test parts never share a table: {', '.join(sorted(parts))}. Choose one with part."
        )
    return where(rows, part=part or ("development" if parts == {"development"} else "test"))


# --- set × method ---------------------------------------------------------------------------------------------------------


def table(
    rows: list[Row],
    methods: Sequence[str] | Mapping[str, str] = (),
    *,
    by: Sequence[str] = ("set",),
    metric: str = "accuracy",
    differences: Sequence[str] = ("accuracy", "ece", "nll"),
    baseline: str = "plain",
) -> str:
    """One line a set (or whatever ``by`` says), one column a method; then the mean and paired differences from the baseline.

    Args:
        rows: of one test part and one reading.
        methods: their names, or names → headings; all that there are by default. Only runs that all of them have count.
        by: the columns of the csv that make a line, for example ``("cue", "set")``.
        metric: what the lines show: mean ± half of the 95 % interval over seeds.
        differences: metrics whose paired difference from ``baseline`` is shown, with its bootstrap interval.
    """
    headings = methods if isinstance(methods, Mapping) else {m: m for m in methods or _all_methods(rows, baseline)}
    rows, left_out = shared(_of_one_kind(rows), headings)
    lines = _head([" ".join(by), *headings.values()])
    values: dict[str, dict[tuple[str, ...], dict[str, list[float]]]] = {m: {} for m in headings}
    for row in rows:
        seeds = values[row["method"]].setdefault(tuple(row[name] for name in by), {})
        seeds.setdefault(row["seed"], []).append(row[metric])
    for line in dict.fromkeys(tuple(row[name] for name in by) for row in rows):
        lines.append(_line([" ".join(line), *(_mean_and_half(values[m][line]) for m in headings)]))
    means = [np.mean([_seed_means(seeds).mean() for seeds in values[m].values()]) for m in headings]
    lines.append(_line([f"**mean {NAMES[metric]}**", *(f"**{mean:.3f}**" for mean in means)]))
    for name in differences if baseline in headings else ():
        cells = ["" if m == baseline else _difference(paired(rows, m, baseline, name)) for m in headings]
        lines.append(_line([f"{NAMES[name]} − {headings[baseline]}", *cells]))
    timed = [m for m in headings if all("seconds" in row for row in where(rows, method=m))]
    if baseline in timed:  # runs on another machine have none
        ratios = {m: f"{_mean(rows, m, 'seconds') / _mean(rows, baseline, 'seconds'):.2f}" for m in timed}
        lines.append(_line(["time of training", *(ratios.get(m, "") for m in headings)]))
    return "\n".join([*lines, "", _note(len(rows) // len(headings), left_out)])


def _of_one_kind(rows: list[Row]) -> list[Row]:
    for name in ("part", "reading"):
        found = sorted({row[name] for row in rows})
        if len(found) > 1:
            raise SystemExit(f"A table shows one {name}, and these rows have several: {', '.join(found)}. Choose one.")
    return rows


def _all_methods(rows: list[Row], baseline: str) -> list[str]:
    return sorted({row["method"] for row in rows}, key=lambda m: (m != baseline, m))


def _seed_means(seeds: dict[str, list[float]]) -> np.ndarray:
    return np.array([np.mean(found) for found in seeds.values()])


def _mean_and_half(seeds: dict[str, list[float]]) -> str:
    found = _seed_means(seeds)
    half = half_width(found)
    return f"{found.mean():.3f}" + ("" if np.isnan(half) else f" ± {half:.3f}")


def _mean(rows: list[Row], method: str, metric: str) -> float:
    """Over sets, each of them a mean over its runs."""
    by_set: dict[str, list[float]] = {}
    for row in where(rows, method=method):
        by_set.setdefault(row["set"], []).append(row[metric])
    return float(np.mean([np.mean(found) for found in by_set.values()]))


def _difference(c: Comparison) -> str:
    interval = "(too few runs)" if np.isnan(c.low) else f"[{c.low:+.3f}, {c.high:+.3f}]"
    return f"{c.mean:+.3f} {interval} {c.verdict}".rstrip()


def _note(runs: int, left_out: int) -> str:
    others = f"; {left_out} further runs are left out, since not all of the methods have them" if left_out else ""
    return f"{runs} runs a method{others}."


def _head(cells: Iterable[str]) -> list[str]:
    cells = list(cells)
    return [_line(cells), "|" + "---|" * len(cells)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


# --- one line a method ----------------------------------------------------------------------------------------------------


def differences_table(rows: list[Row], baseline: str = "plain") -> str:
    """One line a method: its paired differences from ``baseline``, each on the runs that the two have. No means of unequal runs."""
    rows = _of_one_kind(rows)
    others = [m for m in dict.fromkeys(row["method"] for row in rows) if m != baseline]
    places = {m: {place_of(row) for row in where(rows, method=m)} for m in (*others, baseline)}
    others = [m for m in others if places[m] & places[baseline]]
    found = {m: [paired(rows, m, baseline, metric) for metric in NAMES] for m in others}
    lines = _head([f"minus {baseline}", "pairs", *NAMES.values()])
    for method, compared in sorted(found.items(), key=lambda item: item[1][2].mean):
        lines.append(_line([method, str(compared[0].pairs), *map(_difference, compared)]))
    return "\n".join(lines)


# What the library did by default before version 0.3: experiment → method.
FORMER_DEFAULT = dict.fromkeys(("images", "images_vit"), "challenger, challenged temperature")
FORMER_DEFAULT_ELSE = "plain, challenged temperature"


def diversity_table(rows: list[Row]) -> str:
    """Effective rank of the last hidden features and mean absolute cosine between filters, one line a method."""
    rows = [row for row in rows if "effective_rank" in row]
    rows, left_out = shared(rows, _all_methods(rows, "plain"))
    sets, methods = sorted({row["set"] for row in rows}), _all_methods(rows, "plain")
    lines = _head(["method", *(f"{name}: {measure}" for name in sets for measure in ("effective rank", "filter cosine"))])
    for method in methods:
        cells = [method]
        for name in sets:
            own = where(rows, method=method, set=name)
            cells += [f"{np.mean([row[k] for row in own]):.{n}f}" for k, n in (("effective_rank", 1), ("filter_cosine", 3))]
        lines.append(_line(cells))
    return "\n".join([*lines, "", _note(len(rows) // len(methods), left_out)])


# --- the tables by name ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Quoted:
    """A table set × method that a page quotes: see :func:`table`; an experiment without results yet says so."""

    experiment: str
    methods: Sequence[str] | Mapping[str, str] = ()
    part: str = ""
    reading: str = ""
    how: dict[str, Any] = field(default_factory=dict)

    def __call__(self, results: Path) -> str:
        if not (results / f"{self.experiment.partition(':')[0]}.csv").is_file():
            return "No results yet."
        rows = where(rows_of(self.experiment, results), reading=self.reading)
        return table(main_part(rows, self.part), self.methods, **self.how)


COMPARED = {
    "plain": "Trainer",
    "random hiding": "random hiding",
    "row-level LRP": "row-level LRP",
    "counts": "counts",
    "by attention": "**ours**, by attention",
    "cues": "**ours**",
    "named": "**ours**, cues named",
    "bound": "without the cue",
}
FURTHER = ("label smoothing", "JTT", "MaskTune", "Gradient×Input", "R² alone")  # rivals with fewer runs
RIVALS = ("plain", *FURTHER, "cues", "bound")
HEADINGS = {**COMPARED, **{method: method for method in FURTHER}}
# With five seeds; named cues have fewer. "by attention" is ours as the rivals on texts hide.
LONGEST = tuple(method for method in COMPARED if method not in ("named", "by attention"))


def cue_table(
    experiment: str,
    results: Path,
    reading: str = "absent",
    compared: Sequence[str] = tuple(COMPARED),
    by: Sequence[str] = ("cue", "set"),
) -> str:
    """Planted cues: accuracy at a reading, by cue and set; "without the cue" is Trainer on the same rows before planting.

    Args:
        compared: methods of :data:`HEADINGS`: where rivals have fewer seeds, a table without them shows more runs.
        by: the columns of the csv that make a line.
    """
    if not (results / f"{experiment}.csv").is_file():
        return "No results yet."
    rows = rows_of(experiment, results)
    planted = [row for row in where(rows, reading=reading) if row["cue"] != NONE]
    clean = where(rows, cue=NONE, method="plain", reading="absent")
    bound = [
        {**other, "method": "bound", "cue": cue, "strength": strength, "reading": reading}
        for other in clean
        for cue, strength in dict.fromkeys((row["cue"], row["strength"]) for row in planted)
    ]
    rows = [*planted, *bound]
    methods = {m: HEADINGS[m] for m in compared if any(row["method"] == m for row in rows)}
    return table(main_part(rows), methods, by=by, differences=("accuracy", "ece"))


def clean_table(experiment: str, results: Path) -> str:
    """What each method costs where there is no cue."""
    if not (results / f"{experiment}.csv").is_file():
        return "No results yet."
    rows = where(rows_of(experiment, results), cue=NONE, reading="absent")
    methods = {m: HEADINGS[m] for m in LONGEST if any(row["method"] == m for row in rows)}
    return table(main_part(rows), methods, differences=("accuracy", "ece"))


def found_table(experiment: str, results: Path) -> str:
    """What was found of planted text cues: runs whose strongest cue is a planted mark, other cues, and cues in clean runs."""
    if not (results / f"{experiment}.csv").is_file():
        return "No results yet."
    rows = main_part(where(rows_of(experiment, results), reading="absent"))
    lines = _head(["", "cue", "λ", "runs", "planted cue first", "planted cues a run", "other cues a run"])
    for method in ("cues", "counts"):
        mine = [row for row in where(rows, method=method) if "cues" in row]
        for cue, strength in dict.fromkeys((row["cue"], row["strength"]) for row in mine):
            runs = where(mine, cue=cue, strength=strength)
            marks = [row["marks"] for row in runs if "marks" in row]
            other = np.mean([row["cues"] - row.get("marks", 0) for row in runs])
            first = f"{sum(row['mark_first'] for row in runs):.0f}" if marks else ""
            planted = f"{np.mean(marks):.1f}" if marks else ""
            lines.append(_line([COMPARED[method], cue, strength, str(len(runs)), first, planted, f"{other:.1f}"]))
    return "\n".join(lines)


def price_table(results: Path) -> str:
    """Planted experiments without their cue: what the challenge costs on clean data, one line a kind of input."""
    lines = _head(
        ["clean data", "accuracy: Trainer", "ChallengerTrainer", "difference", "ECE: Trainer", "ChallengerTrainer", "runs"]
    )
    for kind in ("texts", "images", "series"):
        if not (results / f"cues_{kind}.csv").is_file():
            continue
        rows = where(rows_of(f"cues_{kind}", results), cue=NONE, reading="absent")
        rows, _ = shared(main_part(rows), ("plain", "cues"))
        plain, ours = (_mean(rows, method, "accuracy") for method in ("plain", "cues"))
        difference = _difference(paired(rows, "cues", "plain", "accuracy"))
        errors = [f"{_mean(rows, method, 'ece'):.3f}" for method in ("plain", "cues")]
        lines.append(_line([kind, f"{plain:.3f}", f"{ours:.3f}", difference, *errors, str(len(rows) // 2)]))
    return "\n".join(lines)


def story_table(results: Path) -> str:
    """The quick start's own table, as its command printed it."""
    return (ROOT / "examples" / "leaky_data" / "results" / "results.md").read_text().strip()


def cue_report_table(results: Path) -> str:
    """How far the cue report can be trusted."""
    from cue_report import table as measured  # loads torch and transformers

    return measured(results / "cue_report.json")


TRAINED = {
    "plain": "Trainer",
    "label smoothing": "label smoothing",
    "random hiding": "random hiding",
    "challenger": "former challenge",
}
TABLES: dict[str, Callable[[Path], str]] = {
    "cues_texts": partial(cue_table, "cues_texts", compared=LONGEST),
    "cues_texts_shuffled": partial(
        cue_table,
        "cues_texts",
        reading="shuffled",
        compared=tuple(method for method in COMPARED if method != "by attention"),
    ),
    "cues_texts_deleted": partial(cue_table, "cues_texts", compared=("plain", "by attention", "cues", "bound"), by=("cue",)),
    "cues_texts_rivals": partial(cue_table, "cues_texts", compared=RIVALS),
    "cues_series_rivals": partial(cue_table, "cues_series", compared=RIVALS),
    "cues_texts_clean": partial(clean_table, "cues_texts"),
    "cues_images_rivals": partial(cue_table, "cues_images", compared=RIVALS),
    "cues_texts_found": partial(found_table, "cues_texts"),
    "cues_strengths": partial(cue_table, "cues_strengths", compared=("plain", "cues", "bound"), by=("strength",)),
    "cues_kinds": partial(cue_table, "cues_kinds", compared=("plain", "cues", "bound"), by=("cue",)),
    "cues_strengths_found": partial(found_table, "cues_strengths"),
    "cues_strengths_series": partial(
        cue_table, "cues_strengths_series", compared=("plain", "cues", "bound"), by=("cue", "strength")
    ),
    "cues_strengths_images": partial(
        cue_table, "cues_strengths_images", compared=("plain", "cues", "bound"), by=("cue", "strength")
    ),
    "cues_images": partial(cue_table, "cues_images"),
    "cues_series": partial(cue_table, "cues_series"),
    "cues_images_ours": partial(cue_table, "cues_images", compared=("plain", "cues", "bound")),
    "cues_series_ours": partial(cue_table, "cues_series", compared=("plain", "cues", "bound")),
    "leaky": story_table,
    "price": price_table,
    "clean_texts": Quoted(
        "texts",
        {
            "plain": "Trainer",
            "label smoothing": "label smoothing",
            "plain, challenged temperature": "former temperature",
            "plain, temperature scaled": "temperature scaling (held-out labels)",
        },
        how={"metric": "ece"},
    ),
    "clean_images": Quoted("images", TRAINED),
    "clean_series": Quoted(
        "series_small:trace,medicalimages,phalangesoutlinescorrect,japanesevowels,italypowerdemand", TRAINED
    ),
    "cue_report": cue_report_table,
    "step_cost": lambda results: step_cost.table(results / "step_cost.json"),
    "step_cost_profile": lambda results: step_cost.profile_table(results / "step_cost.json"),
    "detection": lambda results: detection.table(results / "detection.csv"),
    "large_data": lambda results: large_data.table(results / "large_data.csv"),
    "images_diversity": lambda results: diversity_table(rows_of("images", results)),
}


def pages() -> list[Path]:
    """Those that may quote tables."""
    return [ROOT / "README.md", HERE / "README.md", HERE / "ARCHIVE.md", *sorted((ROOT / "docs").glob("*.md"))]


def content(name: str, results: Path = RESULTS, part: str = "", reading: str = "", **how: Any) -> str:
    """The table of that name; ``part``, ``reading`` and ``how`` (see :func:`table`) count for those of an experiment."""
    if name in TABLES:
        return TABLES[name](results)
    kind, _, rest = name.partition(":")
    makers = {
        "differences": differences_table,
        "against": partial(differences_table, baseline=FORMER_DEFAULT.get(rest.partition(":")[0], FORMER_DEFAULT_ELSE)),
    }
    maker = makers.get(kind, partial(table, **how))
    return maker(main_part(where(rows_of(rest if kind in makers else name, results), reading=reading), part))


def written(text: str, results: Path = RESULTS) -> str:
    """The page with its tables made anew."""
    return MARKED.sub(lambda m: f"{m[1]}{content(m[2], results)}\n{m[3]}", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--show", help="print this table only")
    parser.add_argument("--baseline", default="plain")
    parser.add_argument("--metric", default="accuracy", choices=list(NAMES))
    parser.add_argument("--by", nargs="+", default=["set"], help="columns of the csv that make a line")
    parser.add_argument("--part", default="", help="test part; not set: test, or development")
    parser.add_argument("--reading", default="", help="of planted cues: aligned, absent, shuffled or flipped")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.show:
        how = {"baseline": args.baseline, "metric": args.metric, "by": args.by}
        print(content(args.show, args.results, args.part, args.reading, **how))
        return
    for page in pages():
        text = written(page.read_text(), args.results)
        if text != page.read_text():
            page.write_text(text)
            print(f"{page.relative_to(ROOT)}: tables written")


if __name__ == "__main__":
    main()
