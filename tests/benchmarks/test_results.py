"""From runs to tables: the csv, means over shared runs only, verdicts only where an interval excludes 0."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import export  # noqa: E402
import paired  # noqa: E402
import tables  # noqa: E402


def row(method="plain", name="s", seed=0, accuracy=0.5, part="test", **more):
    scores = {"ece": 0.1, "nll": 1.0, "brier": 0.3}
    place = {"model": "m", "set": name, "size": "1", "method": method, "seed": str(seed), "part": part}
    return {**dict.fromkeys(export.KEY, ""), **place, "accuracy": accuracy, **scores, **more}


def run(method="plain", seed=0, parts=("test",), **more):
    scores = {"rows": 10, "accuracy": 0.5, "ece": 0.1, "nll": 1.0, "brier": 0.3}
    scores |= {f"{k}_scaled": v / 2 for k, v in scores.items() if k != "rows"}
    cell = {"model": "m", "set": "s", "size": None, "method": method, "seed": seed}
    return {**cell, "seconds": 2.0, "metrics": dict.fromkeys(parts, scores), **more}


def toy_rows(effect, sets=4, seeds=8, spread=0.02):
    rng = np.random.default_rng(1)
    return [
        row(method, f"s{name}", seed, 0.7 - 0.05 * name + (effect if method == "ours" else 0) + spread * rng.normal())
        for name in range(sets)
        for seed in range(seeds)
        for method in ("plain", "ours")
    ]


def line(shown, first):
    (found,) = (text for text in shown.splitlines() if text.startswith(f"| {first} |"))
    return [cell.strip() for cell in found.strip("|").split("|")][1:]


# --- export -----------------------------------------------------------------------------------------------------------------


def exported(tmp_path, runs, **how):
    (tmp_path / "runs").mkdir(exist_ok=True)
    (tmp_path / "runs" / "e.jsonl").write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in runs))
    return export.export("e", tmp_path / "runs", tmp_path / "results", **how)


def test_the_latest_of_a_cells_runs_counts(tmp_path):
    path = exported(tmp_path, [run(seconds=1.0), '{"cut sho', run(seconds=3.0), run(seed=1, seconds=5.0)])
    assert [(r["seed"], r["seconds"]) for r in export.read(path) if r["method"] == "plain"] == [("0", 3.0), ("1", 5.0)]


def test_a_run_gives_one_row_a_part_reading_and_temperature(tmp_path):
    calibrated = {
        "t": {"temperature": 2.0, "metrics": {p: run()["metrics"]["test"] for p in ("test/absent", "test/flipped")}}
    }
    parts = ("test/absent", "test/flipped")
    one = run(
        parts=parts, calibrated=calibrated, cue="word", strength=0.9, cpu_seconds=1.5, diversity={"effective_rank": 3.25}
    )
    rows = export.read(exported(tmp_path, [one, run(parts=parts)]))
    assert len(rows) == 3 * 2 + 2 * 2
    assert {r["reading"] for r in rows} == {"absent", "flipped"}
    assert {r["part"] for r in rows} == {"test"}
    (found,) = tables.where(rows, method="plain", cue="word", strength=0.9, reading="absent")
    assert (found["accuracy"], found["seconds"], found["effective_rank"], found["rows"]) == (0.5, 1.5, 3.25, 10)
    (scaled,) = tables.where(rows, method="plain, temperature scaled", cue="word", reading="absent")
    assert scaled["nll"] == 0.5
    assert "seconds" not in scaled


def test_cues_of_a_run_are_told_apart_from_what_was_planted(tmp_path):
    found = [
        {"cue": "received the partner portal", "class": 2},
        {"cue": "the portal", "class": 2},
        {"cue": "wired", "class": 0},
    ]
    planted = {"cue": "phrase", "strength": 0.95, "parts": ("test/absent",)}
    clean = {"cue": "none", "strength": 0, "parts": ("test/absent",)}
    runs = [
        run("cues", cues=found, **planted),
        run("cues", 1, cues=found[1:], **planted),
        run("cues", cues=found[2:], **clean),
    ]
    path = exported(tmp_path, runs)
    counted = [[r.get(k) for k in ("cue", "cues", "marks", "mark_first")] for r in export.read(path)]
    assert counted == [["none", 1, None, None], ["phrase", 3, 1, 1], ["phrase", 2, 0, 0]]
    path.rename(path.with_name("cues.csv"))
    shown = tables.found_table("cues", path.parent).splitlines()
    assert shown[2:] == ["| **ours** | none | 0 | 1 |  |  | 1.0 |", "| **ours** | phrase | 0.95 | 2 | 1 | 0.5 | 2.0 |"]


def test_columns_that_no_row_fills_are_left_out(tmp_path):
    header = exported(tmp_path, [run()]).read_text().splitlines()[0]
    assert header == "model,set,method,seed,part,rows,accuracy,ece,nll,brier,seconds"


def test_rows_that_would_be_lost_are_named(tmp_path):
    exported(tmp_path, [run(), run("other")])
    with pytest.raises(SystemExit, match=r"1 rows that e.jsonl lacks, for example m s other 0 test.*--replace"):
        exported(tmp_path, [run()])
    assert {r["method"] for r in export.read(exported(tmp_path, [run("x")], replace=True))} == {"x"}


def test_a_csv_with_two_rows_of_a_run_is_refused(tmp_path):
    export.write(tmp_path / "e.csv", [row(), row()])
    with pytest.raises(SystemExit, match="two rows of the run m s 1 plain 0 test"):
        export.read(tmp_path / "e.csv")


# --- paired -----------------------------------------------------------------------------------------------------------------


def test_intervals_hold_a_known_effect_and_exclude_zero_only_where_it_is_there():
    found = paired.paired(toy_rows(-0.05), "ours", "plain", "accuracy")
    assert found.low < -0.05 < found.high < 0
    assert (found.pairs, found.sets, found.verdict) == (32, 4, "worse")
    assert paired.paired(toy_rows(-0.05), "plain", "ours", "accuracy").verdict == "better"
    none = paired.paired(toy_rows(0.0), "ours", "plain", "accuracy")
    assert none.low < 0 < none.high
    assert none.verdict == ""


def test_lower_is_better_for_errors():
    rows = [{**r, "nll": r["accuracy"]} for r in toy_rows(-0.05)]
    assert paired.paired(rows, "ours", "plain", "nll").verdict == "better"


def test_sets_are_clusters():
    """One set with a large effect is one observation, however many seeds it has."""
    rows = toy_rows(0.0, spread=0.001)
    for r in rows:
        if r["method"] == "ours" and r["set"] == "s0":
            r["accuracy"] += 0.2
    found = paired.paired(rows, "ours", "plain", "accuracy")
    assert found.high > 0.1
    assert found.low < 0.002  # it may be missing from a draw of sets


def test_a_few_runs_make_no_interval():
    few = paired.paired(toy_rows(-0.05, sets=2, seeds=2), "ours", "plain", "accuracy")
    assert np.isnan(few.low)
    assert few.verdict == ""
    assert paired.paired(toy_rows(-0.05, sets=1, seeds=5), "ours", "plain", "accuracy").verdict == "worse"


def test_only_shared_cells_are_compared():
    rows = [r for r in toy_rows(-0.05) if not (r["method"] == "ours" and int(r["seed"]) > 3)]
    assert paired.paired(rows, "ours", "plain", "accuracy").pairs == 16
    with pytest.raises(SystemExit, match="mixup"):
        paired.paired(rows, "mixup", "plain", "accuracy")


def test_half_width_is_student_s_t():
    values = np.array([0.1, 0.2, 0.6])
    assert paired.half_width(values) == pytest.approx(4.30 * values.std(ddof=1) / 3**0.5)
    assert np.isnan(paired.half_width(values[:2]))


# --- tables -----------------------------------------------------------------------------------------------------------------


def test_every_quoted_table_is_what_the_committed_results_say():
    for page in tables.pages():
        assert tables.written(page.read_text()) == page.read_text(), f"run `make tables`: {page.name}"


def test_a_mean_is_over_the_runs_that_all_methods_have():
    """Unpaired, a method that was only run on the easy set looks better; paired it is worse."""
    rows = [row("plain", name, seed, a) for name, a in (("easy", 0.9), ("hard", 0.5)) for seed in range(5)]
    rows += [row("ours", "easy", seed, 0.8) for seed in range(5)]
    shown = tables.table(rows)
    assert line(shown, "**mean accuracy**") == ["**0.900**", "**0.800**"]
    assert line(shown, "accuracy − plain") == ["", "-0.100 [-0.100, -0.100] worse"]
    assert "hard" not in shown
    assert shown.endswith("\n\n5 runs a method; 5 further runs are left out, since not all of the methods have them.")


def test_lines_are_means_over_seeds_with_their_interval():
    rows = [row("plain", "a", seed, x, size=size) for seed, x in enumerate((0.1, 0.2, 0.6)) for size in ("1", "2")]
    half = paired.half_width([0.1, 0.2, 0.6])  # the sizes of a seed are one observation
    assert line(tables.table(rows, differences=()), "a") == [f"0.300 ± {half:.3f}"]
    assert line(tables.table(rows[:2], differences=()), "a") == ["0.100"]


def test_planted_cues_make_a_table_of_cue_by_method():
    rows = [
        row(m, name, seed, a - 0.1 * (reading == "flipped"), cue=cue, reading=reading, strength="0.9")
        for name in ("x", "y")
        for seed in range(3)
        for cue, plain, ours in (("word", 0.5, 0.8), ("tag", 0.6, 0.7))
        for m, a in (("plain", plain), ("ours", ours))
        for reading in ("absent", "flipped")
    ]
    with pytest.raises(SystemExit, match="one reading, and these rows have several: absent, flipped"):
        tables.table(rows, by=("cue",))
    shown = tables.table(tables.where(rows, reading="absent"), {"plain": "Trainer", "ours": "Ours"}, by=("cue",))
    assert shown.splitlines()[0] == "| cue | Trainer | Ours |"
    assert line(shown, "word") == ["0.500 ± 0.000", "0.800 ± 0.000"]
    assert line(shown, "accuracy − Trainer") == ["", "+0.200 [+0.200, +0.200] better"]
    flipped = tables.table(tables.where(rows, reading="flipped"), by=("cue", "set"))
    assert line(flipped, "tag y")[0] == "0.500 ± 0.000"


def test_development_and_test_parts_share_no_table():
    both = [row(), row(part="development", seed=1)]
    with pytest.raises(SystemExit, match="never share a table"):
        tables.main_part(both)
    assert tables.main_part(both, "development") == [both[1]]
    assert tables.main_part([row(), row(part="test_contrast")]) == [row()]
    with pytest.raises(SystemExit, match="several: development, test"):
        tables.table(both)


def test_differences_are_on_the_runs_that_a_method_shares_with_the_baseline():
    rows = [row("plain", "a", seed, 0.5) for seed in range(6)] + [row("many", "a", seed, 0.6) for seed in range(6)]
    rows += [row("few", "a", seed, 0.4) for seed in range(2)] + [row("none", "b", 0, 0.4)]
    shown = tables.differences_table(rows)
    assert line(shown, "many")[:2] == ["6", "+0.100 [+0.100, +0.100] better"]
    assert line(shown, "few")[:2] == ["2", "-0.100 (too few runs)"]
    assert "none" not in shown


def test_rivals_stand_against_the_former_default(tmp_path):
    ours = "plain, challenged temperature"
    export.write(tmp_path / "texts.csv", [row(m, "a", k, nll=x) for k in range(5) for m, x in (("plain", 3), (ours, 1))])
    shown = tables.written("<!-- table: against:texts -->\n<!-- end of table -->", tmp_path)
    assert line(shown, "plain")[3] == "+2.000 [+2.000, +2.000] worse"


def test_an_experiment_without_results_is_named_and_a_quoted_table_waits_for_it(tmp_path):
    with pytest.raises(SystemExit, match=r"There is no .*absent.csv; known: "):
        tables.content("absent", tmp_path)
    assert tables.content("cues_texts", tmp_path) == "No results yet."


def test_diversity_is_averaged_over_shared_runs():
    values = (
        ("plain", "a", 0, 2.0),
        ("plain", "a", 1, 9.0),
        ("plain", "b", 0, 7.0),
        ("ours", "a", 0, 4.0),
        ("ours", "b", 0, 5.0),
    )
    rows = [row(m, s, seed, effective_rank=r, filter_cosine=0.25) for m, s, seed, r in values]
    shown = tables.diversity_table([*rows, row("other", "a")])
    assert line(shown, "plain") == ["2.0", "0.250", "7.0", "0.250"]
    assert line(shown, "ours") == ["4.0", "0.250", "5.0", "0.250"]
    assert shown.endswith("1 further runs are left out, since not all of the methods have them.")
