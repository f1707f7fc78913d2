"""The challenge itself, without Trainer."""

from types import SimpleNamespace

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from hf_challenger import ChallengeOptions, Challenger, ChallengerError
from hf_challenger.attribution import LRP

TOKENIZER = SimpleNamespace(all_special_ids=[0, 1, 2, 3], unk_token_id=None, mask_token_id=3, pad_token_id=0)
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
    options = {"challenge_threshold": 0.0, **options}
    return Challenger(model, ChallengeOptions(**options), TOKENIZER).challenge(inputs, labels, step, first_row)


def test_hides_the_most_relevant_words_of_about_half_of_the_rows(model, batch):
    mixed = challenge(model, batch, challenge_selection="top", challenge_rate=0.2)
    inputs, labels = batch
    relevance = LRP(model).attribute(inputs, target=labels).sum(-1)
    special = (inputs["input_ids"] < 4).float() * 1e9
    assert 4 <= int(mixed.challenged.sum()) <= 20
    for row in range(ROWS):
        hidden = mixed.drop_mask[row]
        if mixed.challenged[row]:
            ranked = (relevance[row] - special[row]).argsort(descending=True)
            assert set(hidden.nonzero().flatten().tolist()) == set(ranked[: int(hidden.sum())].tolist())
        assert torch.equal(mixed.inputs["attention_mask"][row].bool(), inputs["attention_mask"][row].bool() & ~hidden)


@pytest.mark.parametrize("attribution", ["lrp", "input_x_gradient", "none"])
def test_only_rows_that_the_model_is_sure_of_are_challenged(model, batch, attribution):
    inputs, labels = batch
    free = challenge(model, batch, challenge_threshold=0.0, challenge_attribution=attribution)
    with torch.no_grad():
        gold = model.eval()(**inputs).logits.softmax(-1)[torch.arange(ROWS), labels]
    threshold = float(gold[free.challenged].median())
    mixed = challenge(model.train(), batch, challenge_threshold=threshold, challenge_attribution=attribution)
    assert torch.equal(mixed.challenged, free.challenged & (gold >= threshold))
    assert 0 < mixed.challenged.sum() < free.challenged.sum()
    assert torch.equal(mixed.drop_mask[mixed.challenged], free.drop_mask[mixed.challenged])


@pytest.mark.parametrize(("outputs", "labels"), [(1, torch.randn(ROWS)), (3, torch.ones(ROWS, 3))])
def test_the_threshold_is_for_one_class_a_row_only(batch, outputs, labels):
    config = BertConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    config.num_labels = outputs
    mixed = challenge(BertForSequenceClassification(config), (batch[0], labels), challenge_threshold=1.0)
    assert mixed.challenged.any()


def test_a_budget_caps_the_relevance_removed(model, batch):
    free = challenge(model, batch, challenge_threshold=0.0, challenge_rate=0.5)
    capped = challenge(model, batch, challenge_threshold=0.0, challenge_rate=0.5, challenge_budget=0.3)
    assert (free.removed > 0.3).any()
    assert (capped.removed <= 0.3 + 1e-6).all()
    assert (capped.drop_mask & ~free.drop_mask).any()  # others that fit take the place of those that do not


def test_targets_give_up_certainty_in_proportion_to_the_relevance_removed(model, batch):
    mixed = challenge(model, batch, challenge_softening=0.6)
    _inputs, labels = batch
    logits = torch.randn(ROWS, 3, dtype=torch.float64)
    losses = mixed.row_losses(logits, labels, "single_label_classification")
    for row in range(ROWS):
        s = 0.6 * float(mixed.removed[row])
        target = torch.full((3,), s / 3, dtype=torch.float64)
        target[labels[row]] += 1 - s
        assert float(losses[row]) == pytest.approx(float(-(target * logits[row].log_softmax(0)).sum()), rel=1e-5)
    assert (mixed.removed[mixed.challenged] > 0).sum() > 5  # a row without positive relevance has none to remove
    assert not mixed.removed[~mixed.challenged].any()


