#!/usr/bin/env python
"""Train an image classifier from scratch with ChallengerTrainer, with Trainer, or with both to compare.

    python run_image_classification.py --compare                    # scikit-learn's digits, ten of each; no file needed
    python run_image_classification.py --compare --model vit --seeds 0 1 2 3 4
    python run_image_classification.py --data_dir my_images --max_train_samples_per_class 0

``my_images`` holds ``train/<class>/*.png`` and ``test/<class>/*.png``, all of one size, or ``data.npz``.
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

MODELS = ("cnn", "resnet", "convnext", "vit")
DEFAULTS = {
    "learning_rate": 3e-3,
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
    parser.add_argument("--data_dir", help="folder of images, or an npz file. Default: scikit-learn's digits")
    parser.add_argument("--model", default="cnn", choices=MODELS, help="network to train from scratch")
    parser.add_argument("--max_train_samples_per_class", type=at_least(0), default=10, help="images of each class; 0: all")
    parser.add_argument(
        "--largest_shift", type=at_least(0), default=1, help="training images are moved by up to that many pixels"
    )
    parser.add_argument("--method", default="challenger", choices=["challenger", "plain"], help="plain: Trainer")
    parser.add_argument("--compare", action="store_true", help="train with both from the same seed")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--seeds", type=int, nargs="+", help="train once with each; the table shows means")
    parser.add_argument("--output_dir", default="outputs/image_classification")
    return parser


def main() -> None:
    args, training_flags = parse_flags(flags())
    check_output_dir(args.output_dir)

    from hf_challenger.data.images import load_images

    splits = load_images(args.data_dir)
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
    from hf_challenger.small_models import image_model

    set_seed(config.seed)
    splits = subset_per_class(splits, args.max_train_samples_per_class or None, config.seed)
    id2label = dict(enumerate(splits.labels))
    channels, height, width = splits.x_train.shape[1:]
    labels = {"num_labels": len(id2label), "id2label": id2label, "label2id": {name: i for i, name in id2label.items()}}
    model = image_model(args.model, height, width, channels, **labels)
    train = Rows(splits.x_train, splits.y_train, "pixel_values", largest_shift=args.largest_shift)
    test = Rows(splits.x_test, splits.y_test, "pixel_values")
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
    """The model's README.md: results (beside Trainer's with --compare), a reliability diagram, three images explained."""
    import torch

    from hf_challenger import LRP
    from hf_challenger.visualize import image_relevance, reliability_diagram

    prediction = trainer.predict(test)
    probabilities = torch.as_tensor(prediction.predictions).float().softmax(1)
    rows = [int((splits.y_test == label).argmax()) for label in range(min(3, len(splits.labels)))]
    images, labels = test.x[rows], test.y[rows]
    model = trainer.model.cpu().eval()
    relevance = LRP(model).attribute({"pixel_values": images}, target=labels)
    heat_maps = {}
    for row, image, label, found in zip(rows, images, labels.tolist(), relevance, strict=True):
        name, predicted = splits.labels[label], splits.labels[int(probabilities[row].argmax())]
        heat_maps[f"{name}, predicted: {predicted}"] = image_relevance(image, found, name)
    plain = Path(trainer.args.output_dir).parent / "plain" / "plain_results.json"
    trainer.create_model_card(
        baseline=json.loads(plain.read_text(encoding="utf-8")) if args.compare else None,
        reliability_diagram=reliability_diagram(probabilities, torch.as_tensor(prediction.label_ids)),
        heat_maps=heat_maps,
        dataset=None if args.data_dir else "scikit-learn's digits",
    )


if __name__ == "__main__":
    run_command(main)
