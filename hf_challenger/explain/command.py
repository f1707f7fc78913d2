"""Why a saved text classifier decided so: ``python -m hf_challenger.explain MODEL --text "where is my card"``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..command_line import check_model_folder, check_output_file, keys_of
from ..errors import ChallengerError, check_choice
from .explanation import Explanation, check_not_empty
from .terminal import in_terminal, wants_colours

# torch and transformers are imported where they are used: mistakes in arguments and files are told before that.

MOMENT = 2.0  # seconds


def _texts(args: argparse.Namespace) -> list[str]:
    texts = list(args.text or [])
    if args.file is not None:
        try:
            lines = Path(args.file).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ChallengerError(
                f"--file {args.file!r} cannot be read ({error}). One text a line is expected, in UTF-8."
            ) from error
        texts += [line for line in lines if line.strip()]
    for text in texts:
        check_not_empty("text", text)
    if not texts:
        raise ChallengerError("There is no text to explain. Give --text, or a --file with one text a line.")
    return texts


def _with_progress(texts: list[str]) -> Iterable[str]:
    """A bar on stderr, if it is a terminal and the work takes longer than a moment; transformers' own switches turn it off
    (HF_HUB_DISABLE_PROGRESS_BARS, transformers.utils.logging.disable_progress_bar)."""
    from transformers.utils.logging import tqdm

    bar: Iterable[str] = tqdm(texts, desc="explaining", unit="text", delay=MOMENT, disable=None, leave=False)
    return bar


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    methods, composites = (keys_of(f"attribution/{name}.py", name.upper()) for name in ("methods", "composites"))
    parser = argparse.ArgumentParser(prog="python -m hf_challenger.explain", description=__doc__, allow_abbrev=False)
    parser.add_argument("model", help="folder of a saved text classifier, or its name on the Hub")
    parser.add_argument("--text", action="append", help="text to explain; may be given several times")
    parser.add_argument("--file", help="file with one text a line")
    parser.add_argument(
        "--text-pair", "--text_pair", action="append", help="second text of each --text, for a model of pairs"
    )
    parser.add_argument("--class", dest="label", help="class to explain, by name or index (default: the predicted one)")
    parser.add_argument("--top", type=int, default=1, help="explain that many of the most probable classes (default: 1)")
    parser.add_argument("--method", default="lrp", help=f"one of: {', '.join(methods)} (default: lrp)")
    parser.add_argument("--composite", default="attnlrp", help=f"rules of lrp: {', '.join(composites)} (default: attnlrp)")
    parser.add_argument("--html", help="also write a page there")
    parser.add_argument("--png", help="also write a picture there (needs matplotlib)")
    parser.add_argument("--json", help="also write all numbers there, as json")
    args = parser.parse_args(argv)
    try:
        check_choice("--method", args.method, methods)
        check_choice("--composite", args.composite, composites)
        _run(args)
    except ChallengerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _run(args: argparse.Namespace) -> None:
    texts = _texts(args)
    pairs = _pairs(args, texts)
    if args.png and not args.png.lower().endswith((".png", ".pdf", ".svg")):
        raise ChallengerError(f"--png {args.png!r} is expected to end with .png (or .pdf, .svg).")
    if args.top < 1 or (args.top > 1 and args.label is not None):
        raise ChallengerError(f"--top {args.top} is expected to be 1 or more, and without --class.")
    for flag in ("html", "png", "json"):
        if getattr(args, flag):
            check_output_file(f"--{flag}", getattr(args, flag), args.file)
    check_model_folder(args.model)

    from .loading import load

    model, tokenizer = load(args.model)
    found = [e for text in _with_progress(texts) for e in _explain_classes(args, model, tokenizer, text, pairs.pop(0))]
    print("\n\n".join(in_terminal(e, wants_colours()) for e in found))
    _write(args, found)


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


def _write(args: argparse.Namespace, found: list[Explanation]) -> None:
    try:
        if args.html:
            from ..heatmap_html import html_page

            title = f"Why {Path(args.model).name} decided so ({args.method})"
            Path(args.html).write_text(html_page([(*e.shown(), e.heading, e.note) for e in found], title), encoding="utf-8")
            print(f"\nWrote {args.html}")
        if args.json:
            rows = [{k: None if v != v else v for k, v in asdict(e).items()} for e in found]  # NaN is no json
            Path(args.json).write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"\nWrote {args.json}")
        if args.png:
            from ..visualize import token_heatmap

            token_heatmap([(*e.shown(), e.heading) for e in found]).savefig(args.png, dpi=150)
            print(f"\nWrote {args.png}")
    except OSError as error:
        raise ChallengerError(f"The result cannot be written ({error}). Choose a path that can be.") from error
