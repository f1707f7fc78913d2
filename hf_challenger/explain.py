"""Why a saved text classifier decided so: ``python -m hf_challenger.explain MODEL --text "where is my card"``."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers.utils.logging import tqdm

from .attribution.composites import COMPOSITES
from .attribution.methods import METHODS
from .attribution.state import attribution_state
from .command_line import check_model_folder
from .detokenize import readable
from .errors import ChallengerError, check_choice
from .heatmap_html import html_page
from .inputs.tokens import Tokens
from .logits import logits_of

MOMENT = 2.0  # seconds
LONGEST = 2048  # tokens, where neither the model nor the tokenizer tells a limit: attention takes memory by its square
KEY = "Orange (+) speaks for the class, blue (-) against it."
# Thai, Lao, Tibetan, Burmese, Khmer, kana and Chinese characters: scripts that put no space between words.
NO_SPACES = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]"
)


@dataclass(frozen=True)
class Explanation:
    """What a classifier said about one text, and what it said it for.

    Attributes:
        text: as given.
        label: the class that is explained.
        confidence: its probability; NaN for a regression.
        score: its logit, which relevance explains, in the same unit.
        words: words of the text, then of the second one; tokens where a script has no spaces.
        relevance: of each word: the sum over its tokens.
        elsewhere: relevance on special tokens.
        cut: whether the text was longer than the model takes.
        pair: the second text, of a model of text pairs.
        second: how many words belong to the first text.
        tokens_given, tokens_read: of both texts, special tokens included.
        ranking: every class with its probability, the most probable first; with the output itself for a regression.
        problem: ``single_label_classification``, ``multi_label_classification`` or ``regression``.
        method: that computed the relevance.
    """

    text: str
    label: str
    confidence: float
    score: float
    words: list[str]
    relevance: list[float]
    elsewhere: float
    cut: bool
    pair: str | None = None
    second: int = 0
    tokens_given: int = 0
    tokens_read: int = 0
    ranking: tuple[tuple[str, float], ...] = ()
    problem: str = "single_label_classification"
    method: str = "lrp"

    @property
    def heading(self) -> str:
        if self.problem == "regression":
            return f"{self.label}, output {self.score:.2f}"
        predicted, highest = self.ranking[0]
        if self.problem == "multi_label_classification":
            below = " (below 0.5: not predicted)" if self.confidence < 0.5 else ""
            return f"{self.label}, probability {self.confidence:.2f}{below}, score {self.score:.2f}"
        if self.label == predicted:
            return f"{self.label}, confidence {self.confidence:.2f}, score {self.score:.2f}"
        other = f" (predicted: {predicted}, {highest:.2f})"
        return f"{self.label}, probability {self.confidence:.2f}{other}, score {self.score:.2f}"

    @property
    def note(self) -> str:
        """What the score is, and why the words do not sum to it."""
        total = sum(self.relevance)
        what = "the output" if self.problem == "regression" else "the class's logit"
        if self.method == "lrp":
            rest = f"the remaining {self.score - total - self.elsewhere:+.2f} went to positions and biases, or was absorbed by rules"
        else:
            rest = f"relevance by {self.method} need not sum to the score"
        cut = ""
        if self.cut:
            cut = f" The text was cut to the model's length: {self.tokens_read} of {self.tokens_given} tokens were read."
        return f"The score is {what}. Words sum to {total:+.2f}, special tokens to {self.elsewhere:+.2f}; {rest}.{cut}"

    def shown(self) -> tuple[list[str], list[float]]:
        """Words and relevance for a picture, with ``‖`` between two texts."""
        if self.pair is None:
            return self.words, self.relevance
        n = self.second
        return [*self.words[:n], "‖", *self.words[n:]], [*self.relevance[:n], 0.0, *self.relevance[n:]]


def explain(
    model: nn.Module,
    tokenizer: Any,
    text: str,
    method: str = "lrp",
    composite: str = "attnlrp",
    *,
    pair: str | None = None,
    label: str | int | None = None,
) -> Explanation:
    """Relevance of a text's words for a class.

    Args:
        model: a text classifier of transformers.
        tokenizer: its own.
        text: not empty.
        method: see :mod:`hf_challenger.attribution.methods`.
        composite: rules of ``method="lrp"``, see :mod:`hf_challenger.attribution.composites`.
        pair: the second text, for a model of text pairs.
        label: the class, by name or index. None: the one with the highest score.

    Raises:
        ChallengerError: for an empty text, or one without a known token; unknown names; NaN or infinite logits or relevance.
    """
    check_choice("method", method, METHODS)
    check_choice("composite", composite, COMPOSITES)
    for which, given in (("text", text), ("second text", pair)):
        if given is not None and not given.strip():
            raise ChallengerError(f"The {which} is empty: there is nothing to explain. Give at least one word.")
    config: Any = model.config
    wanted = None if label is None else class_index(config.id2label, label)
    limit = min(longest_input(model, tokenizer), LONGEST if _unlimited(model, tokenizer) else 10**6)
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(text, pair, return_tensors="pt", truncation=True, max_length=limit, return_offsets_mapping=fast)
    full = len(tokenizer(text, pair, verbose=False)["input_ids"])
    offsets = encoded.pop("offset_mapping")[0].tolist() if fast else None
    device = next(model.parameters()).device
    batch = {k: v.to(device) for k, v in encoded.items()}
    with attribution_state(model), torch.no_grad():
        logits = logits_of(model(**batch), model)[0].float()
    chosen = int(logits.argmax()) if wanted is None else wanted
    relevance = METHODS[method](model, batch, chosen, composite)[0].float().sum(-1).tolist()
    if not (logits.isfinite().all() and all(map(math.isfinite, relevance))):
        raise ChallengerError(
            f"The model's logits or their relevance are NaN or infinite for {text[:80]!r}: its training has diverged, or its"
            " weights are damaged. Load another checkpoint."
        )
    problem = getattr(config, "problem_type", None)
    problem = problem or ("regression" if len(logits) == 1 else "single_label_classification")
    if problem == "regression":
        values = logits
    else:
        values = logits.sigmoid() if problem == "multi_label_classification" else logits.softmax(0)
    ranking = tuple((str(config.id2label.get(i, i)), float(values[i])) for i in logits.argsort(descending=True).tolist())
    ids = batch["input_ids"][0].tolist()
    special = set(Tokens(model, tokenizer).special_ids)
    content = [i for i, token in enumerate(ids) if token not in special]
    if not content:
        raise ChallengerError(f"The tokenizer finds no token in {text!r}. Give a text that it knows words of.")
    parts = encoded.sequence_ids(0) if fast else [0] * len(ids)
    words, groups = _words([text, pair or ""], content, tokenizer, ids, encoded, offsets)
    return Explanation(
        text=text,
        label=str(config.id2label.get(chosen, chosen)),
        confidence=float("nan") if problem == "regression" else float(values[chosen]),
        score=float(logits[chosen]),
        words=words,
        relevance=[sum(relevance[i] for i in group) for group in groups],
        elsewhere=sum(r for i, r in enumerate(relevance) if i not in set(content)),
        cut=full > len(ids),
        pair=pair,
        second=sum(parts[group[0]] != 1 for group in groups),
        tokens_given=full,
        tokens_read=len(ids),
        ranking=ranking,
        problem=problem,
        method=method,
    )


def class_index(id2label: Any, label: str | int) -> int:
    """The index of a class that is given by name or index.

    Raises:
        ChallengerError: the model has no such class.
    """
    names = {str(name): int(i) for i, name in id2label.items()}
    text = str(label)
    index = names.get(text, {name.casefold(): i for name, i in names.items()}.get(text.casefold()))
    if index is None and text.isdecimal() and int(text) in names.values():
        index = int(text)
    if index is None:
        known = ", ".join(map(repr, [*names][:10])) + (", …" if len(names) > 10 else "")
        raise ChallengerError(f"The model has no class {text!r}. Choose one of: {known}.")
    return index


def longest_input(model: nn.Module, tokenizer: Any) -> int:
    """Tokens that both tokenizer and model take; tokenizers without a limit tell a huge number.

    RoBERTa and its kin count positions from the padding id + 1 on, so that their table serves fewer tokens than it has rows.
    Checked against all text classifiers of transformers.
    """
    return int(min(tokenizer.model_max_length, _positions(model) or 10**6))


def _positions(model: nn.Module) -> int | None:
    """Tokens that the model has positions for; None where it tells no limit (T5, XLNet, Bloom)."""
    config: Any = model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(config, "max_position_embeddings", None)
    limits = [positions] if isinstance(positions, int) and positions > 0 else []
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith(".position_embeddings") and padding is not None:
            limits.append(len(module.weight) - padding - 1)
    return min(limits, default=None)


def _unlimited(model: nn.Module, tokenizer: Any) -> bool:
    return _positions(model) is None and tokenizer.model_max_length > 10**6


def _words(
    texts: list[str], content: list[int], tokenizer: Any, ids: list[int], encoded: Any, offsets: list[list[int]] | None
) -> tuple[list[str], list[list[int]]]:
    """Words, and the positions of each one's tokens. In scripts without spaces each token stands alone."""
    if offsets is None:
        return [readable(tokenizer, ids[i]) for i in content], [[i] for i in content]
    word_ids, parts = encoded.word_ids(0), encoded.sequence_ids(0)
    groups: list[list[int]] = []
    for i in content:
        if groups and _goes_on(texts, groups[-1][-1], i, word_ids, parts, offsets):
            groups[-1].append(i)
        else:
            groups.append([i])
    words = [texts[parts[g[0]] or 0][offsets[g[0]][0] : offsets[g[-1]][1]].strip() for g in groups]
    return [word or readable(tokenizer, ids[group[0]]) for word, group in zip(words, groups, strict=True)], groups


