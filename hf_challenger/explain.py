"""Why a saved text classifier decided so: ``python -m hf_challenger.explain MODEL --text "where is my card"``."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers.utils.logging import tqdm

from .attribution.composites import COMPOSITES
from .attribution.methods import METHODS
from .attribution.state import attribution_state
from .detokenize import readable
from .errors import ChallengerError, check_choice
from .heatmap_html import html_page
from .inputs.tokens import Tokens
from .logits import logits_of

MOMENT = 2.0  # seconds


@dataclass(frozen=True)
class Explanation:
    """What a classifier said about one text, and what it said it for.

    Attributes:
        text: as given.
        label: the class with the highest score.
        confidence: its probability; NaN for a regression.
        score: its logit, which relevance explains, in the same unit.
        words: words of the text, or tokens where the tokenizer does not tell which belong together.
        relevance: of each word: the sum over its tokens.
        elsewhere: relevance on special tokens.
        cut: whether the text was longer than the model takes.
    """

    text: str
    label: str
    confidence: float
    score: float
    words: list[str]
    relevance: list[float]
    elsewhere: float
    cut: bool

    @property
    def heading(self) -> str:
        sure = "" if self.confidence != self.confidence else f", confidence {self.confidence:.2f}"
        return f"{self.label}{sure}, score {self.score:.2f}"

    @property
    def note(self) -> str:
        cut = " The text was cut to the model's length." if self.cut else ""
        return f"Special tokens: {self.elsewhere:+.2f}.{cut}"


def explain(model: nn.Module, tokenizer: Any, text: str, method: str = "lrp", composite: str = "attnlrp") -> Explanation:
    """Relevance of a text's words for the class that the model predicts.

    Args:
        model: a text classifier of transformers.
        tokenizer: its own.
        text: not empty.
        method: see :mod:`hf_challenger.attribution.methods`.
        composite: rules of ``method="lrp"``, see :mod:`hf_challenger.attribution.composites`.

    Raises:
        ChallengerError: for an empty text, or one without a known token; unknown names; NaN or infinite logits or relevance.
    """
    check_choice("method", method, METHODS)
    check_choice("composite", composite, COMPOSITES)
    if not text.strip():
        raise ChallengerError("The text is empty: there is nothing to explain. Give at least one word.")
    limit = longest_input(model, tokenizer)
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=limit, return_offsets_mapping=fast)
    full = len(tokenizer(text, verbose=False)["input_ids"])
    offsets = encoded.pop("offset_mapping")[0].tolist() if fast else None
    device = next(model.parameters()).device
    batch = {k: v.to(device) for k, v in encoded.items()}
    with attribution_state(model), torch.no_grad():
        logits = logits_of(model(**batch), model)[0].float()
    relevance = METHODS[method](model, batch, None, composite)[0].float().sum(-1).tolist()
    if not (logits.isfinite().all() and all(map(math.isfinite, relevance))):
        raise ChallengerError(
            f"The model's logits or their relevance are NaN or infinite for {text!r}: its training has diverged, or its weights"
            " are damaged. Load another checkpoint."
        )
    best = int(logits.argmax())
    config: Any = model.config
    problem = getattr(config, "problem_type", None)
    probabilities = logits.sigmoid() if problem == "multi_label_classification" else logits.softmax(0)
    confidence = float("nan") if len(logits) == 1 or problem == "regression" else float(probabilities[best])
    ids = batch["input_ids"][0].tolist()
    special = set(Tokens(model, tokenizer).special_ids)
    content = [i for i, token in enumerate(ids) if token not in special]
    if not content:
        raise ChallengerError(f"The tokenizer finds no token in {text!r}. Give a text that it knows words of.")
    words, groups = _words(text, content, tokenizer, ids, encoded, offsets)
    return Explanation(
        text=text,
        label=str(config.id2label.get(best, best)),
        confidence=confidence,
        score=float(logits[best]),
        words=words,
        relevance=[sum(relevance[i] for i in group) for group in groups],
        elsewhere=sum(r for i, r in enumerate(relevance) if i not in set(content)),
        cut=full > len(ids),
    )


def longest_input(model: nn.Module, tokenizer: Any) -> int:
    """Tokens that both tokenizer and model take; tokenizers without a limit tell a huge number."""
    config: Any = model.config
    positions = getattr(config, "max_position_embeddings", None) or 10**6
    if (getattr(config, "model_type", "")) in ("roberta", "xlm-roberta", "camembert"):
        positions -= 2  # positions are counted from the padding id + 1
    return int(min(tokenizer.model_max_length, positions))


def _words(
    text: str, content: list[int], tokenizer: Any, ids: list[int], encoded: Any, offsets: list[list[int]] | None
) -> tuple[list[str], list[list[int]]]:
    """Words, and the positions of each one's tokens."""
    single = ([readable(tokenizer, ids[i]) for i in content], [[i] for i in content])
    if offsets is None:
        return single
    word_ids = encoded.word_ids(0)
    groups: list[list[int]] = []
    for i in content:
        same = bool(groups) and word_ids[i] is not None and word_ids[i] == word_ids[groups[-1][-1]]
        if same:
            groups[-1].append(i)
        else:
            groups.append([i])
    words = [text[offsets[group[0]][0] : offsets[group[-1]][1]].strip() for group in groups]
    if any(" " in word for word in words):  # a tokenizer that takes the whole text for one word
        return single
    return [word or readable(tokenizer, ids[group[0]]) for word, group in zip(words, groups, strict=True)], groups


