"""Cues by name: what an adapter calls a cue, it finds again under that name."""

import pytest
import torch
from tiny import pieces_tokenizer, tiny_bert
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from hf_challenger import ChallengerError
from hf_challenger.challenge.named_cues import NamedCues
from hf_challenger.challenge.perturbation import perturbation_for
from hf_challenger.inputs import Audio, Patches, Series, SeriesChannelsFirst, Tokens
from hf_challenger.inputs.tokens import NUMBER
from hf_challenger.keyed_random import Draw


def byte_level_tokenizer():
    """As GPT-2's: a word within a text has another id than the same word at its start."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    pieces = ["vi", "via", "Ġv", "Ġvi", "Ġvia", "ap", "app", "Ġa", "Ġap", "Ġapp"]
    merges = [("Ġ", "v"), ("Ġv", "i"), ("Ġvi", "a"), ("Ġ", "a"), ("Ġa", "p"), ("Ġap", "p"), ("v", "i"), ("vi", "a"),
              ("a", "p"), ("ap", "p")]  # fmt: skip
    vocabulary = {token: n for n, token in enumerate(["<pad>", *sorted(alphabet), *pieces])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>")


def batch_of(tokenizer, texts):
    return dict(tokenizer(texts, padding=True, return_tensors="pt"))


@pytest.mark.parametrize(
    ("make", "text"), [(pieces_tokenizer, "w1 w2 w1w2w3 w2 w1"), (byte_level_tokenizer, "via app via app app")]
)
def test_every_token_and_pair_of_tokens_is_found_by_its_name(make, text):
    tokenizer = make()
    tokens, batch = Tokens(tiny_bert(), tokenizer), batch_of(tokenizer, [text])
    ids = batch["input_ids"][0]
    inside = tokens.maskable(batch)[0].nonzero().flatten().tolist()
    for first in inside:
        for last in (first, first + 1):
            if last not in inside:
                continue
            cue = ids[first : last + 1].tolist()
            name = tokens.text_of(cue)
            found = NamedCues(tokens, [name], "challenge_keep").places(batch)[0]
            assert found[first : last + 1].all(), name


def test_a_word_is_found_at_the_start_of_a_text_and_within_one():
    tokenizer = byte_level_tokenizer()
    tokens = Tokens(tiny_bert(), tokenizer)
    batch = batch_of(tokenizer, ["via app x", "x via app x"])
    found = NamedCues(tokens, ["via app"], "challenge_hide").places(batch)
    read = [tokenizer.decode(row[mask]) for row, mask in zip(batch["input_ids"], found, strict=True)]
    assert read == ["via app", " via app"]


def test_a_name_with_numbers_takes_digits_in_any_order():
    tokenizer = byte_level_tokenizer()
    tokens = Tokens(tiny_bert(), tokenizer)
    one = tokenizer.encode("1/")
    assert tokens.text_of([NUMBER, one[1]]) == "[number] /"
    batch = batch_of(tokenizer, ["via 12/7 app x", "via 3 app x", "via 3-4 app x"])
    for option in ("challenge_keep", "challenge_hide"):
        named = NamedCues(tokens, ["[number] /", "[number] -"] if option == "challenge_hide" else ["[number] /"], option)
        held = named.places(batch)
        read = [tokenizer.decode(row[mask]) for row, mask in zip(batch["input_ids"], held, strict=True)]
        assert read == ["12/7", "", "3-4" if option == "challenge_hide" else ""]
    left, rows = named.removed(batch, Draw(0, 0, 0, torch.arange(3)), perturbation_for("auto", tokens))
    assert rows.tolist() == [True, False, True]
    read = [tokenizer.decode(r[m.bool()]) for r, m in zip(left["input_ids"], left["attention_mask"], strict=True)]
    assert [text.split() for text in read] == [["via", "app", "x"], ["via", "3", "app", "x"], ["via", "app", "x"]]
    words = NamedCues(tokens, ["[number] -", "app"], "challenge_hide")  # one with numbers: none is put in another's place
    left, rows = words.removed(batch, Draw(0, 0, 0, torch.arange(3)), perturbation_for("auto", tokens))
    read = [tokenizer.decode(r[m.bool()]).split() for r, m in zip(left["input_ids"], left["attention_mask"], strict=True)]
    assert read == [["via", "12/7", "x"], ["via", "3", "x"], ["via", "x"]]
    assert rows.all()
    word = tokens.text_of([tokenizer.convert_tokens_to_ids("Ġapp"), NUMBER, one[1]])
    assert word == "app [number] /"
    held = NamedCues(tokens, [word], "challenge_hide").removed(
        batch_of(tokenizer, ["via app 12/7 x", "app 1/2 b 3 / 4"]),
        Draw(0, 0, 0, torch.arange(2)),
        perturbation_for("auto", tokens),
    )[0]
    read = [tokenizer.decode(r[m.bool()]).split() for r, m in zip(held["input_ids"], held["attention_mask"], strict=True)]
    assert read == [["via", "x"], ["b"]]
    alone = NamedCues(tokens, ["[number]"], "challenge_hide").removed(
        batch, Draw(0, 0, 0, torch.arange(3)), perturbation_for("auto", tokens)
    )[1]
    assert alone.all()


@pytest.mark.parametrize("token", ["7", "##12", "▁2021", "Ġ2021", "12</w>", "12@@"])
def test_tokens_of_digits_are_numbers_in_every_kind_of_tokenizer(token):
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "a1": 1, token: 4, "#1": 5}, unk_token="[UNK]"))  # ids with a gap
    tokens = Tokens(tiny_bert(), PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]"))
    assert tokens.kinds.tolist() == [0, 1, 2, 3, NUMBER, 5]


def test_a_token_of_the_users_own_that_reads_like_numbers_is_that_token():
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "[number]": 1, "7": 2}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = Tokens(tiny_bert(), PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]"))
    assert tokens.read_name("[number]", "challenge_hide") == [[1]]


class Model(nn.Module):
    def __init__(self, key):
        super().__init__()
        exec(f"def forward(self, {key}): ...", scope := {})
        self.forward = scope["forward"].__get__(self)


@pytest.mark.parametrize(
    ("adapter", "key", "shape", "size"),
    [
        (Series, "past_values", (3, 10, 2), 4),
        (SeriesChannelsFirst, "past_values", (3, 2, 10), 4),
        (Audio, "input_values", (3, 100), 30),
        (Patches, "pixel_values", (3, 1, 9, 7), 4),
        (Patches, "pixel_values", (3, 8, 8), 4),
    ],
)
def test_every_place_and_pair_of_places_is_found_by_its_name(adapter, key, shape, size):
    torch.manual_seed(0)
    units, inputs = adapter(Model(key), unit_size=size), {key: torch.randn(shape)}
    identities = units.identities(inputs)
    flat = identities.flatten(1)
    assert len({units.text_of([i]) for i in flat[0].tolist()}) == flat.shape[1]
    for place in range(flat.shape[1]):
        for places in ([place], [place, (place + 1) % flat.shape[1]]):
            name = units.text_of(flat[0, places].tolist())
            expected = torch.zeros_like(flat, dtype=torch.bool)
            expected[:, places] = True
            assert torch.equal(units.places_of(name, inputs).flatten(1), expected), name


def test_places_that_touch_are_told_as_one():
    units, inputs = Series(Model("past_values"), unit_size=1), {"past_values": torch.randn(2, 10, 1)}
    places = units.identities(inputs)[0]
    assert units.text_of(places[[3, 4, 7]].tolist()) == "steps 3 to 4 + step 7"
    assert units.places_of("steps 3 to 4 + step 7", inputs)[1].nonzero().flatten().tolist() == [3, 4, 7]
    units, inputs = Patches(Model("pixel_values"), unit_size=2), {"pixel_values": torch.randn(2, 1, 8, 8)}
    places = units.identities(inputs)[0]
    border = torch.ones(4, 4, dtype=torch.bool)
    border[1:3, 1:3] = False
    name = "rows 0 to 1, columns 0 to 7 + rows 2 to 5, columns 0 to 1 + rows 2 to 5, columns 6 to 7 + rows 6 to 7, columns 0 to 7"
    assert units.text_of(places[border].tolist()) == name
    assert torch.equal(units.places_of(name, inputs)[1], border)


@pytest.mark.parametrize(
    "name", ["steps 0 to 3, columns 0 to 3", "step 4", "steps 4 to 0", "steps 8 to 10", "steps 1 to 7", ""]
)
def test_places_that_are_not_on_the_grid_have_no_name(name):
    units, inputs = Series(Model("past_values"), unit_size=4), {"past_values": torch.randn(2, 10, 1)}
    with pytest.raises(ChallengerError, match="names"):
        units.places_of(name, inputs)


def test_an_unknown_place_is_named_with_those_that_there_are():
    units, inputs = Series(Model("past_values"), unit_size=4), {"past_values": torch.randn(2, 10, 1)}
    with pytest.raises(ChallengerError, match=r"challenge_hide names 'steps 0 to 4'.*'steps 0 to 3' to 'steps 8 to 9'"):
        NamedCues(units, ["steps 0 to 4"], "challenge_hide").places(inputs)


def test_a_token_name_without_a_tokenizer_is_refused():
    with pytest.warns(UserWarning, match="No tokenizer"):
        tokens = Tokens(tiny_bert())
    with pytest.raises(ChallengerError, match=r"challenge_keep=\['w1'\] needs a tokenizer"):
        NamedCues(tokens, ["w1"], "challenge_keep")


# --- several leaks ------------------------------------------------------------------------------------------------------


SIGNED = ["w1 w2 w3 w2 w4", "w5 w6", "w7 w8 w9"]  # a phrase that holds a word twice, and two others


def whole_words_tokenizer():
    """Of the words w0 to w39, in any case."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(40))]
    core = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="[UNK]"))
    core.normalizer, core.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=core, **names)


