#!/usr/bin/env python
"""Run an experiment: every set × size × method × seed, one JSON each; finished runs are skipped.

    python benchmarks/run.py benchmarks/experiments/text_screen.json --data_dir ../shared/data --jobs 2

Protocol: the seed draws the training subset, the development rows (cut from the training part), the head's initial weights
and the order of the rows, the same for every method. "report": "development" chooses; "report": "test" reports. The
temperature is fitted on as many held-out rows as there are training rows.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import resource
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DEVELOPMENT_ROWS = 500


def cells(experiment: dict[str, Any]) -> list[dict[str, Any]]:
    """One dict a run, seeds outermost, so that an interrupted experiment is balanced."""
    return [
        {"set": name, "size": size, "method": method, "seed": seed, "settings": settings}
        for seed in experiment["seeds"]
        for size in experiment["sizes"]
        for name in experiment["sets"]
        for method, settings in experiment["methods"].items()
    ]


def fingerprint(experiment: dict[str, Any], cell: dict[str, Any]) -> str:
    """Of everything that determines a run: a result whose settings have changed since is not a result."""
    shared = {k: experiment[k] for k in ("model", "report", "training")}
    return hashlib.sha256(json.dumps([shared, cell], sort_keys=True).encode()).hexdigest()[:12]


def path_of(results: Path, name: str, cell: dict[str, Any]) -> Path:
    return results / name / f"{cell['set']}-{cell['size']}-{cell['method']}-{cell['seed']}.json"


def run_cell(experiment: dict[str, Any], cell: dict[str, Any], data_dir: str, threads: int) -> dict[str, Any]:
    """Train and measure one cell; in a worker process, which goes no further once the runner is gone."""
    runner = multiprocessing.parent_process()
    if runner is not None and not runner.is_alive():
        raise SystemExit("The runner has ended.")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import models
    import torch
    from methods import make_trainer
    from sets import draw, load_text
    from transformers import set_seed

    from hf_challenger import ChallengerConfig
    from hf_challenger.calibration import classification_metrics, fit_temperature

    torch.set_num_threads(threads)
    data = load_text(Path(data_dir), cell["set"])
    rows, held_out = draw(data.train["label"].to_numpy(), cell["size"], cell["size"] + DEVELOPMENT_ROWS, cell["seed"])
    set_seed(cell["seed"])
    model, tokenizer = models.build(experiment["model"], len(data.classes))

    def tokens(frame: Any) -> list[dict[str, Any]]:
        encoded = tokenizer(*(frame[c].tolist() for c in data.columns), truncation=True, max_length=128)
        return [
            {**{k: v[i] for k, v in encoded.items()}, "labels": int(label)}
            for i, label in enumerate(frame["label"].tolist())
        ]

    settings = dict(cell["settings"])
    kind = settings.pop("kind")
    config = ChallengerConfig(
        str(RESULTS / ".work"),
        seed=cell["seed"],
        report_to="none",
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        **{**experiment["training"], **settings},
    )
    parts = {"model": model, "args": config, "processing_class": tokenizer}
    trainer = make_trainer(kind, **parts, train_dataset=tokens(data.train.iloc[rows]))
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    fit_on, development = held_out[: cell["size"]], held_out[cell["size"] :]
    measured = {"development": data.train.iloc[development]} if experiment["report"] == "development" else data.test
    calibration = trainer.predict(tokens(data.train.iloc[fit_on]))
    temperature = fit_temperature(torch.as_tensor(calibration.predictions), torch.as_tensor(calibration.label_ids))
    metrics = {}
    for part, frame in measured.items():
        prediction = trainer.predict(tokens(frame))
        logits, labels = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
        scaled = {f"{k}_scaled": v for k, v in classification_metrics(logits / temperature, labels).items()}
        metrics[part] = {"rows": len(labels), **classification_metrics(logits, labels), **scaled}
    return {
        **cell,
        "fingerprint": fingerprint(experiment, cell),
        "model": experiment["model"],
        "training": experiment["training"],
        "train_rows": len(rows),
        "steps": trainer.state.global_step,
        "seconds": seconds,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,  # of the worker so far
        "temperature": temperature,
        "metrics": metrics,
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
        "hardware": f"{platform.machine()}, {threads} thread(s), {os.cpu_count()} cores",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", type=Path, nargs="+")
    parser.add_argument("--data_dir", required=True, help="folder with a folder for each set")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time, one thread each")
    args = parser.parse_args()
    for file in args.experiment:
        experiment = json.loads(file.read_text())
        wanted = cells(experiment)
        todo = [c for c in wanted if not finished(path_of(args.results, file.stem, c), fingerprint(experiment, c))]
        print(f"{file.stem}: {len(wanted)} runs, {len(wanted) - len(todo)} finished before", flush=True)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(args.jobs, mp_context=context) as pool:
            running = {pool.submit(run_cell, experiment, c, args.data_dir, 1): c for c in todo}
            for number, future in enumerate(as_completed(running), 1):
                cell, result = running[future], future.result()
                path = path_of(args.results, file.stem, cell)
                path.parent.mkdir(parents=True, exist_ok=True)
                unfinished = path.with_suffix(".tmp")
                unfinished.write_text(json.dumps(result, indent=1) + "\n")
                unfinished.replace(path)  # a killed run leaves no half a result
                first = next(iter(result["metrics"].values()))
                print(
                    f"[{number}/{len(todo)}] {path.stem}: accuracy {first['accuracy']:.3f} ece {first['ece']:.3f}"
                    f" nll {first['nll']:.3f} ({result['seconds']:.0f} s)",
                    flush=True,
                )


def finished(path: Path, expected: str) -> bool:
    return path.is_file() and json.loads(path.read_text())["fingerprint"] == expected


if __name__ == "__main__":
    main()
