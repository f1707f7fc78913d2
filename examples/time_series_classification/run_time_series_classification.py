#!/usr/bin/env python
"""Train a time series classifier from scratch with ChallengerTrainer, with Trainer, or with both to compare.

    python run_time_series_classification.py --compare             # BasicMotions: a smart watch's six channels, bundled
    python run_time_series_classification.py --compare --set italypowerdemand
    python run_time_series_classification.py --compare --model patchtst --seeds 0 1 2 3 4
    python run_time_series_classification.py --data_dir my_series

``my_series`` is an npz file with x_train (rows, time, channels), y_train, x_test and y_test, or a folder with that as
``data.npz``, or with files ``NAME_TRAIN`` and ``NAME_TEST`` in the csv, tsv, txt or ts formats of the UCR and UEA archives.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_challenger.command_line import at_least, check_output_dir, parse_flags, run_command, training_config
from hf_challenger.comparison import comparison_table

# torch and transformers are imported where they are used: mistakes in flags and files are told before that.

DATA = Path(__file__).parent / "data"
BUNDLED = {"basicmotions": "BasicMotions", "italypowerdemand": "ItalyPowerDemand"}
MODELS = ("fcn", "fcn-small", "resnet1d", "patchtst")
DEFAULTS = {
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,  # a share of all steps
    "max_steps": 400,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 256,
    "logging_steps": 0.1,
    "save_strategy": "no",
    "report_to": "none",
}


def flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", help="folder or npz file. Default: the bundled set that --set names")
    parser.add_argument("--set", default="basicmotions", choices=BUNDLED, help="bundled set, where there is no --data_dir")
    parser.add_argument("--model", default="fcn", choices=MODELS, help="network to train from scratch")
    parser.add_argument("--max_train_samples_per_class", type=at_least(1), help="train on that many series of each class")
    parser.add_argument("--method", default="challenger", choices=["challenger", "plain"], help="plain: Trainer")
    parser.add_argument("--compare", action="store_true", help="train with both from the same seed")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--seeds", type=int, nargs="+", help="train once with each; the table shows means")
    parser.add_argument("--output_dir", default="outputs/time_series_classification")
    return parser


def main() -> None:
    args, training_flags = parse_flags(flags())
    check_output_dir(args.output_dir)

    from hf_challenger.data.arrays import standardised
    from hf_challenger.data.series import load_series

    splits = standardised(load_series(args.data_dir or DATA / args.set))
    config = training_config(training_flags, **DEFAULTS)

    results = []
    for seed in args.seeds or [args.seed]:
        for method in ("plain", "challenger") if args.compare else (args.method,):
            folder = Path(args.output_dir, *([f"seed{seed}"] if args.seeds else []), method)
            results.append(run(method, args, replace(config, seed=seed, output_dir=str(folder)), splits))

    table = comparison_table(results)
    print(f"\n{table}\n")
    Path(args.output_dir, "results.md").write_text(table + "\n", encoding="utf-8")
    Path(args.output_dir, "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"Models, cards with pictures, and results: {args.output_dir}{os.sep}")


def run(method: str, args: argparse.Namespace, config: Any, splits: Any) -> dict[str, Any]:
    """Train with one method; saves the model, its card and ``<method>_results.json`` in its output_dir."""
    from transformers import Trainer, set_seed

    from hf_challenger import ChallengerTrainer
    from hf_challenger.calibration import compute_metrics
    from hf_challenger.challenge.cues import as_rows
    from hf_challenger.data.arrays import subset_per_class
    from hf_challenger.data.rows import Rows
    from hf_challenger.small_models import series_model

    set_seed(config.seed)
    splits = subset_per_class(splits, args.max_train_samples_per_class, config.seed)
    id2label = dict(enumerate(splits.labels))
    length, channels = splits.x_train.shape[1:]
    labels = {"num_labels": len(id2label), "id2label": id2label, "label2id": {name: i for i, name in id2label.items()}}
    model = series_model(args.model, length, channels, **labels)
    label_name = "target_values" if args.model == "patchtst" else "labels"  # PatchTST's own name for the class
    config = replace(config, label_names=[label_name])
    train = Rows(splits.x_train, splits.y_train, "past_values", label_name, splits.length_train)
    test = Rows(splits.x_test, splits.y_test, "past_values", label_name, splits.length_test)
    print(f"\n=== {method}: {len(train)} rows, {len(id2label)} classes, seed {config.seed} ===", flush=True)
    parts = {"model": model, "args": config, "train_dataset": train}
    trainer = Trainer(**parts, compute_metrics=compute_metrics) if method == "plain" else ChallengerTrainer(**parts)
    began = time.perf_counter()
    trainer.train()
    result = {"method": method, "seed": config.seed, "model": args.model, "train_samples": len(train)}
    result |= {"seconds": time.perf_counter() - began, **trainer.evaluate(test, metric_key_prefix="test")}
    result["cues"] = as_rows(getattr(trainer, "cues", []))
    trainer.save_model()
    folder = Path(config.output_dir)
    (folder / f"{method}_results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if method == "challenger":
        write_card(trainer, args, splits, test)
    return result


def write_card(trainer: Any, args: argparse.Namespace, splits: Any, test: Any) -> None:
    """The model's README.md: results (beside Trainer's with --compare), a reliability diagram, three series explained."""
    import torch

    from hf_challenger import LRP
    from hf_challenger.visualize import reliability_diagram, series_relevance

    prediction = trainer.predict(test)
    scores = prediction.predictions
    probabilities = torch.as_tensor(scores[0] if isinstance(scores, tuple) else scores).float().softmax(1)
    rows = [int((splits.y_test == label).argmax()) for label in range(min(3, len(splits.labels)))]
    batch = torch.utils.data.default_collate([test[row] for row in rows])
    labels = batch.pop(test.label_name)
    relevance = LRP(trainer.model.cpu().eval()).attribute(batch, target=labels)
    heat_maps = {}
    for row, series, label, found in zip(rows, batch["past_values"], labels.tolist(), relevance, strict=True):
        name, predicted = splits.labels[label], splits.labels[int(probabilities[row].argmax())]
        heat_maps[f"{name}, predicted: {predicted}"] = series_relevance(series, found, name)
    plain = Path(trainer.args.output_dir).parent / "plain" / "plain_results.json"
    trainer.create_model_card(
        baseline=json.loads(plain.read_text(encoding="utf-8")) if args.compare else None,
        reliability_diagram=reliability_diagram(probabilities, torch.as_tensor(prediction.label_ids)),
        heat_maps=heat_maps,
        dataset=None if args.data_dir else BUNDLED[args.set],
    )


if __name__ == "__main__":
    run_command(main)