def left_by_class(names, rows=300):
    """Of rows that hold one of three leaks, in turn, the words that ``challenge_hide`` leaves."""
    tokenizer = whole_words_tokenizer()
    tokens = Tokens(tiny_bert(), tokenizer)
    batch = batch_of(tokenizer, [f"w{20 + n % 10} w{10 + n % 8} {SIGNED[n % 3]}" for n in range(rows)])
    named = NamedCues(tokens, names, "challenge_hide")
    found, held = named.removed(batch, Draw(0, 4, 0, torch.arange(rows)), perturbation_for("auto", tokens))
    read = zip(found["input_ids"], found["attention_mask"], strict=True)
    texts = [tokenizer.decode(row[mask.bool()], skip_special_tokens=True).split()[2:] for row, mask in read]
    return named, held, [[" ".join(words) for words in texts[label::3]] for label in range(3)]


def test_a_name_that_lacks_a_repeated_word_is_exchanged_like_the_others():
    _, held, left = left_by_class(["w1 w2 w3 w4", *SIGNED[1:]])
    assert held.all()
    for of_class in left:  # one of three names, or none, whatever the class was
        for signature in ("w1 w2 w3 w4", *SIGNED[1:], ""):
            assert of_class.count(signature) / len(of_class) == pytest.approx(1 / 4, abs=0.12)


