"""LRP as captum's users call it, its errors, and rows that do not see each other."""

import captum.attr
import pytest
import torch
from torch import nn
from transformers import (
    BartConfig,
    BartForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from hf_challenger.attribution import LRP, LayerLRP
from hf_challenger.errors import ChallengerError

EOS = 2


def bert():
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=3
        )
    )


def llama():
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
        pad_token_id=1,
    )
    return LlamaForSequenceClassification(config)


def bart():
    config = BartConfig(
        vocab_size=40,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_labels=3,
        max_position_embeddings=32,
        pad_token_id=1,
        eos_token_id=EOS,
    )
    return BartForSequenceClassification(config)


def sharpened(model):
    """Larger weights than at the start of training, so that tokens differ in relevance."""
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def batch_of(lengths, pad, side="right"):
    rows, length = len(lengths), max(lengths)
    ids, attended = torch.full((rows, length), pad), torch.zeros(rows, length, dtype=torch.long)
    for row, own in enumerate(lengths):
        place = slice(0, own) if side == "right" else slice(length - own, length)
        ids[row, place] = torch.cat([torch.randint(4, 40, (own - 1,)), torch.tensor([EOS])])
        attended[row, place] = 1
    return {"input_ids": ids, "attention_mask": attended}


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "epsilon"])
@pytest.mark.parametrize(("build", "side"), [(bert, "right"), (llama, "right"), (llama, "left"), (bart, "right")])
def test_each_row_gets_what_it_gets_alone(build, side, composite):
    torch.manual_seed(0)
    model = sharpened(build())
    batch = batch_of([9, 4, 6], model.config.pad_token_id, side)
    if side == "left":  # as generation counts them: a row alone then has the same positions
        batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    target = torch.tensor([0, 1, 2])
    together = LRP(model, composite).attribute(batch, target=target)
    for row, attended in enumerate(batch["attention_mask"].bool()):
        one = {key: value[row, attended].unsqueeze(0) for key, value in batch.items()}
        alone = LRP(model, composite).attribute(one, target=target[row : row + 1])[0]
        assert alone.abs().max() > 0
        assert (together[row, attended] - alone).abs().max() <= 1e-5 * max(1, alone.abs().max())
        assert (together[row, attended] - alone).abs().max() <= 1e-3 * alone.abs().max()
        assert not together[row, ~attended].any(), "padding has relevance"


def test_rows_differ():
    """Else the comparison above could not fail."""
    torch.manual_seed(0)
    model = sharpened(bert())
    relevance = LRP(model).attribute(batch_of([6, 6], 0), target=0)
    assert (relevance[0] - relevance[1]).abs().max() > 0.1 * relevance.abs().max()


# --- captum's way of calling ------------------------------------------------------------------------------------------


def linear_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(4, 3), nn.Linear(2, 3)

    def forward(self, x, y, factor=1.0, offset=0.0):
        return (self.a(x) + self.b(y)) * factor + offset


def test_it_is_one_of_captums_attributions():
    lrp = LRP(linear_net())
    assert isinstance(lrp, captum.attr.GradientAttribution)
    assert lrp.has_convergence_delta()
    assert lrp.multiplies_by_inputs


def test_a_tensor_gives_a_tensor_and_a_tuple_a_tuple():
    model, x = linear_net(), torch.rand(5, 4)
    one = LRP(model).attribute(x, target=1)
    assert isinstance(one, torch.Tensor)
    assert one.shape == x.shape
    (same,) = LRP(model).attribute((x,), target=1)
    assert torch.equal(one, same)


def test_several_inputs_as_in_captum():
    model, x, y = TwoInputs(), torch.rand(5, 4), torch.rand(5, 2)
    ours = LRP(model, "gradient").attribute((x, y), target=2)
    theirs = captum.attr.InputXGradient(model).attribute((x.requires_grad_(), y.requires_grad_()), target=2)
    assert isinstance(ours, tuple)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b)


@pytest.mark.parametrize("more", [2.0, (2.0,), (2.0, 5.0), (torch.tensor(2.0), torch.ones(3))])
def test_additional_arguments_follow_the_inputs(more):
    model, x, y = TwoInputs(), torch.rand(5, 4), torch.rand(5, 2)
    plain, twice = LRP(model).attribute((x, y), 2), LRP(model).attribute((x, y), 2, more)
    assert torch.allclose(twice[0], 2 * plain[0])


def test_a_dict_is_the_batch_and_its_labels_are_left_out():
    torch.manual_seed(0)
    model = sharpened(bert())
    batch = batch_of([6, 5], 0)
    plain = LRP(model).attribute(batch, target=1)
    assert plain.shape == (2, 6, 16)
    assert torch.equal(LRP(model).attribute({**batch, "labels": torch.tensor([5, 99])}, target=1), plain)


