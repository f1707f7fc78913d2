"""Which tokens may be hidden, and how they are hidden."""

import copy
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import tiny_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    FNetConfig,
    FNetForSequenceClassification,
    PreTrainedTokenizerFast,
)

from hf_challenger import ChallengerError, ChallengerWarning
from hf_challenger.challenge.perturbation import perturbation_for
from hf_challenger.challenge.perturbation.tokens import delete
from hf_challenger.errors import NotChallengeable
from hf_challenger.inputs import Tokens

PAD, UNK, CLS, SEP, MASK = range(5)
TOKENIZER = SimpleNamespace(
    all_special_ids=[0, 1, 2, 3, 4],
    unk_token_id=UNK,
    mask_token_id=MASK,
    pad_token_id=PAD,
    cls_token_id=CLS,
    sep_token_id=SEP,
)
NO_MASK_TOKEN = SimpleNamespace(all_special_ids=[0], unk_token_id=None, mask_token_id=None, pad_token_id=PAD)
IDS = torch.tensor([[CLS, 7, UNK, SEP, 8, 9, SEP, PAD], [CLS, 7, 8, SEP, PAD, PAD, PAD, PAD]])


@pytest.fixture
def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
        initializer_range=0.5,  # so that words matter
    )
    return BertForSequenceClassification(config).eval()


def test_special_tokens_and_padding_are_never_units_but_unknown_words_are(bert):
    maskable = Tokens(bert, TOKENIZER).maskable({"input_ids": IDS, "attention_mask": (IDS != PAD).long()})
    assert maskable.long().tolist() == [[0, 1, 1, 0, 1, 1, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]]


def test_without_an_attention_mask_padding_is_told_by_its_id(bert):
    tokens = Tokens(bert, TOKENIZER)
    with_mask = tokens.maskable({"input_ids": IDS, "attention_mask": (IDS != PAD).long()})
    assert torch.equal(tokens.maskable({"input_ids": IDS}), with_mask)


@pytest.mark.parametrize("left", [False, True])
def test_the_last_token_is_never_a_unit_since_decoders_read_their_answer_there(bert, left):
    ids = torch.tensor([[PAD, PAD, 7, 8, 9]]) if left else torch.tensor([[7, 8, 9, PAD, PAD]])
    maskable = Tokens(bert, NO_MASK_TOKEN).maskable({"input_ids": ids, "attention_mask": (ids != PAD).long()})
    assert ids[maskable].tolist() == [7, 8]


def test_without_a_tokenizer_the_ends_are_protected_and_a_warning_says_so(bert):
    with pytest.warns(ChallengerWarning, match=r"processing_class=tokenizer"):
        tokens = Tokens(bert)
    ids = torch.tensor([[11, 7, 8, 12, PAD]])
    maskable = tokens.maskable({"input_ids": ids, "attention_mask": (ids != PAD).long()})
    assert ids[maskable].tolist() == [7, 8]


def test_removal_from_attention_equals_a_text_without_the_word(bert):
    """With its position kept, a removed token leaves no trace: any other word in its place gives the same logits."""
    tokens = Tokens(bert, TOKENIZER)
    drop_mask = torch.zeros_like(IDS, dtype=torch.bool)
    drop_mask[0, 4] = True
    challenged = perturbation_for("attention", tokens)({"input_ids": IDS}, drop_mask, tokens)
    other = IDS.clone()
    other[0, 4] = 15
    with torch.no_grad():
        logits = bert(**challenged).logits
        torch.testing.assert_close(bert(**{**challenged, "input_ids": other}).logits, logits)
        assert (bert(input_ids=IDS, attention_mask=(IDS != PAD).long()).logits[0] - logits[0]).abs().max() > 1e-2
    assert torch.equal(challenged["input_ids"], IDS.masked_fill(drop_mask, MASK))
    assert challenged["attention_mask"].tolist()[1] == [1, 1, 1, 1, 0, 0, 0, 0]


def test_without_a_filler_a_decoder_would_read_what_is_hidden_and_it_is_said():
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 20}
    bart = BartForSequenceClassification(BartConfig(**sizes, encoder_attention_heads=2, decoder_attention_heads=2))
    with pytest.raises(NotChallengeable, match="processing_class=tokenizer"):
        perturbation_for("attention", Tokens(bart, NO_MASK_TOKEN))
    assert perturbation_for("auto", Tokens(bart, NO_MASK_TOKEN)) is delete  # needs none


def test_special_tokens_of_the_users_own_are_words(bert, tokenizer):
    """A source that is marked by a token of its own is what a leak looks like."""
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<web>"]})
    tokens = Tokens(bert, tokenizer)
    ids = torch.tensor([tokenizer("<web> w5 w6")["input_ids"]])
    assert (
        ids[tokens.maskable({"input_ids": ids})].tolist() == tokenizer("<web> w5 w6", add_special_tokens=False)["input_ids"]
    )
    assert tokens.read_name("<web>", "challenge_hide") == [[tokenizer.convert_tokens_to_ids("<web>")]]


def test_an_unknown_token_that_also_begins_a_text_is_structure(bert):
    """As OPT and GPT-2 have it: one id begins and ends a text, and stands for unknown words."""
    of_opt = SimpleNamespace(
        all_special_ids=[2, 1], unk_token_id=2, bos_token_id=2, eos_token_id=2, pad_token_id=1, mask_token_id=None
    )
    tokens = Tokens(bert, of_opt)
    ids = torch.tensor([[2, 10, 11, 12], [2, 13, 14, 1]])
    maskable = tokens.maskable({"input_ids": ids, "attention_mask": (ids != 1).long()})
    assert ids[maskable].tolist() == [10, 11, 13]
    assert tokens.filler_id is None  # it would look like the end of a text


