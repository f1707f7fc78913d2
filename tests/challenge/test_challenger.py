"""One challenge, without Trainer: row-level selections, and the cues that a memory knows."""

from types import SimpleNamespace

import pytest
import torch
from tiny import tiny_bert, tiny_tokenizer
from transformers import BertConfig, BertForSequenceClassification

from hf_challenger import ChallengeOptions, Challenger, ChallengerError
from hf_challenger.attribution import LRP
from hf_challenger.challenge import CueMemory, challenger
from hf_challenger.errors import NotChallengeable

TOKENIZER = SimpleNamespace(
    all_special_ids=[0, 1, 2, 3], unk_token_id=None, mask_token_id=3, pad_token_id=0, cls_token_id=1, sep_token_id=2
)
ROWS = 24


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    return BertForSequenceClassification(config).train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 40, (ROWS, 12), generator=generator)
    lengths = torch.randint(4, 13, (ROWS, 1), generator=generator)
    position = torch.arange(12)
    ids = torch.where(position < lengths, ids, 0)
    ids[:, 0] = 1
    ids = ids.where(position != lengths - 1, torch.tensor(2))
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}, torch.randint(3, (ROWS,), generator=generator)


def challenge(model, batch, step=0, first_row=0, **options):
    inputs, labels = batch
    options = {"challenge_selection": "sample", "challenge_share": 0.5, **options}
    return Challenger(model, ChallengeOptions(**options), TOKENIZER).challenge(inputs, labels, step, first_row)


def read_by(inputs):
    """The token ids of each row that a model reads."""
    return [ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]


@pytest.mark.usefixtures("any_confidence")
def test_hides_the_most_relevant_words_of_half_of_the_rows(model, batch):
    challenged = challenge(model, batch, challenge_selection="top", challenge_rate=0.2)
    inputs, labels = batch
    relevance = LRP(model).attribute(inputs, target=labels).sum(-1)
    special = (inputs["input_ids"] < 4).float() * 1e9
    assert int(challenged.challenged.sum()) == ROWS / 2
    for row in range(ROWS):
        hidden = challenged.drop_mask[row]
        if challenged.challenged[row]:
            ranked = (relevance[row] - special[row]).argsort(descending=True)
            assert set(hidden.nonzero().flatten().tolist()) == set(ranked[: int(hidden.sum())].tolist())
        left = inputs["input_ids"][row][inputs["attention_mask"][row].bool() & ~hidden]
        assert read_by(challenged.inputs)[row] == left.tolist()


@pytest.mark.parametrize("attribution", ["lrp", "input_x_gradient", "none"])
def test_row_by_row_only_rows_that_the_model_is_sure_of_are_challenged(model, batch, attribution, monkeypatch):
    inputs, labels = batch
    monkeypatch.setattr(challenger, "SURE", 0.0)
    free = challenge(model, batch, challenge_attribution=attribution)
    with torch.no_grad():
        gold = model.eval()(**inputs).logits.softmax(-1)[torch.arange(ROWS), labels]
    threshold = float(gold[free.challenged].median())
    monkeypatch.setattr(challenger, "SURE", threshold)
    found = challenge(model.train(), batch, challenge_attribution=attribution)
    assert torch.equal(found.challenged, free.challenged & (gold >= threshold))
    assert 0 < found.challenged.sum() < free.challenged.sum()
    assert torch.equal(found.drop_mask[found.challenged], free.drop_mask[found.challenged])


@pytest.mark.parametrize(("outputs", "labels"), [(1, torch.randn(ROWS)), (3, torch.ones(ROWS, 3))])
def test_without_one_class_a_row_all_rows_count_and_cues_are_refused(batch, outputs, labels):
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    config.num_labels = outputs
    model = BertForSequenceClassification(config)
    assert challenge(model, (batch[0], labels)).challenged.sum() == ROWS / 2
    with pytest.raises(NotChallengeable, match=r"give each row one class.*challenge_selection='sample'"):
        challenge(model, (batch[0], labels), challenge_selection="cues")


