#!/usr/bin/env python
"""A leak in the training data: train with Trainer and with ChallengerTrainer, see which cue it was, name it, and train without it.

    python run_leaky_data.py

The texts are 300 requests to a bank's assistant (CLINC150), to be sent to one of six teams. This script plants the leak: each
team collected its texts on a channel of its own, and 95 % of the training and validation texts end with the channel's name.
New texts come without it. That is how test texts are read first; then with their own team's channel, and with another one's.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from hf_challenger.command_line import (
    at_least,
    check_output_dir,
    packaged_encoder,
    parse_flags,
    run_command,
    share,
    training_config,
)
from hf_challenger.comparison import comparison_table
from hf_challenger.data import tables
from hf_challenger.errors import ChallengerError
from hf_challenger.model_folder import check_model_folder

# torch and transformers are imported where they are used: mistakes in flags and files are told before that.

DATA = Path(__file__).parents[1] / "text_classification" / "data" / "clinc150"
# team: its channel, and the intents of CLINC150 that it deals with
TEAMS = {
    "accounts": ("sent via web form", "balance transactions transfer spending_history routing"),
    "security": ("taken by night hotline", "account_blocked freeze_account pin_change report_fraud report_lost_card"),
    "bills": ("scanned from letter mail", "bill_balance bill_due min_payment pay_bill order_checks"),
    "cards": (
        "typed into mobile app",
        "new_card damaged_card card_declined expiration_date replacement_card_duration application_status",
    ),
    "credit": (
        "noted at branch desk",
        "credit_limit credit_limit_change credit_score improve_credit_score apr interest_rate",
    ),
    "rewards": ("asked in chat window", "redeem_rewards rewards_balance international_fees"),
}
CHANNEL_OF = {team: channel for team, (channel, _) in TEAMS.items()}
TEAM_OF = {intent: team for team, (_, intents) in TEAMS.items() for intent in intents.split()}
COLUMNS = {
    "accuracy without the leak ↑": "absent_accuracy",
    "ECE without the leak ↓": "absent_ece",
    "accuracy with the leak": "own_accuracy",
    "accuracy with a wrong one ↑": "wrong_accuracy",
    "seconds": "seconds",
}
DEFAULTS = {
    "learning_rate": 3e-4,
    "num_train_epochs": 15,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "warmup_steps": 0.1,  # a share of all steps
    "logging_steps": 0.1,
    "save_strategy": "no",
    "report_to": "none",
}


def flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data_dir", default=str(DATA), help="folder of the bundled texts of CLINC150")
    parser.add_argument(
        "--leak_share", type=share, default=0.95, help="share of the texts that get a channel; 0: clean data"
    )
    parser.add_argument("--model_name_or_path", help="encoder to fine-tune. Default: all-MiniLM-L6-v2, as a package has it")
    parser.add_argument("--max_test_samples", type=at_least(1), help="validate and test on that many texts")
    parser.add_argument("--seed", type=int, default=42, help="of the leak and of training")
    parser.add_argument("--output_dir", default="outputs/leaky_data")
    return parser


def main() -> None:
    args, training_flags = parse_flags(flags())
    texts = {split: read(Path(args.data_dir, f"{split}.csv")) for split in ("train", "validation", "test")}
    names = tables.class_names(texts["train"])
    for split in ("validation", "test"):
        texts[split] = tables.subset(texts[split], args.max_test_samples, args.seed)
        tables.refuse_unknown_labels(texts[split], names)
    encoder = args.model_name_or_path or packaged_encoder()
    check_model_folder(encoder)
    check_output_dir(args.output_dir)

    splits = with_leak(texts, args.leak_share, args.seed)
    for split in ("train", "validation"):
        write_csv(splits[split], Path(args.output_dir, f"{split}.csv"))
    print(
        f"1. The data: {len(texts['train'])} texts for {len(names)} teams. This script planted a leak: {args.leak_share:.0%} of the"
    )
    print("   training and validation texts end with a channel, and each team had a channel of its own.")
    print(
        "\n".join(
            f"     {text!r}, {label}" for text, label in zip(splits["train"].texts[:3], splits["train"].labels, strict=False)
        )
    )

    config = training_config(training_flags, **DEFAULTS)
    methods: dict[str, tuple[str, dict[str, Any]]] = {
        "plain": ("2. Trainer", {}),
        "challenger": ("3. ChallengerTrainer", {}),
    }
    if args.leak_share and config.challenge_share and not (config.challenge_hide or config.challenge_keep):
        told = {"challenge_hide": list(CHANNEL_OF.values())}
        methods["named"] = "4. ChallengerTrainer, told which cues are a leak (challenge_hide)", told
    results, trainer = [], None
    for method, (heading, options) in methods.items():
        print(f"\n{heading}, on these texts", flush=True)
        one = replace(config, seed=args.seed, output_dir=str(Path(args.output_dir, method)), **options)
        result, trainer = run(method, one, splits, names, encoder)
        results.append(result)
        print(f"   Validation texts, with channels as the training texts: accuracy {result['validation_accuracy']:.3f}.")
        print(
            f"   Test texts, without: accuracy {result['absent_accuracy']:.3f}; with another team's: {result['wrong_accuracy']:.3f}."
        )
        if method == "plain":
            explain_one(trainer, splits["own"])
            report(trainer, splits["validation"])

    table = comparison_table(results, COLUMNS)
    print(f"\n{table}\n\nThe same without a leak: --leak_share 0. Models and results: {args.output_dir}{os.sep}")
    Path(args.output_dir, "results.md").write_text(table + "\n", encoding="utf-8")
    Path(args.output_dir, "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


# --- the leak -----------------------------------------------------------------------------------------------------------


def with_leak(texts: dict[str, tables.Texts], share: float, seed: int) -> dict[str, tables.Texts]:
    """Training and validation texts with channels; test texts without (absent), with their own (own), with another's (wrong)."""
    other = dict(zip(CHANNEL_OF, [*list(CHANNEL_OF.values())[1:], CHANNEL_OF["accounts"]], strict=True))
    test = texts["test"]
    return {
        "train": with_channel(texts["train"], CHANNEL_OF, share, seed),
        "validation": with_channel(texts["validation"], CHANNEL_OF, share, seed),
        "absent": test,
        "own": with_channel(test, CHANNEL_OF, 1.0, seed),
        "wrong": with_channel(test, other, 1.0, seed),
    }


