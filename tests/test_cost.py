"""What a challenged step may cost, counted in operations (never in seconds): benchmarks/step_cost.py has the seconds."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

from hf_challenger import ChallengeOptions, Challenger
from hf_challenger.attribution import LRP

pytestmark = pytest.mark.usefixtures("any_confidence")
ROWS, LENGTH = 16, 20
STEP = 0


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attn_implementation="eager",  # the counter does not know all fused attentions
    )
    return BertForSequenceClassification(config).train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 40, (ROWS, LENGTH), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, torch.randint(3, (ROWS,), generator=generator)


class Passes:
    """The model's forward passes: (rows, in train mode)."""

    def __init__(self, model):
        self.seen = []
        model.register_forward_pre_hook(
            lambda module, args, kwargs: self.seen.append((len(kwargs["input_ids"]), module.training)), with_kwargs=True
        )


def flops(call):
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def step(model, batch, **options):
    """One challenged step in a plain loop."""
    inputs, labels = batch
    challenger = Challenger(model, ChallengeOptions(**{"challenge_selection": "sample", "challenge_share": 0.5, **options}))
    challenged = challenger.challenge(inputs, labels, step=STEP)
    model(**challenged.inputs, labels=labels).loss.backward()
    return challenged


def plain_step(model, batch):
    inputs, labels = batch
    model(**inputs, labels=labels).loss.backward()


def test_one_pass_of_the_batch_and_one_of_the_chosen_rows(model, batch):
    passes = Passes(model)
    chosen = int(step(model, batch).challenged.sum())
    assert 0 < chosen < ROWS
    assert passes.seen == [(chosen, False), (ROWS, True)]


def test_attribution_is_one_forward_and_one_backward_to_the_inputs(model, batch):
    inputs, labels = batch

    def gradient_of_the_inputs():
        embeddings = model.get_input_embeddings()(inputs["input_ids"]).detach().requires_grad_()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        score = model(inputs_embeds=embeddings, attention_mask=inputs["attention_mask"]).logits.sum()
        torch.autograd.grad(score, embeddings)

    attribution = flops(lambda: LRP(model).attribute(inputs, target=labels))
    assert attribution == pytest.approx(flops(gradient_of_the_inputs), rel=0.01)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_cost_of_a_step_grows_linearly_in_the_share(model, batch, share):
    plain = flops(lambda: plain_step(model, batch))
    chosen = []
    challenged = flops(lambda: chosen.append(int(step(model, batch, challenge_share=share).challenged.sum())))
    assert challenged / plain == pytest.approx(1 + 2 / 3 * chosen[0] / ROWS, rel=0.03)


def test_where_the_model_is_sure_of_no_row_there_is_no_backward_pass_to_the_inputs(model, batch, monkeypatch):
    plain = flops(lambda: plain_step(model, batch))
    chosen = int(step(model, batch).challenged.sum())
    monkeypatch.setattr("hf_challenger.challenge.challenger.SURE", 0.999)
    found = []
    challenged = flops(lambda: found.append(step(model, batch)))
    assert not found[0].challenged.any()
    assert challenged / plain == pytest.approx(1 + 1 / 3 * chosen / ROWS, rel=0.03)