def _goes_on(texts: list[str], before: int, i: int, word_ids: list[Any], parts: list[Any], offsets: list[list[int]]) -> bool:
    """Whether token ``i`` belongs to the word of the token ``before`` it."""
    if parts[i] != parts[before] or word_ids[i] is None or word_ids[i] != word_ids[before]:
        return False
    text, (start, end), (_, last) = texts[parts[i] or 0], offsets[i], offsets[before]
    if start < last:  # two tokens of one character
        return True
    if start > last or text[start:end][:1].isspace():  # a tokenizer that takes the whole text for one word
        return False
    return not (NO_SPACES.match(text[start:end]) or NO_SPACES.match(text[last - 1 : last]))


def load(name: str) -> tuple[nn.Module, Any]:
    """A saved classifier and its tokenizer.

    Args:
        name: a folder, or a name on the Hub.

    Raises:
        ChallengerError: where there is none, where it has no trained head, or where the tokenizer is empty.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        head = _adapter_head(name)
        loaded, info = AutoModelForSequenceClassification.from_pretrained(name, output_loading_info=True, **head)
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


def _adapter_head(name: str) -> dict[str, Any]:
    """``num_labels`` of a PEFT folder, whose base model's config does not know it: as many as its saved head has outputs.

    Empty for other folders, and for names on the Hub. Class names come from a config.json beside the adapter, if there is one.
    """
    folder = Path(name)
    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        return {}
    if (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("id2label"):
            names = {int(i): label for i, label in config["id2label"].items()}
            return {"num_labels": len(names), "id2label": names, "label2id": {label: i for i, label in names.items()}}
    with safe_open(weights, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    heads = [
        k for k in shapes if re.search(r"\b(classifier|score|classification_head)\b.*\bweight$", k) and ".lora_" not in k
    ]
    outputs = [k for k in heads if "dense" not in k]
    return {"num_labels": shapes[outputs[-1]][0]} if outputs else {}


def wants_colours() -> bool:
    """Whether standard output is a terminal, and NO_COLOR is not set (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def in_terminal(explanation: Explanation, colours: bool) -> str:
    """Heading, key, and a line a word: relevance, a bar, the word. Orange speaks for the class, blue against it."""
    largest = max(map(abs, explanation.relevance)) or 1.0
    lines = [explanation.text, *([] if explanation.pair is None else [explanation.pair])]
    lines += [f"  -> {explanation.heading}", f"  {KEY}"]
    for n, (word, value) in enumerate(zip(explanation.words, explanation.relevance, strict=True)):
        if explanation.pair is not None and n == explanation.second:
            lines.append("  second text:")
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
    parser.add_argument(
        "--text-pair", "--text_pair", action="append", help="second text of each --text, for a model of pairs"
    )
    parser.add_argument("--class", dest="label", help="class to explain, by name or index (default: the predicted one)")
    parser.add_argument("--top", type=int, default=1, help="explain that many of the most probable classes (default: 1)")
    parser.add_argument("--method", default="lrp", help=f"one of: {', '.join(METHODS)} (default: lrp)")
    parser.add_argument("--composite", default="attnlrp", help=f"rules of lrp: {', '.join(COMPOSITES)} (default: attnlrp)")
    parser.add_argument("--html", help="also write a page there")
    parser.add_argument("--png", help="also write a picture there (needs matplotlib)")
    parser.add_argument("--json", help="also write all numbers there, as json")
    args = parser.parse_args(argv)
    try:
        check_choice("--method", args.method, METHODS)
        check_choice("--composite", args.composite, COMPOSITES)
        texts = _texts(args)
        if args.png and not args.png.lower().endswith((".png", ".pdf", ".svg")):
            raise ChallengerError(f"--png {args.png!r} is expected to end with .png (or .pdf, .svg).")
        if args.top < 1 or (args.top > 1 and args.label is not None):
            raise ChallengerError(f"--top {args.top} is expected to be 1 or more, and without --class.")
        pairs = _pairs(args, texts)
        check_model_folder(args.model)
        model, tokenizer = load(args.model)
        found = [e for text in _with_progress(texts) for e in _explain_classes(args, model, tokenizer, text, pairs.pop(0))]
        print("\n\n".join(in_terminal(e, wants_colours()) for e in found))
        _write(args, found)
    except ChallengerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def _pairs(args: argparse.Namespace, texts: list[str]) -> list[str | None]:
    if args.text_pair is None:
        return [None] * len(texts)
    if len(args.text_pair) != len(texts):
        raise ChallengerError(
            f"There are {len(texts)} texts and {len(args.text_pair)} second ones. Give one --text-pair for each --text."
        )
    return list(args.text_pair)


def _explain_classes(
    args: argparse.Namespace, model: nn.Module, tokenizer: Any, text: str, pair: str | None
) -> list[Explanation]:
    first = explain(model, tokenizer, text, args.method, args.composite, pair=pair, label=args.label)
    others = [label for label, _ in first.ranking[1 : args.top]]
    return [first] + [explain(model, tokenizer, text, args.method, args.composite, pair=pair, label=o) for o in others]


def _write(args: argparse.Namespace, found: list[Explanation]) -> None:
    try:
        if args.html:
            title = f"Why {Path(args.model).name} decided so ({args.method})"
            Path(args.html).write_text(html_page([(*e.shown(), e.heading, e.note) for e in found], title), encoding="utf-8")
            print(f"\nWrote {args.html}")
        if args.json:
            rows = [{k: None if v != v else v for k, v in asdict(e).items()} for e in found]  # NaN is no json
            Path(args.json).write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"\nWrote {args.json}")
        if args.png:
            from .visualize import token_heatmap

            token_heatmap([(*e.shown(), e.heading) for e in found]).savefig(args.png, dpi=150)
            print(f"\nWrote {args.png}")
    except OSError as error:
        raise ChallengerError(f"The result cannot be written ({error}). Choose a path that can be.") from error


if __name__ == "__main__":
    main()
