"""Why a saved classifier decided so: ``python -m hf_challenger.explain MODEL --text "where is my card"``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..command_line import check_output_file, keys_of, run_command
from ..data.tables import find_text_column, read_table
from ..errors import ChallengerError, check_choice
from ..model_folder import FLOATS, TEXTS, check_classifier
from .explanation import Explanation, check_not_empty
from .files import read_image, read_series
from .terminal import in_terminal, places_in_terminal, wants_colours

# torch and transformers are imported where they are used: mistakes in arguments and files are told before that.

MOMENT = 2.0  # seconds
TABLES = (".csv", ".tsv", ".json", ".jsonl")
LOADING = "Loading the model …"


def _texts(args: argparse.Namespace) -> list[str]:
    texts = list(args.text or [])
    if args.file is not None:
        texts += _texts_of_file(args.file)
    for text in texts:
        check_not_empty("text", text)
    if not texts:
        raise ChallengerError(
            "There is nothing to explain. Give --text, or a --file with one text a line; or --image or --series."
        )
    return texts


def _texts_of_file(name: str) -> list[str]:
    if name.lower().endswith(TABLES):
        table = read_table(name, None, None)
        column = find_text_column(table, None, others=("label",))
        texts = [row[column] for row in table.rows]
    else:
        try:
            texts = Path(name).read_text(encoding="utf-8-sig").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ChallengerError(
                f"--file {name!r} cannot be read ({error}). One text a line is expected, in UTF-8."
            ) from error
    filled = [text for text in texts if text.strip()]
    if not filled:
        raise ChallengerError(f"--file {name!r} holds no text. One text a line is expected, or csv or json.")
    return filled


def _with_progress(texts: list[str]) -> Iterable[str]:
    """A bar on stderr, if it is a terminal and the work takes longer than a moment; transformers' own switches turn it off
    (HF_HUB_DISABLE_PROGRESS_BARS, transformers.utils.logging.disable_progress_bar)."""
    from transformers.utils.logging import tqdm

    bar: Iterable[str] = tqdm(texts, desc="explaining", unit="text", delay=MOMENT, disable=None, leave=False)
    return bar


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m hf_challenger.explain", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="folder of a saved classifier, or its name on the Hub")
    parser.add_argument("--text", action="append", help="text to explain; may be given several times")
    parser.add_argument("--file", help="file with one text a line, or csv or json with a column of texts")
    parser.add_argument(
        "--text-pair", "--text_pair", action="append", help="second text of each --text, for a model of pairs"
    )
    parser.add_argument("--image", help="png or jpg to explain, for a classifier of images")
    parser.add_argument(
        "--series", help="npy, npz or csv of (time, channels), scaled as in training, for a classifier of series"
    )
    parser.add_argument("--class", dest="label", help="class to explain, by name or index (default: the predicted one)")
    parser.add_argument("--top", type=int, default=1, help="explain that many of the most probable classes (default: 1)")
    parser.add_argument("--method", default="lrp", help=f"one of: {', '.join(_methods())} (default: lrp)")
    parser.add_argument(
        "--composite", default="attnlrp", help=f"rules of lrp: {', '.join(_composites())} (default: attnlrp)"
    )
    parser.add_argument("--html", help="also write a page there")
    parser.add_argument("--png", help="also write a picture there (needs matplotlib)")
    parser.add_argument("--json", help="also write all numbers there, as json")
    args = parser.parse_args(argv)
    run_command(_run, args)


def _methods() -> list[str]:
    return keys_of("attribution/methods.py", "METHODS")


def _composites() -> list[str]:
    return keys_of("attribution/composites.py", "COMPOSITES")


def _run(args: argparse.Namespace) -> None:
    check_choice("--method", args.method, _methods())
    check_choice("--composite", args.composite, _composites())
    image = series = None
    texts, pairs = [], []
    if args.image or args.series:
        _check_one_input(args)
        image = read_image(args.image) if args.image else None
        series = read_series(args.series) if args.series else None
    else:
        texts = _texts(args)
        pairs = _pairs(args, texts)
    if args.png and not args.png.lower().endswith((".png", ".pdf", ".svg")):
        raise ChallengerError(f"--png {args.png!r} is expected to end with .png (or .pdf, .svg).")
    if args.top < 1 or (args.top > 1 and args.label is not None):
        raise ChallengerError(f"--top {args.top} is expected to be 1 or more, and without --class.")
    for flag in ("html", "png", "json"):
        if getattr(args, flag):
            check_output_file(f"--{flag}", getattr(args, flag), args.file or args.image or args.series)
    if args.image or args.series:
        check_classifier(args.model, FLOATS)
        print(LOADING, file=sys.stderr, flush=True)
        _explain_file(args, image, series)
        return
    check_classifier(args.model, TEXTS)
    print(LOADING, file=sys.stderr, flush=True)

    from ..saved_model import load_text_classifier

    model, tokenizer = load_text_classifier(args.model)
    found = [e for text in _with_progress(texts) for e in _explain_classes(args, model, tokenizer, text, pairs.pop(0))]
    print("\n\n".join(in_terminal(e, wants_colours()) for e in found))
    with _writing():
        if args.html:
            from ..heatmap_html import html_page

            title = f"Why {Path(args.model).name} decided so ({args.method})"
            Path(args.html).write_text(html_page([(*e.shown(), e.heading, e.note) for e in found], title), encoding="utf-8")
            print(f"\nWrote {args.html}")
        _write_json(args, found)
        if args.png:
            from ..visualize import token_heatmap

            _write_png(args, token_heatmap([(*e.shown(), e.heading) for e in found]))


def _check_one_input(args: argparse.Namespace) -> None:
    given = [flag for flag in ("image", "series", "text", "file", "text_pair", "html") if getattr(args, flag)]
    if len(given) > 1:
        flags = " and ".join("--" + flag.replace("_", "-") for flag in given)
        raise ChallengerError(f"{flags} do not go together. Give one --image or --series, with --png or --json.")
    if args.png and args.top > 1:
        raise ChallengerError("--png shows one class of an image or a series. Leave --top out, or choose a --class.")


def _explain_file(args: argparse.Namespace, image: Any, series: Any) -> None:
    """An image or a series: its most relevant places in the terminal, a picture, and json."""
    from ..saved_model import load_float_classifier
    from .places import explain_places, pixels_of, steps_of

    model, processor = load_float_classifier(args.model)
    expected, flag = ("pixel_values", "--image") if image is not None else ("past_values", "--series")
    if model.main_input_name != expected:
        right = {"pixel_values": "--image", "past_values": "--series", "input_ids": "--text"}.get(str(model.main_input_name))
        way = f"Use {right}" if right else "Inputs of that kind cannot be read from a file"
        raise ChallengerError(f"{type(model).__name__} takes {model.main_input_name}, not what {flag} gives. {way}.")
    x = pixels_of(image, model, processor) if image is not None else steps_of(series, model)
    if image is not None and image.size != (x.shape[2], x.shape[1]):
        sizes = f"from {image.width}×{image.height} to {x.shape[2]}×{x.shape[1]} pixels"
        print(f"The image is scaled {sizes}, which the model takes. Rows and columns count the latter.", file=sys.stderr)
    file, how = args.image or args.series, (args.method, args.composite)
    first, relevance = explain_places(model, x, file, *how, label=args.label)
    others = [explain_places(model, x, file, *how, label=label)[0] for label, _ in first.ranking[1 : args.top]]
    found = [first, *others]
    print("\n\n".join(places_in_terminal(e, wants_colours()) for e in found))
    with _writing():
        _write_json(args, found)
        if args.png:
            from ..visualize import image_relevance, series_relevance

            _write_png(args, (image_relevance if image is not None else series_relevance)(x, relevance, first.heading))


def _pairs(args: argparse.Namespace, texts: list[str]) -> list[str | None]:
    if args.text_pair is None:
        return [None] * len(texts)
    if len(args.text_pair) != len(texts):
        raise ChallengerError(
            f"There are {len(texts)} texts and {len(args.text_pair)} second ones. Give one --text-pair for each --text."
        )
    for pair in args.text_pair:
        check_not_empty("second text", pair)
    return list(args.text_pair)


def _explain_classes(args: argparse.Namespace, model: Any, tokenizer: Any, text: str, pair: str | None) -> list[Explanation]:
    from .texts import explain

    first = explain(model, tokenizer, text, args.method, args.composite, pair=pair, label=args.label)
    others = [label for label, _ in first.ranking[1 : args.top]]
    return [first] + [explain(model, tokenizer, text, args.method, args.composite, pair=pair, label=o) for o in others]


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ChallengerError(f"The result cannot be written ({error}). Choose a path that can be.") from error


def _write_json(args: argparse.Namespace, found: Sequence[Any]) -> None:
    if args.json:
        rows = [{k: None if v != v else v for k, v in asdict(e).items()} for e in found]  # NaN is no json
        Path(args.json).write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"\nWrote {args.json}")


def _write_png(args: argparse.Namespace, figure: Any) -> None:
    figure.savefig(args.png, dpi=150)
    print(f"\nWrote {args.png}")
