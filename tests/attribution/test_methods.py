"""Attributions by name: each against captum called directly or against a slow re-derivation; state; errors; training."""

from functools import partial

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from test_lrp import bart, batch_of, bert, llama, sharpened
from torch import nn

from hf_challenger import ChallengeOptions, Challenger
from hf_challenger.attribution import LRP, contrastive, log_odds, rule_coverage
from hf_challenger.attribution.methods import METHODS, captum_lrp, integrated_gradients, lrp, random_relevance
from hf_challenger.challenge import challenger as challenger_module
from hf_challenger.errors import ChallengerError, ChallengerWarning

BUILDS = {"bert": bert, "llama": llama, "bart": bart}
WITH_GRADIENTS = ["lrp", "input_x_gradient", "saliency", "integrated_gradients", "deep_lift"]


def text(build, lengths=(6, 4)):
    torch.manual_seed(0)
    model = sharpened(build())
    return model, batch_of(list(lengths), model.config.pad_token_id)


def series(seed=0):
    torch.manual_seed(seed)
    layers = [nn.Conv1d(2, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(24, 3)]
    model = nn.Sequential(*layers)
    return model.eval(), {"input": torch.randn(4, 2, 12)}  # nn.Sequential calls its argument so


def attribute(name, model, batch, target=None):
    return METHODS[name](model, batch, target, "attnlrp")


# --- float inputs: the same as captum, called directly ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "attributor", "options"),
    [
        ("input_x_gradient", captum.attr.InputXGradient, {}),
        ("saliency", captum.attr.Saliency, {}),
        ("integrated_gradients", captum.attr.IntegratedGradients, {"n_steps": 50}),
        ("deep_lift", captum.attr.DeepLift, {}),
    ],
)
def test_float_inputs_get_what_captum_gives(name, attributor, options):
    model, batch = series()
    target = torch.tensor([0, 1, 2, 0])
    theirs = attributor(model).attribute(batch["input"].clone().requires_grad_(), target=target, **options)
    ours = attribute(name, model, batch, target)
    assert ours.abs().max() > 0
    assert torch.allclose(ours, theirs, atol=1e-6)


# --- token ids: at the embeddings -------------------------------------------------------------------------------------


class FromEmbeddings(nn.Module):
    """BERT called with inputs_embeds, which for BERT (not for decoders) is the same function."""

    def __init__(self, model, attended):
        super().__init__()
        self.model, self.attended = model, attended

    def forward(self, embeddings):
        times = len(embeddings) // len(self.attended)
        return self.model(inputs_embeds=embeddings, attention_mask=self.attended.repeat(times, 1)).logits


@pytest.mark.parametrize(
    ("name", "attributor"),
    [
        ("input_x_gradient", captum.attr.InputXGradient),
        ("saliency", captum.attr.Saliency),
        ("integrated_gradients", captum.attr.IntegratedGradients),
    ],
)
def test_ids_get_what_captum_gives_at_berts_embeddings(name, attributor):
    model, batch = text(bert)
    embeddings = model.get_input_embeddings()(batch["input_ids"]).detach().requires_grad_()
    target = torch.tensor([0, 2])
    theirs = attributor(FromEmbeddings(model, batch["attention_mask"])).attribute(embeddings, target=target)
    ours = attribute(name, model, batch, target)
    assert ours.abs().max() > 0
    assert torch.allclose(ours, theirs, atol=1e-6 * theirs.abs().max().item() + 1e-7)


@pytest.mark.parametrize("build", BUILDS)
def test_input_x_gradient_is_lrp_without_rules(build):
    """Encoder-decoders embed the ids twice, the second time shifted: both copies count in both."""
    model, batch = text(BUILDS[build])
    ours, rules = attribute("input_x_gradient", model, batch, 1), LRP(model, "gradient").attribute(batch, target=1)
    assert torch.allclose(ours, rules, atol=1e-6 * rules.abs().max().item())