@pytest.mark.parametrize(
    "names", [["w5 w6", "w5 w6"], ["w5 w6", "W5  w6"], ["w5 w6", "w6"], ["w6", "w5 w6", "w5"]], ids=" | ".join
)
def test_a_name_that_is_given_twice_or_within_another_is_never_put_back(names):
    named, held, left = left_by_class(names)
    assert held.tolist() == [False, True, False] * 100
    assert left[1] == [""] * 100
    assert all(rows == 100 for rows in named.rows_of().values())
    assert set(named.rows_of()) <= set(names)


def test_of_names_within_others_only_the_whole_ones_are_put_back():
    _, _, left = left_by_class(["w8", *SIGNED])
    assert {words for of_class in left for words in of_class} == {*SIGNED, ""}


def test_what_the_tokenizer_does_not_know_is_named_as_it_reads():
    tokenizer = pieces_tokenizer()
    tokens = Tokens(tiny_bert(), tokenizer)
    unknown = tokenizer.unk_token
    batch = batch_of(tokenizer, ["w1 ☃ w2", "w1 w2"])
    ids = batch["input_ids"][0].tolist()
    name = tokens.text_of([tokenizer.unk_token_id])
    assert name == unknown
    for option in ("challenge_hide", "challenge_keep"):
        found = NamedCues(tokens, [f"w1 {unknown}", name], option).places(batch)
        assert found[0, ids.index(tokenizer.unk_token_id)]
    with pytest.raises(ChallengerError, match=rf"names '☃'.*as trainer.cues shows it; the name '\{unknown[:-1]}\]' is all"):
        tokens.read_name("☃", "challenge_hide")
    with pytest.raises(ChallengerError, match="knows no such tokens"):
        tokens.read_name(f"{unknown} ☃", "challenge_hide")
