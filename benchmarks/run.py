#!/usr/bin/env python
"""Run experiments: every model × set × size × method × seed, one line of JSON each; finished runs are skipped.

    python benchmarks/run.py benchmarks/experiments/images.json --data_dir ../shared/data --jobs 2

Protocol: the seed draws the training subset, the held-out rows (cut from the training part), the initial weights and the
order of the rows, the same for every method. "report": "development" chooses, on held-out rows of the training part;
"report": "test" reports.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

RUNS = Path(__file__).parent / "runs"  # not in git; export.py makes the csv files of results/ from them
# What a result depends on, beside the cell itself.
PROTOCOL = ("report", "training", "steps")
CALIBRATED = "calibrated"  # the name, in tables, of a method with a temperature fitted without held-out labels


def cells(experiment: dict[str, Any]) -> list[dict[str, Any]]:
    """One dict a run, seeds outermost, so that an interrupted experiment is balanced."""
    return [
        {"model": model, "set": name, "size": size, "method": method, "seed": seed, "settings": settings, **cue}
        for seed in experiment["seeds"]
        for model in experiment["models"]
        for size in experiment.get("sizes", [None])
        for name in experiment["sets"]
        for cue in experiment.get("cues", [{}])  # {"cue": kind, "strength": share of the training rows}; {}: none
        for method, settings in experiment["methods"].items()
        if seed < settings.get("seeds", 10**9) and not (settings.get("only_clean") and cue)
        if not (settings.get("challenge_hide") == "planted" and cue.get("cue") == "none")  # nothing to name
    ]


def fingerprint(experiment: dict[str, Any], cell: dict[str, Any]) -> str:
    """Of everything that determines a run: a result whose settings have changed since is not a result.

    How many seeds a method gets determines no run of it.
    """
    shared = {k: experiment.get(k) for k in PROTOCOL}
    cell = {**cell, "settings": {k: v for k, v in cell["settings"].items() if k != "seeds"}}
    return hashlib.sha256(json.dumps([shared, cell], sort_keys=True).encode()).hexdigest()[:12]


def name_of(cell: dict[str, Any]) -> str:
    size = "all" if cell["size"] is None else cell["size"]
    cue = f"-{cell['cue']}-{cell['strength']}" if cell.get("cue") else ""
    return f"{cell['model']}-{cell['set']}-{size}{cue}-{cell['method']}-{cell['seed']}"


def steps_of(experiment: dict[str, Any], cell: dict[str, Any]) -> int:
    """Optimizer steps: of the experiment ("steps", maybe for each size), times the method's "longer"."""
    steps = experiment["steps"]
    if isinstance(steps, dict):
        steps = steps[cell["set"]] if cell["set"] in steps else steps[str(cell["size"])]
    return round(steps * cell["settings"].get("longer", 1))