@pytest.mark.parametrize(("build", "baseline"), [("bert", "zero"), ("bert", "pad"), ("llama", "pad")])
def test_integrated_gradients_are_complete(build, baseline):
    """They sum to the difference of the scores at both ends of the path, whatever the model.

    Not at the zero baseline of LLaMA: its RMS norm sees only the direction of an embedding, and there is none at 0.
    """
    model, batch = text(BUILDS[build])
    model.double()
    target = torch.tensor([0, 2])
    relevance = integrated_gradients(model, batch, target, n_steps=100, baseline=baseline)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        own = model(**batch).logits[[0, 1], target]
        table[:] = table[model.config.pad_token_id].clone() if baseline == "pad" else 0.0
        end = model(**batch).logits[[0, 1], target]
    assert torch.allclose(relevance.sum((1, 2)), own - end, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("name", [*WITH_GRADIENTS, "attention_rollout", "random", "none"])
def test_shapes_values_and_padding(name, build):
    model, batch = text(BUILDS[build])
    if (name, build) == ("attention_rollout", "bart"):
        with pytest.raises(ChallengerError, match="in an encoder and a decoder"):
            attribute(name, model, batch, 1)
        return
    relevance = attribute(name, model, batch, torch.tensor([0, 1]))
    assert relevance.shape[:2] == batch["input_ids"].shape
    assert relevance.dim() == 3
    assert relevance.isfinite().all()
    assert relevance[0].abs().sum() > 0
    assert not relevance.requires_grad
    if name != "none":
        assert not relevance[1, 4:].any()


@pytest.mark.parametrize("name", [n for n in WITH_GRADIENTS if n != "lrp"])
def test_every_kind_of_target(name):
    model, batch = text(bert)
    own = torch.tensor([0, 2])
    maps = {
        "index": attribute(name, model, batch, 1),
        "gold": attribute(name, model, batch, own),
        "contrastive": attribute(name, model, batch, contrastive(own)),
        "log_odds": attribute(name, model, batch, log_odds(own)),
        "multi_label": attribute(name, model, batch, torch.tensor([[1.0, 1, 0], [0, 1, 1]])),
        "callable": attribute(name, model, batch, lambda logits: logits[:, 1]),
    }
    assert torch.allclose(maps["callable"], maps["index"], atol=1e-7)
    for name_of, one in maps.items():
        assert name_of in ("index", "callable") or (one - maps["index"]).abs().max() > 1e-4 * one.abs().max()


@pytest.mark.parametrize("name", [n for n in WITH_GRADIENTS if n != "lrp"])
def test_the_predicted_class_is_that_of_the_batch_itself(name):
    """Not of the interpolated or baseline rows that an attributor passes through the model."""
    model, batch = text(bert, (6, 4, 5, 6, 3))
    with torch.no_grad():
        predicted = model(**batch).logits.argmax(-1)
    assert torch.allclose(attribute(name, model, batch, None), attribute(name, model, batch, predicted))


# --- attention rollout ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("build", ["bert", "llama"])
def test_rollout_equals_the_product_of_returned_attentions(build):
    model, batch = text(BUILDS[build])
    ours = attribute("attention_rollout", model, batch)
    model.set_attn_implementation("eager")
    eager = attribute("attention_rollout", model, batch)
    with torch.no_grad():
        attentions = model(**batch, output_attentions=True).attentions
    attended = batch["attention_mask"].bool()
    for row in range(2):
        rollout = torch.eye(6)
        for layer in attentions:
            rollout = (layer[row].mean(0) + torch.eye(6)) / 2 @ rollout
        read = 0 if build == "bert" else int(attended[row].nonzero().max())
        assert torch.allclose(ours[row, :, 0], rollout[read], atol=1e-6)
        assert torch.allclose(eager[row, :, 0], rollout[read], atol=1e-6)
        assert abs(ours[row].sum() - 1) < 1e-5


def test_rollout_needs_attention():
    model, batch = series()
    with pytest.raises(
        ChallengerError, match=r"attention_rollout needs self-attention.*Sequential has no softmax attention"
    ):
        attribute("attention_rollout", model, batch)


# --- random -----------------------------------------------------------------------------------------------------------


def test_random_is_a_function_of_seed_and_row_alone():
    model, batch = text(bert, (6, 4, 6))
    before = torch.get_rng_state()
    first = attribute("random", model, batch)
    assert torch.equal(torch.get_rng_state(), before), "torch's global stream was drawn from"
    torch.rand(7)
    assert torch.equal(attribute("random", model, batch), first)
    alone = {k: v[1:2, :4] for k, v in batch.items()}
    assert torch.equal(attribute("random", model, alone)[0], first[1, :4])
    assert not torch.equal(random_relevance(model, batch, seed=1), first)
    assert not torch.equal(first[0], first[2])


def test_random_is_uniform():
    model, _ = text(bert)
    ids = torch.randint(4, 40, (400, 12))
    values = attribute("random", model, {"input_ids": ids}).flatten()
    assert abs(values.mean() - 0.5) < 0.02
    assert abs(values.std() - 12**-0.5) < 0.02


def test_random_on_floats_has_their_shape():
    model, batch = series()
    relevance = attribute("random", model, batch)
    assert relevance.shape == batch["input"].shape
    assert relevance.unique().numel() == relevance.numel()


# --- captum's own LRP -------------------------------------------------------------------------------------------------


def test_captums_lrp_by_name():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    model[0].rule = rule = captum.attr._utils.lrp_rules.GammaRule()
    batch = {"input": torch.rand(4, 6)}
    pointers = [p.data_ptr() for p in model.parameters()]
    ours = captum_lrp(model, batch, torch.tensor([0, 1, 2, 0]))
    assert torch.allclose(ours, LRP(model).attribute(batch, target=torch.tensor([0, 1, 2, 0])), atol=1e-5)
    assert [p.data_ptr() for p in model.parameters()] == pointers
    assert model[0].rule is rule
    assert all(p.requires_grad for p in model.parameters())


def test_captums_lrp_says_where_it_cannot():
    model, batch = text(bert)
    with pytest.raises(ChallengerError, match=r"captum's LRP needs float inputs, but 'input_ids'.*Use attribution 'lrp'"):
        captum_lrp(model, batch, 1)
    with pytest.raises(ChallengerError, match=r"captum's LRP cannot serve Sequential: Module of type .*LayerNorm.*'lrp'"):
        captum_lrp(nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6)), {"input": torch.rand(2, 6)}, 1)
    with pytest.raises(ChallengerError, match="explains one class a row"):
        captum_lrp(nn.Sequential(nn.Linear(6, 2)), {"input": torch.rand(2, 6)}, contrastive(torch.tensor([0, 1])))


