"""Classify the texts of a file: ``python -m hf_challenger.predict MODEL --file new.csv --output answers.csv``."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from typing import Any

from .classes import check_single_label
from .command_line import check_output_file, run_command
from .data.tables import Table, find_column, find_text_column, read_table
from .errors import ChallengerError
from .model_folder import TEXTS, check_classifier

# torch and transformers are imported where they are used: mistakes in arguments and files are told before that.

BATCH = 32  # texts


def predict(model: Any, tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[tuple[str, float]]:
    """The most probable class of each text and its probability.

    Args:
        model: a single-label text classifier of transformers.
        tokenizer: its own.
        texts: one or more; those longer than the model takes are cut.
        pairs: the second text of each, for a model of sentence pairs.

    Raises:
        ChallengerError: a regression or multi-label head; logits that are NaN or infinite.
    """
    import torch

    from .attribution.state import attribution_state
    from .explain.lengths import longest_input
    from .logits import logits_of

    check_single_label(model)
    if len(texts) > 1 and getattr(tokenizer, "pad_token_id", None) is None:
        raise ChallengerError(
            "The tokenizer has no padding token. Set it as in training: tokenizer.pad_token = tokenizer.eos_token."
        )
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # little padding
    device, limit = next(model.parameters()).device, longest_input(model, tokenizer)
    answers: dict[int, tuple[str, float]] = {}
    with attribution_state(model), torch.no_grad():
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            second = None if pairs is None else [pairs[i] for i in rows]
            batch = tokenizer(
                [texts[i] for i in rows], second, truncation=True, max_length=limit, padding=True, return_tensors="pt"
            )
            logits = logits_of(model(**batch.to(device)), model).float()
            if not logits.isfinite().all():
                raise ChallengerError(
                    "The model's logits are NaN or infinite: its weights are damaged. Load another checkpoint."
                )
            confidences, classes = logits.softmax(-1).max(-1)
            for i, label, confidence in zip(rows, classes.tolist(), confidences.tolist(), strict=True):
                answers[i] = (str(model.config.id2label.get(label, label)), confidence)
    return [answers[i] for i in range(len(texts))]


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m hf_challenger.predict", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="folder of a saved text classifier, or its name on the Hub")
    parser.add_argument("--file", required=True, help="csv or json with a column of texts")
    parser.add_argument("--output", required=True, help="csv to write: the file's columns, then label and confidence")
    parser.add_argument("--text_column", help="default: text, or else the column with the longest texts")
    parser.add_argument("--text_pair_column", help="second text, for a model of sentence pairs")
    parser.add_argument("--delimiter", help="between the columns of the file. Default: found from its header")
    parser.add_argument("--encoding", help="of the file. Default: UTF-8, or else Windows-1252")
    args = parser.parse_args(argv)
    run_command(_run, args)


def _run(args: argparse.Namespace) -> None:
    table = read_table(args.file, args.delimiter, args.encoding)
    pair = find_column(table, args.text_pair_column, "--text_pair_column") if args.text_pair_column else None
    text = find_text_column(table, args.text_column, others=(pair, "label"))
    check_classifier(args.model, TEXTS)
    check_output_file("--output", args.output, args.file)
    print("\n".join([*table.notes, f"Text: column {text!r}{f' and {pair!r}' if pair else ''}."]), flush=True)

    from .saved_model import load_text_classifier

    model, tokenizer = load_text_classifier(args.model)
    filled = [i for i, row in enumerate(table.rows) if row[text].strip()]
    if len(filled) < len(table.rows):
        print(f"{len(table.rows) - len(filled)} texts are empty; they get no label.")
    texts, pairs = ([table.rows[i][column] for i in filled] if column else None for column in (text, pair))
    answers = dict(zip(filled, predict(model, tokenizer, texts or [], pairs), strict=True))
    _write(args.output, table, answers)
    print(f"{len(answers)} texts classified: {args.output}")


def _write(output: str, table: Table, answers: dict[int, tuple[str, float]]) -> None:
    """The file's own columns, then label and confidence; own columns of these names get ``given_`` before them."""
    own: dict[str, str] = {}
    for name in table.columns:
        told = name
        while told in ("label", "confidence") or (
            told != name and told in table.columns
        ):  # a file that was written here before
            told = f"given_{told}"
        own[name] = told
    try:
        with open(output, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([*own.values(), "label", "confidence"])
            for i, row in enumerate(table.rows):
                label, confidence = answers.get(i, ("", None))
                told = "" if confidence is None else f"{confidence:.4f}"
                writer.writerow([*(row[name] for name in own), label, told])
    except OSError as error:
        raise ChallengerError(f"--output {output!r} cannot be written ({error.strerror}). Name another one.") from error


if __name__ == "__main__":
    main()
