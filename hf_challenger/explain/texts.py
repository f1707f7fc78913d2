"""Relevance of a text's words for a class."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ..attribution.composites import COMPOSITES
from ..attribution.methods import METHODS
from ..attribution.state import attribution_state
from ..errors import ChallengerError, check_choice
from ..inputs.tokens import Tokens
from ..logits import logits_of
from .explanation import Explanation, check_not_empty
from .lengths import tokens_read
from .words import words_of


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
    check_not_empty("text", text)
    check_not_empty("second text", pair)
    config: Any = model.config
    wanted = None if label is None else class_index(config.id2label, label)
    limit = tokens_read(model, tokenizer)
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
    words, groups = words_of([text, pair or ""], content, tokenizer, ids, encoded, offsets)
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
