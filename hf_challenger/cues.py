"""What a saved text classifier leans on, over a file of texts: ``python -m hf_challenger.cues MODEL --file data.csv``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from .command_line import check_output_file, check_text_classifier, run_command
from .data.tables import Texts, find_column, find_text_column, labelled_texts, read_table
from .errors import ChallengerError

# torch and transformers are imported where they are used: mistakes in arguments and files are told before that.


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m hf_challenger.cues", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="folder of a saved text classifier, or its name on the Hub")
    parser.add_argument(
        "--file", required=True, help="csv or json with a column of texts, best of rows kept out of training"
    )
    parser.add_argument("--text_column", help="default: text, or else the column with the longest texts")
    parser.add_argument("--text_pair_column", help="second text, for a model of sentence pairs")
    parser.add_argument("--label_column", help="default: label, if there is such a column")
    parser.add_argument("--unlabelled", action="store_true", help="take the model's predictions as classes, not labels")
    parser.add_argument("--rows", type=int, default=500, help="texts that are read at most, drawn at random (default: 500)")
    parser.add_argument("--top", type=int, default=3, help="candidates of each class (default: 3)")
    parser.add_argument("--json", help="also write the report there, as json")
    parser.add_argument("--html", help="also write the report there, as a page with example rows")
    parser.add_argument("--delimiter", help="between the columns of the file. Default: found from its header")
    parser.add_argument("--encoding", help="of the file. Default: UTF-8, or else Windows-1252")
    args = parser.parse_args(argv)
    run_command(_run, args)


def _run(args: argparse.Namespace) -> None:
    texts, notes = _texts(args)
    for name in ("rows", "top"):
        if getattr(args, name) < 1:
            raise ChallengerError(f"--{name} {getattr(args, name)} is expected to be 1 or more.")
    check_text_classifier(args.model)
    for flag in ("json", "html"):
        if getattr(args, flag):
            check_output_file(f"--{flag}", getattr(args, flag), args.file)
    print("\n".join(notes), file=sys.stderr)
    print("Loading the model …", file=sys.stderr, flush=True)

    from .explain.loading import load
    from .report.cue_report import cue_report

    model, tokenizer = load(args.model)
    labels = texts.labels if any(texts.labels) else None
    report = cue_report(model, texts.texts, tokenizer, labels, pairs=texts.pairs, rows=args.rows, top=args.top)
    print(report)
    if args.json:
        _write(args.json, json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n")
    if args.html:
        from .report.cue_html import cue_page

        _write(args.html, cue_page(report, f"What {Path(args.model).name} leans on in {Path(args.file).name}"))


def _texts(args: argparse.Namespace) -> tuple[Texts, list[str]]:
    """The file's texts, with empty labels where the predictions are the classes, and notes on how it was read."""
    table = read_table(args.file, args.delimiter, args.encoding)
    pair = find_column(table, args.text_pair_column, "--text_pair_column") if args.text_pair_column else None
    if args.unlabelled:
        label = None
    elif args.label_column:
        label = find_column(table, args.label_column, "--label_column")
    else:
        label = next((column for column in table.columns if column.casefold() == "label"), None)
    text = find_text_column(table, args.text_column, others=(pair, label, "label"))
    texts, left_out = labelled_texts(table, text, label, pair)
    of = "the model's predictions" if label is None else f"column {label!r}"
    columns = f"Text: column {text!r}{f' and {pair!r}' if pair else ''}. Classes: {of}."
    read = f"Rows: {min(args.rows, len(texts))} of {len(texts)}."
    return texts, [*table.notes, *left_out, columns, read]


def _write(path: str, content: str) -> None:
    try:
        Path(path).write_text(content, encoding="utf-8")
    except OSError as error:
        raise ChallengerError(f"{path!r} cannot be written ({error.strerror}). Name another file.") from error
    print(f"Wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
