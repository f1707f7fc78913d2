"""Words of a text, and the tokens that each is made of."""

from __future__ import annotations

import re
from typing import Any

from ..detokenize import readable

# Thai, Lao, Tibetan, Burmese, Khmer, kana and Chinese characters: scripts that put no space between words.
NO_SPACES = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f"
    "\U00020000-\U0003ffff]"
)


def words_of(
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