def test_append_keeps_every_clean_row_and_weighs_pairs(model, batch):
    mixed = challenge(model, batch, challenge_mix="append", challenge_weight=0.3)
    inputs, _ = batch
    copies = mixed.parents[ROWS:]
    assert torch.equal(mixed.inputs["input_ids"][:ROWS], inputs["input_ids"])
    assert torch.equal(mixed.inputs["attention_mask"][:ROWS], inputs["attention_mask"])
    assert torch.equal(mixed.inputs["input_ids"][ROWS:], inputs["input_ids"][copies])
    assert (mixed.inputs["attention_mask"][ROWS:] < inputs["attention_mask"][copies]).any(1).all()
    total = torch.zeros(ROWS).index_add(0, mixed.parents, mixed.weights)
    torch.testing.assert_close(total, torch.ones(ROWS))
    torch.testing.assert_close(mixed.weights[ROWS:], torch.full((len(copies),), 0.3))


def test_append_works_where_the_batch_brings_no_attention_mask(model, batch):
    inputs, labels = batch
    mixed = challenge(model, ({"input_ids": inputs["input_ids"]}, labels), challenge_mix="append")
    assert mixed.inputs["attention_mask"].shape == mixed.inputs["input_ids"].shape


def test_weights_do_not_depend_on_how_many_rows_were_challenged(model, batch):
    mixed = challenge(model, batch, challenge_share=0.25, challenge_weight=0.5)
    assert set(mixed.weights[mixed.challenged].tolist()) == {2.0}
    assert mixed.weights[~mixed.challenged].tolist() == pytest.approx([0.5 / 0.75] * int((~mixed.challenged).sum()))


def test_masks_are_the_same_however_the_rows_are_spread(model, batch):
    inputs, labels = batch
    whole = challenge(model, batch, step=5).drop_mask
    for first in range(0, ROWS, 8):
        part = {k: v[first : first + 8] for k, v in inputs.items()}
        assert torch.equal(challenge(model, (part, labels[first : first + 8]), 5, first).drop_mask, whole[first : first + 8])
    assert not torch.equal(challenge(model, batch, step=6).drop_mask, whole)


def test_unlabelled_rows_and_rows_without_units_stay_clean(model, batch):
    inputs, labels = ({k: v.clone() for k, v in batch[0].items()}, batch[1].clone())
    labels[:4] = -100
    inputs["input_ids"][4:8] = torch.tensor([1, 2] + [0] * 10)
    inputs["attention_mask"] = (inputs["input_ids"] != 0).long()
    mixed = challenge(model, (inputs, labels), challenge_share=1.0)
    assert not mixed.challenged[:8].any()
    assert mixed.challenged[8:].all()
    assert int(mixed.without_units) == 4


def test_rows_with_bad_relevance_stay_clean(model, batch):
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[7] = float("nan")
    inputs, _labels = batch
    bad = (inputs["input_ids"] == 7).any(1)
    assert bad.any()
    mixed = challenge(model, batch, challenge_share=1.0)
    assert torch.equal(mixed.challenged, ~bad)
    assert int(mixed.not_finite) == int(bad.sum())


def test_the_model_is_left_as_it_was(model, batch):
    before = {k: v.clone() for k, v in model.state_dict().items()}
    challenge(model, batch)
    assert model.training
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"challenge_rate": 0.0}, r"challenge_rate=0.0 is outside \(0, 1\]"),
        ({"challenge_rate": 1.5}, r"challenge_rate=1.5 is outside \(0, 1\]"),
        ({"challenge_share": -0.1}, r"challenge_share=-0.1 is outside \[0, 1\]"),
        ({"challenge_weight": float("nan")}, "challenge_weight=nan"),
        ({"challenge_attribution": "lpr"}, "'lrp'"),
        ({"challenge_composite": "alpha"}, "'attnlrp'.*'cp_lrp'"),
        ({"challenge_selection": "best"}, "'sample', 'top', 'random'"),
        ({"challenge_perturbation": "blank"}, "'auto', 'attention', 'mask'"),
        ({"challenge_target": "worst"}, "'gold'"),
        ({"challenge_mix": "add"}, "'replace', 'append'"),
        ({"challenge_share": 1.0, "challenge_weight": 0.5}, "leaves no clean row"),
    ],
)
def test_bad_options_are_named_with_the_way_out(model, batch, options, words):
    with pytest.raises(ChallengerError, match=words):
        challenge(model, batch, **options)


def test_a_batch_without_token_ids_is_named(model, batch):
    with pytest.raises(ChallengerError, match="input_ids"):
        Challenger(model, processing_class=TOKENIZER).challenge({"tokens": batch[0]["input_ids"]}, batch[1], 0)