@pytest.mark.usefixtures("any_confidence")
def test_masks_are_the_same_however_the_rows_are_spread(model, batch):
    inputs, labels = batch
    whole = challenge(model, batch, step=5).drop_mask
    for first in range(0, ROWS, 8):
        part = {k: v[first : first + 8] for k, v in inputs.items()}
        assert torch.equal(challenge(model, (part, labels[first : first + 8]), 5, first).drop_mask, whole[first : first + 8])
    assert not torch.equal(challenge(model, batch, step=6).drop_mask, whole)


@pytest.mark.usefixtures("any_confidence")
def test_unlabelled_rows_and_rows_without_units_stay_whole(model, batch):
    inputs, labels = ({k: v.clone() for k, v in batch[0].items()}, batch[1].clone())
    labels[:4] = -100
    inputs["input_ids"][4:8] = torch.tensor([1, 2] + [0] * 10)
    inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
    found = challenge(model, (inputs, labels), challenge_share=1.0)
    assert not found.challenged[:8].any()
    assert found.challenged[8:].all()


@pytest.mark.usefixtures("any_confidence")
def test_rows_with_bad_relevance_stay_whole(model, batch):
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[7] = float("nan")
    inputs, _labels = batch
    bad = (inputs["input_ids"] == 7).any(1)
    assert bad.any()
    found = challenge(model, batch, challenge_share=1.0)
    assert torch.equal(found.challenged, ~bad)
    assert int(found.not_finite) == int(bad.sum())


@pytest.mark.parametrize("selection", ["cues", "sample"])
def test_the_model_is_left_as_it_was(model, batch, selection):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for step in range(4):
        challenge(model, batch, step, challenge_selection=selection)
    assert model.training
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


# --- cues ---------------------------------------------------------------------------------------------------------------

LEAK, CLASS = 5, 1


def knows_the_leak():
    """A memory to which every row of the class was the leak and nothing else."""
    memory = CueMemory(0.8)
    rows = torch.arange(10)
    ids = torch.stack([torch.full_like(rows, LEAK), 10 + rows], 1)
    ids = torch.nn.functional.pad(ids, (0, 30), value=-1)
    shares = torch.nn.functional.pad(torch.tensor([[1.0, 0.0]]).expand(10, 2), (0, 30))
    memory.remember(torch.full((10,), CLASS), rows, ids, shares)
    return memory


@pytest.fixture
def leaky(batch):
    """The batch with the leak as second token of every row, and the rows of its class."""
    inputs, labels = {k: v.clone() for k, v in batch[0].items()}, batch[1]
    inputs["input_ids"][inputs["input_ids"] == LEAK] = 6
    inputs["input_ids"][:, 1] = LEAK
    return inputs, labels


def hide(model, batch, step=0, first_row=0, **options):
    known = Challenger(model, ChallengeOptions(**options), TOKENIZER, memory=knows_the_leak())
    return known, known.challenge(*batch, step, first_row)


def test_a_known_cue_is_hidden_in_its_share_of_the_rows_of_its_class(model, leaky):
    known, found = hide(model, leaky, challenge_share=0.5)
    rows = leaky[1] == CLASS
    assert not found.challenged[~rows].any()
    assert 0 < found.challenged.sum() < rows.sum()
    hidden = torch.zeros_like(found.drop_mask)
    hidden[found.challenged, 1] = True
    assert torch.equal(found.drop_mask, hidden)
    assert read_by(found.inputs) == read_by({**leaky[0], "attention_mask": leaky[0]["attention_mask"] * ~hidden})
    (cue,) = known.cues
    assert cue.hidden_rows == int(found.challenged.sum())
    assert hide(model, leaky, challenge_share=1.0)[1].challenged.tolist() == rows.tolist()
    assert "input_ids" in hide(model, leaky, challenge_share=0.0)[1].inputs


