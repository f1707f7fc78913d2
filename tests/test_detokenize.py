"""Tokens as people read them, whatever marks the tokenizer has."""

import pytest
from tiny import pieces_tokenizer, tiny_tokenizer
from tokenizers import ByteLevelBPETokenizer, SentencePieceUnigramTokenizer
from transformers import PreTrainedTokenizerFast

from hf_challenger.detokenize import pieces

TEXT = "how do i freeze my account please"


def byte_pairs():
    core = ByteLevelBPETokenizer()
    core.train_from_iterator([TEXT] * 5, vocab_size=265)
    return PreTrainedTokenizerFast(tokenizer_object=core._tokenizer)


def sentence_pieces():
    core = SentencePieceUnigramTokenizer()
    core.train_from_iterator([TEXT] * 5, vocab_size=30, unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=core._tokenizer, unk_token="<unk>")


@pytest.mark.parametrize("build", [byte_pairs, sentence_pieces])
def test_joined_pieces_are_the_words(build):
    tokenizer = build()
    ids = tokenizer(TEXT)["input_ids"]
    found, goes_on = pieces(tokenizer, ids)
    assert len(found) == len(goes_on) == len(ids) > len(TEXT.split())
    words = []
    for piece, joined in zip(found, goes_on, strict=True):
        words[-1:] = [words[-1] + piece] if joined else [*words[-1:], piece]
    assert [word.strip("▁Ġ") for word in words] == TEXT.split()  # a space can be a token of its own


def test_word_pieces_lose_their_mark_and_words_stay_apart():
    ids = pieces_tokenizer()("w1w2w3 w2?", add_special_tokens=False)["input_ids"]
    assert pieces(pieces_tokenizer(), ids[:4]) == (["w1", "w2", "w3", "w2"], [False, True, True, False])
    ids = tiny_tokenizer()("w1 w2", add_special_tokens=False)["input_ids"]
    assert pieces(tiny_tokenizer(), ids) == (["w1", "w2"], [False, False])


def test_halves_of_a_character_belong_together():
    tokenizer = byte_pairs()
    found, goes_on = pieces(tokenizer, tokenizer("é")["input_ids"])
    assert "\ufffd" not in "".join(found)
    assert goes_on[-1]
