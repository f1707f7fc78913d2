"""What a saved classifier leans on, over texts, images or series: ``python -m hf_challenger.cues MODEL --file data.csv``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .command_line import check_output_file, run_command
from .data.tables import Texts, find_column, find_text_column, labelled_texts, read_table
from .errors import ChallengerError
from .model_folder import FLOATS, TEXTS, check_classifier

NEXT = (
    "\nA cue may be legitimate evidence or a leak: that is for you to decide. To train without leaks, give ChallengerTrainer those of"
    " these that are leaks, with all values of a leak that you know:"
)
NAMED = 10  # cues there
IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp")

# torch and transformers are imported where they are used: mistakes in arguments and files are told before that.


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m hf_challenger.cues", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="folder of a saved classifier, or its name on the Hub")
    parser.add_argument(
        "--file",
        required=True,
        help="csv or json with a column of texts, or of paths of images; a folder with a folder of images a class; or npz with"
        " x and y, or x_test and y_test. Best of rows kept out of training",
    )
    parser.add_argument("--text_column", help="of texts or paths. Default: text, or else the column with the longest texts")
    parser.add_argument("--text_pair_column", help="second text, for a model of sentence pairs")
    parser.add_argument("--label_column", help="default: label, if there is such a column")
    parser.add_argument("--unlabelled", action="store_true", help="take the model's predictions as classes, not labels")
    parser.add_argument("--rows", type=int, default=500, help="rows that are read at most, drawn at random (default: 500)")
    parser.add_argument("--top", type=int, default=3, help="candidates of each class (default: 3)")
    parser.add_argument("--json", help="also write the report there, as json")
    parser.add_argument("--html", help="also write the report there, as a page with example rows")
    parser.add_argument("--png", help="also write a picture there (needs matplotlib)")
    parser.add_argument("--delimiter", help="between the columns of the file. Default: found from its header")
    parser.add_argument("--encoding", help="of the file. Default: UTF-8, or else Windows-1252")
    args = parser.parse_args(argv)
    run_command(_run, args)


def _run(args: argparse.Namespace) -> None:
    for name in ("rows", "top"):
        if getattr(args, name) < 1:
            raise ChallengerError(f"--{name} {getattr(args, name)} is expected to be 1 or more.")
    arrays = Path(args.file).is_dir() or args.file.lower().endswith(".npz")
    if arrays and (args.text_column or args.text_pair_column or args.label_column):
        raise ChallengerError(f"{args.file} has no columns: leave --text_column, --text_pair_column and --label_column out.")
    texts, notes = (None, []) if arrays else _texts(args)
    floats = texts is None or all(text.lower().endswith(IMAGE_FILES) for text in texts.texts)
    check_classifier(args.model, FLOATS if floats else TEXTS)
    for flag in ("json", "html", "png"):
        if getattr(args, flag):
            check_output_file(f"--{flag}", getattr(args, flag), args.file)
    if args.png and not args.png.lower().endswith((".png", ".pdf", ".svg")):
        raise ChallengerError(f"--png {args.png!r} is expected to end with .png (or .pdf, .svg).")
    print("\n".join([*notes, "Loading the model …"]), file=sys.stderr, flush=True)
    if floats or texts is None:
        report = _report_on_floats(args, texts)
    else:
        from .report.cue_report import cue_report
        from .saved_model import load_text_classifier

        model, tokenizer = load_text_classifier(args.model)
        labels = texts.labels if any(texts.labels) else None
        report = cue_report(model, texts.texts, tokenizer, labels, pairs=texts.pairs, rows=args.rows, top=args.top)
    print(report)
    if report.leaned_on:
        print(f"{NEXT} challenge_hide={list(dict.fromkeys(cue.text for cue in report.leaned_on))[:NAMED]!r}.")
    title = f"What {Path(args.model).name} leans on in {Path(args.file).name}"
    if args.json:
        _write(args.json, json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n")
    if args.html:
        from .report.cue_html import cue_page

        _write(args.html, cue_page(report, title))
    if args.png:
        from .visualize import cue_figure

        cue_figure(report, title).savefig(args.png, dpi=150)
        print(f"Wrote {args.png}", file=sys.stderr)


def _report_on_floats(args: argparse.Namespace, table: Texts | None) -> Any:
    """Images that a table names, or those of a folder, or the arrays of an npz file."""
    from .data.arrays import load_part, npz_in
    from .data.images import files_by_class
    from .float_rows import FloatRows
    from .report.cue_report import cue_report
    from .saved_model import load_float_classifier

    data: Any
    lengths, path = None, Path(args.file)
    if table is not None:
        data = [path.parent / name for name in table.texts]
        names: Any = table.labels if any(table.labels) else None
        if missing := [file for file in data if not file.is_file()]:
            raise ChallengerError(f"{args.file} names {str(missing[0])!r}, which does not exist.")
    elif (npz := npz_in(path)) is not None:
        data, names, lengths = load_part(npz)
    else:
        data, names = files_by_class(path)
    names = None if args.unlabelled else names
    if table is None:
        of = "the model's predictions" if names is None else "as given"
        print(f"Classes: {of}. Rows: {min(args.rows, len(data))} of {len(data)}.", file=sys.stderr, flush=True)
    model, processor = load_float_classifier(args.model)
    rows: Any = FloatRows(model, processor, data, names, lengths)
    try:
        return cue_report(model, rows, rows=args.rows, top=args.top)
    except RuntimeError as error:  # which torch raises for a shape that does not fit
        shape, reason = tuple(rows[0][rows.key].shape), str(error).splitlines()[0]
        raise ChallengerError(
            f"{args.file}: the model cannot read rows of one size, {rows.key} of shape {shape} ({reason}). Bring them to the"
            " size that it was trained on."
        ) from error


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