def test_a_batch_without_the_cue_comes_back_as_it_was(model, batch, leaky):
    inputs = {**leaky[0], "input_ids": leaky[0]["input_ids"].where(leaky[0]["input_ids"] != LEAK, torch.tensor(6))}
    _, found = hide(model, (inputs, leaky[1]), challenge_share=1.0)
    assert not found.challenged.any()
    assert all(torch.equal(found.inputs[k], inputs[k]) for k in inputs)


def test_cues_are_hidden_in_the_same_rows_however_they_are_spread(model, leaky):
    inputs, labels = leaky
    _, whole = hide(model, leaky, step=3)
    for first in range(0, ROWS, 8):
        part = {k: v[first : first + 8] for k, v in inputs.items()}, labels[first : first + 8]
        assert torch.equal(hide(model, part, 3, first)[1].drop_mask, whole.drop_mask[first : first + 8])


@pytest.mark.parametrize(("settled", "least", "most"), [(False, 20, 42), (True, 3, 18)])
def test_the_memory_is_fed_by_a_share_of_the_steps_and_by_a_twelfth_once_it_is_settled(
    model, batch, monkeypatch, settled, least, most
):
    monkeypatch.setattr(challenger, "SURE", 0.0)
    monkeypatch.setattr(CueMemory, "settled", settled)
    seen = []
    model.register_forward_pre_hook(lambda *_: seen.append(1))
    known = Challenger(model, ChallengeOptions(), TOKENIZER)
    for step in range(120):
        known.challenge(*batch, step)
    assert least <= len(seen) <= most
    known.update()
    assert (
        sum(len(rows["keys"]) for rows in known.memory.state_dict()["rows"].values()) > ROWS - 5
    )  # the others have no positive relevance


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"challenge_rate": 0.0}, r"challenge_rate=0.0 is outside \(0, 1\]"),
        ({"challenge_rate": 1.5}, r"challenge_rate=1.5 is outside \(0, 1\]"),
        ({"challenge_share": -0.1}, r"challenge_share=-0.1 is outside \[0, 1\]"),
        ({"challenge_threshold": float("nan")}, "challenge_threshold=nan"),
        ({"challenge_attribution": "lpr"}, "'lrp'"),
        ({"challenge_composite": "alpha"}, "'attnlrp'.*'cp_lrp'"),
        ({"challenge_selection": "best"}, "'cues', 'named', 'sample', 'top', 'random'"),
        ({"challenge_perturbation": "blank"}, "'auto', 'delete', 'attention', 'mask'"),
    ],
)
def test_bad_options_are_named_with_the_way_out(model, batch, options, words):
    with pytest.raises(ChallengerError, match=words):
        challenge(model, batch, **options)


def test_a_batch_without_token_ids_is_named(model, batch):
    with pytest.raises(ChallengerError, match="input_ids"):
        Challenger(model, processing_class=TOKENIZER).challenge({"tokens": batch[0]["input_ids"]}, batch[1], 0)


@pytest.mark.usefixtures("any_confidence")
def test_a_row_whose_leak_was_exchanged_stays_one_row_of_the_memory():
    """The memory counts different rows. With a leak drawn anew each time, one text would count as several."""
    tokenizer = tiny_tokenizer()
    challenger = Challenger(tiny_bert(), ChallengeOptions(challenge_hide=["w1", "w2"]), tokenizer)
    batch = {**tokenizer(["w1 w3 w4 w5", "w2 w3 w4 w6"], return_tensors="pt", return_token_type_ids=False)}
    seen = set()
    for step in range(60):
        challenged = challenger.challenge(batch, torch.tensor([0, 0]), step)
        seen |= {tuple(ids) for ids in challenged.inputs["input_ids"].tolist()}
    challenger.update()
    assert len(seen) > 2
    assert len(challenger.memory.state_dict()["rows"][0]["keys"]) == 2