def test_several_end_tokens_in_a_config(bert):
    bert.config.eos_token_id = [7, 8]
    with pytest.warns(ChallengerWarning, match="No tokenizer"):
        assert {7, 8} <= set(Tokens(bert).special_ids)


def test_the_attention_mask_of_a_model_in_peft_is_found(bert):
    adapted = get_peft_model(bert, LoraConfig(target_modules=["query"], modules_to_save=["classifier"]))  # no task_type
    assert Tokens(adapted, NO_MASK_TOKEN).perturbations == ("delete", "attention", "mask")


@pytest.mark.parametrize(
    ("vocabulary", "text", "marked", "whole"),
    [
        (["inc", "##00", "##12", "-", "x", "##y"], "inc ##00 ##12 - x ##y", "inc", "inc ##00 ##12"),
        (["inc", "##00", "##12", "-", "x", "##y"], "inc ##00 ##12 - x ##y", "##00 x", "##00 ##12 x ##y"),
        (["Ġinc", "00", "12", "-", "Ġx", "y"], "Ġinc 00 12 - Ġx y", "Ġinc -", "Ġinc 00 12 -"),
        (["Ġinc", "00", "-", "12"], "Ġinc 00 - 12", "-", "-"),  # a sign begins nothing
        (["▁inc", "00", "▁x"], "▁inc 00 ▁x", "▁inc", "▁inc 00"),
        (["inc", "00", "x"], "inc 00 x", "inc", "inc"),  # nothing tells where words begin
    ],
)
def test_what_goes_on_with_a_word_is_hidden_with_it(bert, vocabulary, text, marked, whole):
    core = Tokenizer(WordLevel({token: n for n, token in enumerate(["[UNK]", *vocabulary])}, unk_token="[UNK]"))
    tokens = Tokens(bert, PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]"))
    ids = torch.tensor([[vocabulary.index(token) + 1 for token in text.split()]])
    places = torch.tensor([[token in marked.split() for token in text.split()]])
    found = tokens.whole_words({"input_ids": ids}, places)[0].tolist()
    assert [token for token, is_marked in zip(text.split(), found, strict=True) if is_marked] == whole.split()


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_deleted_word_leaves_no_gap(bert, side):
    """The model then reads what it would read of a text without the word, from where the text begins."""
    tokenizer, texts = tiny_tokenizer(padding_side=side), ["w1 w2 w3 w4 w5", "w2 w1 w6", "w7 w8", "w2"]
    batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    batch["bbox"] = batch["input_ids"].unsqueeze(-1).expand(-1, -1, 4)
    batch["pixel_values"] = torch.zeros(4, 7, 2, 2)  # as many channels as tokens
    hides = torch.isin(batch["input_ids"], torch.tensor(tokenizer.convert_tokens_to_ids(["w1", "w2"])))
    left = delete(dict(batch), hides, Tokens(bert, tokenizer))
    without = tokenizer(
        [" ".join(w for w in t.split() if w not in ("w1", "w2")) for t in texts], padding=True, return_tensors="pt"
    )
    width = without["input_ids"].shape[1]
    for key in ("input_ids", "attention_mask"):
        part = left[key][:, -width:] if side == "left" else left[key][:, :width]
        assert torch.equal(part, without[key]), key
        assert left[key].shape == batch[key].shape
        assert torch.equal(left[key][2], batch[key][2])  # which holds none
    read = left["attention_mask"].bool()
    assert torch.equal(left["bbox"][read], left["input_ids"][read].unsqueeze(-1).expand(-1, 4))
    assert left["pixel_values"] is batch["pixel_values"]
    assert torch.equal(
        delete({"input_ids": batch["input_ids"]}, hides, Tokens(bert, tokenizer))["attention_mask"], read.long()
    )


def test_mask_token_takes_the_place_of_dropped_tokens_only(bert):
    tokens = Tokens(bert, TOKENIZER)
    drop_mask = torch.zeros_like(IDS, dtype=torch.bool)
    drop_mask[0, 1] = drop_mask[1, 2] = True
    challenged = perturbation_for("mask", tokens)({"input_ids": IDS}, drop_mask, tokens)["input_ids"]
    assert challenged[0, 1] == challenged[1, 2] == MASK
    assert torch.equal(challenged[~drop_mask], IDS[~drop_mask])


def test_a_tokenizer_without_mask_token_falls_back_or_says_what_to_do(bert):
    tokens = Tokens(bert, NO_MASK_TOKEN)
    with pytest.raises(ChallengerError, match="challenge_perturbation='attention'"):
        perturbation_for("mask", tokens)({"input_ids": IDS}, IDS == 7, tokens)
    assert "attention_mask" in perturbation_for("auto", tokens)({"input_ids": IDS}, IDS == 7, tokens)


def test_a_model_without_attention_mask_gets_mask_tokens():
    config = FNetConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, intermediate_size=32)
    tokens = Tokens(FNetForSequenceClassification(config), TOKENIZER)
    assert perturbation_for("auto", tokens)({"input_ids": IDS}, IDS == 7, tokens)["input_ids"][0, 1] == MASK
    with pytest.raises(ChallengerError, match="challenge_perturbation='mask'"):
        perturbation_for("attention", tokens)


def test_relevance_is_summed_in_float32_at_least(bert):
    relevance = torch.full((1, 2, 4096), 1.0, dtype=torch.bfloat16)
    per_unit = Tokens(bert, TOKENIZER).per_unit(relevance)
    assert per_unit.dtype == torch.float32
    assert per_unit.tolist() == [[4096.0, 4096.0]]
