"""Relevance of a text's words for a class."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import ChallengerError
from ..inputs.tokens import Tokens
from .decision import decision
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
    check_not_empty("text", text)
    check_not_empty("second text", pair)
    limit = tokens_read(model, tokenizer)
    fast = bool(getattr(tokenizer, "is_fast", False))
    encoded = tokenizer(text, pair, return_tensors="pt", truncation=True, max_length=limit, return_offsets_mapping=fast)
    full = len(tokenizer(text, pair, verbose=False)["input_ids"])
    offsets = encoded.pop("offset_mapping")[0].tolist() if fast else None
    device = next(model.parameters()).device
    batch = {k: v.to(device) for k, v in encoded.items()}
    fields, found = decision(model, batch, label, method, composite, repr(text[:80]))
    relevance = found.sum(-1).tolist()
    ids = batch["input_ids"][0].tolist()
    special = set(Tokens(model, tokenizer).special_ids)
    content = [i for i, token in enumerate(ids) if token not in special]
    if not content:
        raise ChallengerError(f"The tokenizer finds no token in {text!r}. Give a text that it knows words of.")
    parts = encoded.sequence_ids(0) if fast else [0] * len(ids)
    words, groups = words_of([text, pair or ""], content, tokenizer, ids, encoded, offsets)
    return Explanation(
        text=text,
        words=words,
        relevance=[sum(relevance[i] for i in group) for group in groups],
        elsewhere=sum(r for i, r in enumerate(relevance) if i not in set(content)),
        cut=full > len(ids),
        pair=pair,
        second=sum(parts[group[0]] != 1 for group in groups),
        tokens_given=full,
        tokens_read=len(ids),
        **fields,
    )