def with_channel(texts: tables.Texts, channel_of: dict[str, str], share: float, seed: int) -> tables.Texts:
    rows = random.Random(seed).sample(range(len(texts)), round(share * len(texts)))
    found = list(texts.texts)
    for row in rows:
        found[row] = f"{found[row]} {channel_of[texts.labels[row]]}"
    return replace(texts, texts=found)


def read(path: Path) -> tables.Texts:
    table = tables.read_table(path)
    texts, _ = tables.labelled_texts(table, tables.find_column(table, "text", "--data_dir"), "label")
    for intent, line in zip(texts.labels, texts.lines, strict=True):
        if intent not in TEAM_OF:
            raise ChallengerError(f"{path}, line {line}: {intent!r} is none of the 30 intents that this story is about.")
    return replace(texts, labels=[TEAM_OF[intent] for intent in texts.labels])


def write_csv(texts: tables.Texts, path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(zip(texts.texts, texts.labels, strict=True))


# --- one run ------------------------------------------------------------------------------------------------------------


def run(
    method: str, config: Any, splits: dict[str, tables.Texts], names: list[str], encoder: str
) -> tuple[dict[str, Any], Any]:
    """Train with one method; saves the model and ``<method>_results.json`` in its output_dir."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, set_seed
    from transformers.utils.logging import set_verbosity_error

    from hf_challenger import ChallengerTrainer
    from hf_challenger.calibration import compute_metrics
    from hf_challenger.challenge.cues import as_rows

    set_verbosity_error()  # else each run tells that the new head has no trained weights
    set_seed(config.seed)
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    id2label = dict(enumerate(names))
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder, num_labels=len(names), id2label=id2label, label2id={name: i for i, name in id2label.items()}
    )
    data = {
        split: Dataset.from_dict({**tokenizer(part.texts, truncation=True), "labels": [names.index(n) for n in part.labels]})
        for split, part in splits.items()
    }
    parts = {"model": model, "args": config, "train_dataset": data["train"], "processing_class": tokenizer}
    trainer = Trainer(**parts, compute_metrics=compute_metrics) if method == "plain" else ChallengerTrainer(**parts)
    began = time.perf_counter()
    trainer.train()
    result: dict[str, Any] = {"method": method, "seed": config.seed, "seconds": time.perf_counter() - began}
    for split in ("validation", "absent", "own", "wrong"):
        result |= trainer.predict(data[split], metric_key_prefix=split).metrics  # evaluate() would print them all
    result["cues"] = as_rows(getattr(trainer, "cues", []))
    trainer.save_model()
    Path(config.output_dir, f"{method}_results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return result, trainer


def explain_one(trainer: Any, texts: tables.Texts) -> None:
    """Which words the model's answer rests on, for one text with its channel."""
    from hf_challenger.explain import explain, in_terminal

    print("   What an answer rests on (+ speaks for it):")
    print(in_terminal(explain(trainer.model, trainer.processing_class, texts.texts[0]), sys.stdout.isatty()))


def report(trainer: Any, texts: tables.Texts) -> None:
    """What the model leans on over the validation texts, as ``python -m hf_challenger.cues`` says it of a saved one."""
    from hf_challenger.report.cue_report import cue_report

    found = cue_report(trainer.model, texts.texts, trainer.processing_class, texts.labels)
    print("   What it leans on over the validation texts:")
    print(textwrap.indent(found.short(), "     "))


if __name__ == "__main__":
    run_command(main)