def test_ids_alone_are_a_batch_without_a_mask():
    torch.manual_seed(0)
    model = sharpened(bert())
    ids = torch.randint(4, 40, (2, 5))
    assert torch.equal(LRP(model).attribute(ids, target=0), LRP(model).attribute({"input_ids": ids}, target=0))


def test_the_convergence_delta_is_score_minus_relevance():
    model, x = linear_net(), torch.rand(5, 4)
    relevance, delta = LRP(model).attribute(x, target=1, return_convergence_delta=True)
    assert delta.shape == (5,)
    assert torch.allclose(delta, torch.zeros(5), atol=1e-6)  # piecewise linear without biases: conserved
    torch.nn.init.constant_(model.append(nn.Linear(3, 2)).get_submodule("3").bias, 3.0)
    relevance, delta = LRP(model).attribute(x, target=0, return_convergence_delta=True)
    assert torch.allclose(delta, model(x)[:, 0] - relevance.sum(1), atol=1e-6)
    assert (delta - 3).abs().max() < 1e-5  # the bias absorbed its share
    (_,), of_tuple = LRP(model).attribute((x,), target=0, return_convergence_delta=True)
    assert torch.equal(of_tuple, delta)


def test_without_a_target_each_rows_prediction_is_explained():
    model, x = linear_net(), torch.randn(20, 4)
    predicted = model(x).argmax(1)
    assert predicted.unique().numel() > 1
    assert torch.equal(LRP(model).attribute(x), LRP(model).attribute(x, target=predicted))


def test_nothing_asks_for_gradients_afterwards():
    model, x = linear_net(), torch.rand(5, 4)
    relevance = LRP(model).attribute(x, target=0)
    assert not relevance.requires_grad
    assert not x.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_it_works_under_no_grad():
    model, x = linear_net(), torch.rand(5, 4)
    with torch.no_grad():
        assert torch.equal(LRP(model).attribute(x, target=0), LRP(model).attribute(x, target=0))
        assert LRP(model).attribute(x, target=0).abs().sum() > 0


# --- errors -----------------------------------------------------------------------------------------------------------


def test_an_unknown_composite_lists_the_known():
    with pytest.raises(ChallengerError, match=r"composite='attn' is unknown\. Choose one of: 'attnlrp', 'cp_lrp'"):
        LRP(linear_net(), "attn")


def test_which_input_cannot_be_guessed():
    model = TwoInputs()
    with pytest.raises(ChallengerError, match=r"Cannot tell which of u, v is to be attributed.*Set model\.main_input_name"):
        LRP(model).attribute({"u": torch.rand(2, 4), "v": torch.rand(2, 2)}, target=0)


def test_several_integer_inputs_are_refused():
    with pytest.raises(ChallengerError, match="Integer inputs are attributed one at a time"):
        LRP(bert()).attribute((torch.ones(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.long)), target=0)


def test_a_dict_holds_all_arguments_itself():
    with pytest.raises(ChallengerError, match="add them to the dict, by their names"):
        LRP(TwoInputs()).attribute({"x": torch.rand(2, 4), "y": torch.rand(2, 2)}, 0, (2.0,))


def test_ids_that_are_never_embedded():
    class OneHot(nn.Module):
        def forward(self, ids):
            return nn.functional.one_hot(ids, 5).float().sum(1)

    with pytest.raises(ChallengerError, match=r"OneHot never looked its ids up.*Pass float inputs instead"):
        LRP(OneHot()).attribute(torch.ones(1, 3, dtype=torch.long), target=0)


def test_a_model_that_returns_no_scores():
    class Wrong(nn.Module):
        def forward(self, x):
            return {"hidden": x}

    with pytest.raises(
        ChallengerError, match=r"Wrong returned an output with hidden, but a classifier's scores were expected"
    ):
        LRP(Wrong()).attribute(torch.rand(1, 3), target=0)


# --- at a layer of a transformer --------------------------------------------------------------------------------------


def test_relevance_at_every_block_of_bert():
    torch.manual_seed(0)
    model = sharpened(bert())
    batch = batch_of([6, 4], 0)
    for name in ("bert.embeddings", "bert.encoder.layer.0", "bert.encoder.layer.1", "bert.encoder.layer.0.attention"):
        relevance = LayerLRP(model, name).attribute(batch, target=1)
        assert relevance.shape == (2, 6, 16)
        assert relevance.abs().sum() > 0
        assert not relevance[1, 4:].any()
    last = LayerLRP(model, "bert.encoder.layer.1").attribute(batch, target=1)
    assert not last[:, 1:].any(), "only [CLS] reaches the pooler"


def test_the_embedding_layer_is_the_input():
    """BERT adds its word embeddings to others right away: reading at that module is what LRP reads at the ids."""
    torch.manual_seed(0)
    model = sharpened(bert())
    batch = batch_of([6, 4], 0)
    at_layer = LayerLRP(model, "bert.embeddings.word_embeddings").attribute(batch, target=1)
    assert torch.allclose(at_layer, LRP(model).attribute(batch, target=1))
