#!/usr/bin/env python
"""Ways to fit a temperature without held-out labels: 100 texts, MiniLM, 200 steps, the same runs for all of them.

    python benchmarks/calibration.py --data_dir ../shared/data

as trained     no temperature
calibrated     what CalibrationCallback does
cross-fit      the last layer's input, refitted on five folds by logistic regression; temperature scaling on left-out rows
held-out       temperature scaling on 100 labelled rows that no other way sees: the bound

One line of JSON a run is appended to --out, and finished runs are skipped. benchmarks/results/calibration.csv holds what came
out, with "hiding" (the search over hidden units that was there before) from the last version that had it.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
from run import rows_of, temperature_of
from sets import load
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from torch import Tensor
from transformers import PrinterCallback, set_seed

from hf_challenger import ChallengerConfig, ChallengerTrainer
from hf_challenger.calibration import classification_metrics, expected_accuracy, fit_temperature
from hf_challenger.last_layer import last_layer_of

PARTS = {"development": ("trec", "sst2", "tweet_emotion"), "test": ("subj", "agnews_small", "cad_nli")}
TRAINING = {"learning_rate": 1e-4, "lr_scheduler_type": "linear", "warmup_steps": 0.1, "weight_decay": 0.01}
FOLDS = 5


def cross_fit(features: Tensor, labels: Tensor) -> float:
    """Temperature scaling on rows that the refitted last layer has not seen; the encoder has."""
    x, y = features.numpy(), labels.numpy()
    x = (x - x.mean(0)) / np.linalg.norm(x - x.mean(0), axis=1).mean()
    left_out = np.full((len(y), y.max() + 1), -20.0)
    for fit, rest in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(x, y):
        head = LogisticRegression(C=10.0, max_iter=2000).fit(x[fit], y[fit])
        left_out[np.ix_(rest, head.classes_)] = head.predict_log_proba(x[rest])
    return fit_temperature(left_out, y)


def run_one(data_dir: Path, name: str, part: str, seed: int, share: float) -> dict[str, Any]:
    task = load("minilm", data_dir, name, 100, seed, part)
    set_seed(seed)
    model, tokenizer = task.build()
    with tempfile.TemporaryDirectory() as folder:
        options = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True, "log_level": "error", "use_cpu": True}
        sizes = {"per_device_train_batch_size": 8, "per_device_eval_batch_size": 64, "max_steps": 200}
        args = ChallengerConfig(folder, seed=seed, challenge_share=share, calibrate=False, **options, **sizes, **TRAINING)
        trainer = ChallengerTrainer(model, args, train_dataset=task.train, processing_class=tokenizer)
        trainer.remove_callback(PrinterCallback)
        accuracy = expected_accuracy(model, rows_of(trainer, task))
        trainer.train()
        model.eval()
        features, answers = [], []
        with torch.no_grad():
            for batch in rows_of(trainer, task):
                answers.append(batch.pop("labels"))
                features.append(last_layer_of(model, batch).features)
        held_out = trainer.predict(task.held_out)
        new = trainer.predict(task.development if part == "development" else task.test["test"])
    temperatures = {
        "as trained": 1.0,
        "calibrated": temperature_of(trainer, task, accuracy),
        "cross-fit": cross_fit(torch.cat(features), torch.cat(answers)),
        "held-out": fit_temperature(held_out.predictions, held_out.label_ids),
    }
    found = {
        t: {"temperature": v, **classification_metrics(new.predictions / v, new.label_ids)} for t, v in temperatures.items()
    }
    return {"set": name, "part": part, "seed": seed, "share": share, "expected_accuracy": accuracy, "methods": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with a folder for each set")
    parser.add_argument("--part", choices=PARTS, default="development")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--share", type=float, default=0.0, help="challenge_share of the training")
    parser.add_argument("--out", type=Path, default=Path("outputs/calibration.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    lines = args.out.read_text().splitlines() if args.out.is_file() else []
    keys = ("set", "part", "seed", "share")
    done = {tuple(json.loads(line)[k] for k in keys) for line in lines}
    for seed in args.seeds:
        for name in PARTS[args.part]:
            if (name, args.part, seed, args.share) in done:
                continue
            result = run_one(args.data_dir, name, args.part, seed, args.share)
            with args.out.open("a") as file:
                file.write(json.dumps(result) + "\n")
            shown = ", ".join(f"{m}: {v['ece']:.3f} / {v['nll']:.3f}" for m, v in result["methods"].items())
            print(f"{name} {seed} (ECE / NLL)  {shown}", flush=True)


if __name__ == "__main__":
    main()
