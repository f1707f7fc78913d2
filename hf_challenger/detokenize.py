"""Token ids as people read them: pieces of words without a tokenizer's marks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HALF = "\ufffd"  # what a character decodes to that is split between tokens


def readable(tokenizer: Any, token: int) -> str:
    """One token as text; its name in the vocabulary where it has no text of its own (half of a character)."""
    text = str(tokenizer.decode([token])).strip()
    return text if text and HALF not in text else str(tokenizer.convert_ids_to_tokens(token))


def pieces(tokenizer: Any, ids: Sequence[int]) -> tuple[list[str], list[bool]]:
    """Neighbouring tokens as text, and whether each goes on with the word of the one before.

    Told by what the tokenizer decodes a pair of tokens to, so that its marks ("##ing", "Ġmy", "▁my") need not be known:
    with a space between them they are two words.
    """
    words, goes_on = [], []
    for i, token in enumerate(ids):
        word, joined = readable(tokenizer, token), False
        if i:
            before, pair = (_decoded(tokenizer, some) for some in (ids[i - 1 : i], ids[i - 1 : i + 1]))
            rest = pair[len(before) :]
            half = HALF in before or HALF in rest  # of a character
            joined = half or (pair.startswith(before) and bool(rest) and not rest[0].isspace())
            word = rest if joined and not half else word
        words.append(word)
        goes_on.append(joined)
    return words, goes_on


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids))).removeprefix("##")  # which a piece keeps at the start