# --- state ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*WITH_GRADIENTS, "attention_rollout"])
def test_the_model_is_as_before(name):
    model, batch = text(bert)
    model.train()
    model.bert.encoder.layer[0].eval()
    model.bert.pooler.requires_grad_(False)
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    flags = [m.training for m in model.modules()]
    wanted = [p.requires_grad for p in model.parameters()]
    values = [p.detach().clone() for p in model.parameters()]
    random_state = torch.get_rng_state()
    attribute(name, model, batch, torch.tensor([0, 1]))
    assert [m.training for m in model.modules()] == flags
    assert [p.requires_grad for p in model.parameters()] == wanted
    assert all(torch.equal(p, value) for p, value in zip(model.parameters(), values, strict=True))
    assert torch.equal(model.classifier.weight.grad, torch.ones_like(model.classifier.weight))
    assert sum(p.grad is not None for p in model.parameters()) == 1
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize("name", [n for n in METHODS if n != "captum_lrp"])
def test_every_method_challenges_a_batch(name, monkeypatch):
    monkeypatch.setattr(challenger_module, "SURE", 0.0)
    model, batch = text(bert, (8, 6, 7))
    options = ChallengeOptions(challenge_attribution=name, challenge_share=1.0, challenge_selection="sample")
    labels = torch.tensor([0, 1, 2])
    challenged = Challenger(model, options).challenge(batch, labels, step=0)
    assert challenged.challenged.all()
    model.train()
    model(**challenged.inputs, labels=labels).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.classifier.parameters())


def test_strict_lrp_is_a_method_of_ones_own(monkeypatch):
    class Distances(nn.Module):
        def forward(self, x):
            return torch.cdist(x, x.flip(1)).flatten(1)

    model, batch = nn.Sequential(nn.Conv1d(2, 3, 3), Distances(), nn.Linear(9, 3)), {"input": torch.randn(4, 2, 12)}
    labels = torch.tensor([0, 1, 2, 0])
    rule_coverage._reported.clear()
    with pytest.warns(ChallengerWarning, match="cdist in Distances"):
        lrp(model, batch, 0)
    monkeypatch.setitem(METHODS, "strict_lrp", partial(lrp, strict=True))
    options = ChallengeOptions(
        challenge_attribution="strict_lrp",
        challenge_units="series_channels_first",
        challenge_share=1,
        challenge_selection="top",
    )
    monkeypatch.setattr(challenger_module, "SURE", 0.0)
    challenger = Challenger(model, options)
    with pytest.raises(ChallengerError, match="cdist in Distances"):
        challenger.challenge(batch, labels, step=0)


def test_an_unknown_baseline_lists_the_known():
    model, batch = text(bert)
    with pytest.raises(ChallengerError, match=r"baseline='mean' is unknown\. Choose one of: 'zero', 'pad'"):
        integrated_gradients(model, batch, 1, baseline="mean")
    floats, values = series()
    with pytest.raises(ChallengerError, match="baseline='pad' needs token ids"):
        integrated_gradients(floats, values, 1, baseline="pad")


def test_cross_entropy_still_trains_after_an_attribution():
    """Gradients of a step are bit for bit those of a step without one."""
    gradients = []
    for attributed in (False, True):
        model, batch = text(bert)
        model.eval()
        if attributed:
            for name in WITH_GRADIENTS:
                attribute(name, model, batch, torch.tensor([0, 1]))
        F.cross_entropy(model(**batch).logits, torch.tensor([0, 1])).backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