def run_cell(experiment: dict[str, Any], cell: dict[str, Any], data_dir: str, threads: int) -> dict[str, Any]:
    """Train and measure one cell; in a worker process, which goes no further once the runner is gone."""
    runner = multiprocessing.parent_process()
    if runner is not None and not runner.is_alive():
        raise SystemExit("The runner has ended.")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from methods import make_trainer, own_settings
    from plant import names
    from sets import load
    from transformers import set_seed

    from hf_challenger import ChallengerConfig
    from hf_challenger.calibration import (
        adaptive_calibration_error,
        classification_metrics,
        fit_temperature,
    )

    torch.set_num_threads(threads)
    report = experiment["report"]
    planted = cell.get("cue", ""), cell.get("strength", 0.0)
    task = load(cell["model"], Path(data_dir), cell["set"], cell["size"], cell["seed"], report, *planted)
    set_seed(cell["seed"])
    model, tokenizer = task.build()
    settings = {k: v for k, v in cell["settings"].items() if k not in ("kind", "longer", "seeds")}
    own, settings = own_settings(cell["settings"]["kind"], settings)
    if settings.get("challenge_hide") == "planted":
        settings["challenge_hide"] = names(cell["cue"], model.config.num_labels)
    with tempfile.TemporaryDirectory() as folder:
        config = ChallengerConfig(
            folder,
            seed=cell["seed"],
            max_steps=steps_of(experiment, cell),
            report_to="none",
            save_strategy="no",
            logging_steps=25,
            disable_tqdm=True,
            log_level="error",
            dataloader_drop_last=len(task.train) >= 16,  # BatchNorm cannot train on a last row that is alone
            label_names=[task.label_name],
            **{**experiment["training"], **settings},
        )
        trainer = make_trainer(
            cell["settings"]["kind"], own, model=model, args=config, processing_class=tokenizer, train_dataset=task.train
        )
        trainer.remove_callback(_printer())
        began, began_cpu = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - began_cpu
        config.dataloader_drop_last = False

        def measures(scores: Any, labels: Any) -> dict[str, float]:
            adaptive = adaptive_calibration_error(scores.double().softmax(-1), labels)
            return {k: round(v, 5) for k, v in classification_metrics(scores, labels).items()} | {
                "adaptive_ece": round(adaptive, 5)
            }

        def logits(rows: Any) -> tuple[Any, Any]:
            prediction = trainer.predict(rows)
            scores = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
            return torch.as_tensor(scores), torch.as_tensor(prediction.label_ids)

        scaled = task.held_out is not None and not cell.get("cue")
        temperature = fit_temperature(*logits(task.held_out)) if scaled else None
        metrics = {}
        parts = task.development if report == "development" else task.test
        if cell.get("cue"):
            parts = {f"{report}/{how}": rows for how, rows in parts.items()}
        for part, rows in parts.items():
            scores, labels = logits(rows)
            metrics[part] = {"rows": len(labels), **measures(scores, labels)}
            if temperature is not None:
                metrics[part] |= {f"{k}_scaled": v for k, v in measures(scores / temperature, labels).items()}
        cues = [
            {"cue": c.text, "class": c.label, "coverage": c.coverage, "strength": c.strength, "hidden_rows": c.hidden_rows}
            for c in getattr(trainer, "cues", [])
        ]
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    return {
        **cell,
        "fingerprint": fingerprint(experiment, cell),
        **{k: experiment.get(k) for k in PROTOCOL},
        "train_rows": len(task.train),
        "steps_taken": trainer.state.global_step,
        "last_losses": {k: v for k, v in history[-1].items() if "loss" in k or "relevance" in k or "share" in k}
        if history
        else {},
        "challenge_rate_at_end": getattr(config, "challenge_rate", None),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,  # of one thread: a busy machine stretches seconds, but hardly these
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # of the worker so far
        "temperature": temperature,
        "metrics": metrics,
        "cues": cues,
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        "hardware": f"{platform.machine()}, {threads} thread(s), {os.cpu_count()} cores",
    }


def _printer() -> Any:
    from transformers import PrinterCallback

    return PrinterCallback


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, nargs="+")
    parser.add_argument("--data_dir", required=True, help="folder with a folder for each set")
    parser.add_argument("--runs", type=Path, default=RUNS, help="folder of the JSON lines")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no further run is started after that time")
    args = parser.parse_args()
    stop = time.monotonic() + 60 * args.minutes
    failed: list[str] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
        for file in args.experiment:
            experiment = json.loads(file.read_text())
            results = args.runs / f"{file.stem}.jsonl"
            wanted, done = cells(experiment), finished(results)
            todo = [c for c in wanted if fingerprint(experiment, c) not in done]
            print(f"{file.stem}: {len(wanted)} runs, {len(wanted) - len(todo)} finished before", flush=True)
            running = {pool.submit(run_cell, experiment, c, args.data_dir, 1): name_of(c) for c in todo}
            for number, future in enumerate(as_completed(running), 1):
                if time.monotonic() > stop:
                    print(f"Time is up: {len(todo) - number + 1} runs are left. Call again to go on.")
                    pool.shutdown(cancel_futures=True)
                    return
                name = running[future]
                if future.exception() is not None:
                    failed.append(name)
                    print(f"{name} failed: {future.exception()!r}", flush=True)
                    continue
                result = future.result()
                append(results, result)
                scores = next(iter(result["metrics"].values()))
                shown = " ".join(f"{k} {scores[k]:.3f}" for k in ("accuracy", "ece", "nll"))
                print(f"[{number}/{len(todo)}] {name}: {shown} ({result['seconds']:.0f} s)", flush=True)
    if failed:
        raise SystemExit(f"{len(failed)} runs failed: {', '.join(failed[:5])} …")


def append(results: Path, result: dict[str, Any]) -> None:
    """One line more. A write that was cut short leaves a line that :func:`finished` does not count."""
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a+b") as file:
        if file.tell() and results.read_bytes()[-1:] != b"\n":
            file.write(b"\n")
        file.write(json.dumps(result).encode() + b"\n")


def finished(results: Path) -> set[str]:
    """Fingerprints of the runs in a file of results; a result whose settings have changed since has another one."""
    done = set()
    for line in results.read_text().splitlines() if results.is_file() else []:
        with contextlib.suppress(json.JSONDecodeError):
            done.add(json.loads(line)["fingerprint"])
    return done


if __name__ == "__main__":
    main()