def load(name: str) -> tuple[nn.Module, Any]:
    """A saved classifier and its tokenizer.

    Args:
        name: a folder, or a name on the Hub.

    Raises:
        ChallengerError: where there is none, where it has no trained head, or where the tokenizer is empty.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        loaded, info = AutoModelForSequenceClassification.from_pretrained(name, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ChallengerError(
            f"No text classifier could be loaded from {name!r} ({reason}). Give the folder that trainer.save_model() wrote, with"
            " its tokenizer, or a model's name on the Hub."
        ) from error
    missing = sorted(info["missing_keys"])
    if missing:
        raise ChallengerError(
            f"{name!r} holds no trained classification head (missing: {', '.join(missing[:3])}), so its answers would be random."
            " Fine-tune it first."
        )
    # Where the files are missing, transformers makes a tokenizer of special tokens only: every word would be unknown to it.
    if len(tokenizer) <= len(tokenizer.all_special_ids) < (getattr(loaded.config, "vocab_size", None) or 0):
        raise ChallengerError(
            f"{name!r} holds no tokenizer, or an empty one of {len(tokenizer)} special tokens. Save it into the folder"
            " (tokenizer.save_pretrained), or train with processing_class=tokenizer, which saves it with the model."
        )
    return loaded, tokenizer


def in_terminal(explanation: Explanation, colours: bool) -> str:
    """Heading, and a line a word: relevance, a bar, the word. Orange speaks for the class, blue against it."""
    largest = max(map(abs, explanation.relevance)) or 1.0
    lines = [explanation.text, f"  -> {explanation.heading}"]
    for word, value in zip(explanation.words, explanation.relevance, strict=True):
        bar = ("+" if value > 0 else "-") * round(10 * abs(value) / largest)
        line = f"  {value:+7.3f}  {bar:<10}  {word}"
        lines.append(f"\x1b[38;5;{208 if value > 0 else 33}m{line}\x1b[0m" if colours and bar else line)
    return "\n".join([*lines, f"  {explanation.note}"])


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
    if not texts:
        raise ChallengerError("There is no text to explain. Give --text, or a --file with one text a line.")
    return texts


def _with_progress(texts: list[str]) -> Iterable[str]:
    """A bar on stderr, if it is a terminal and the work takes longer than a moment; transformers' own switches turn it off
    (HF_HUB_DISABLE_PROGRESS_BARS, transformers.utils.logging.disable_progress_bar)."""
    bar: Iterable[str] = tqdm(texts, desc="explaining", unit="text", delay=MOMENT, disable=None, leave=False)
    return bar


def main(argv: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m hf_challenger.explain", description=__doc__)
    parser.add_argument("model", help="folder of a saved text classifier, or its name on the Hub")
    parser.add_argument("--text", action="append", help="text to explain; may be given several times")
    parser.add_argument("--file", help="file with one text a line")
    parser.add_argument("--method", default="lrp", help=f"one of: {', '.join(METHODS)} (default: lrp)")
    parser.add_argument("--composite", default="attnlrp", help=f"rules of lrp: {', '.join(COMPOSITES)} (default: attnlrp)")
    parser.add_argument("--html", help="also write a page there")
    parser.add_argument("--png", help="also write a picture there (needs matplotlib)")
    args = parser.parse_args(argv)
    try:
        check_choice("--method", args.method, METHODS)
        check_choice("--composite", args.composite, COMPOSITES)
        texts = _texts(args)
        if args.png and not args.png.lower().endswith((".png", ".pdf", ".svg")):
            raise ChallengerError(f"--png {args.png!r} is expected to end with .png (or .pdf, .svg).")
        model, tokenizer = load(args.model)
        found = [explain(model, tokenizer, text, args.method, args.composite) for text in _with_progress(texts)]
        print("\n\n".join(in_terminal(e, sys.stdout.isatty()) for e in found))
        _write(args, found)
    except ChallengerError as error:
        sys.exit(f"error: {error}")


def _write(args: argparse.Namespace, found: list[Explanation]) -> None:
    try:
        if args.html:
            title = f"Why {Path(args.model).name} decided so ({args.method})"
            Path(args.html).write_text(
                html_page([(e.words, e.relevance, e.heading, e.note) for e in found], title), encoding="utf-8"
            )
            print(f"\nWrote {args.html}")
        if args.png:
            from .visualize import token_heatmap

            token_heatmap([(e.words, e.relevance, e.heading) for e in found]).savefig(args.png, dpi=150)
            print(f"\nWrote {args.png}")
    except OSError as error:
        raise ChallengerError(f"The result cannot be written ({error}). Choose a path that can be.") from error


if __name__ == "__main__":
    main()
