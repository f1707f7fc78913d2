"""PA-LRP: what positions take goes to the places; its formulas are tested in test_rederivation.py."""

import pytest
import torch
from families import build, build_batch
from test_lrp import bart, batch_of, bert, llama, sharpened
from torch import nn

from hf_challenger.attribution import LRP, PositionalLRP
from hf_challenger.errors import ChallengerError


class Sum(nn.Module):
    """Linear in token and position embeddings, without biases: nothing may get lost."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.wpe, self.classifier = nn.Embedding(9, 4), nn.Embedding(5, 4), nn.Linear(4, 2, bias=False)

    def forward(self, input_ids):
        places = torch.arange(input_ids.shape[1]).unsqueeze(0)  # once for the batch: each row must get its own relevance
        return self.classifier((self.tokens(input_ids) + self.wpe(places)).relu().mean(1))


IDS = torch.tensor([[1, 2, 3], [4, 5, 1]])


def test_positions_complete_the_score():
    relevance, delta = PositionalLRP(Sum()).attribute(IDS, target=1, return_convergence_delta=True)
    assert delta.abs().max() < 1e-6
    assert LRP(Sum()).attribute(IDS, target=1, return_convergence_delta=True)[1].abs().min() > 1e-3
    with torch.no_grad():
        torch.testing.assert_close(relevance.sum((1, 2)), Sum()(IDS)[:, 1])


@pytest.mark.parametrize("name", ["bert", "gpt2", "roberta", "longformer", "llama", "gpt_neox", "modernbert"])
def test_families(name):
    """Learned and rotary; padding gets nothing; logits are the model's; no hook stays."""
    model = build("text", name)
    batch = build_batch("text", name, model)
    with torch.no_grad():
        logit = model(**batch).logits[:, 1]
    seen = []
    relevance = PositionalLRP(model).attribute(
        batch, target=lambda logits: seen.append(logits[:, 1].detach()) or logits[:, 1]
    )
    torch.testing.assert_close(seen[0], logit)
    assert relevance.shape[:2] == batch["input_ids"].shape
    assert relevance.isfinite().all()
    assert relevance[batch["attention_mask"] == 0].abs().max() == 0
    plain = LRP(model).attribute(batch, target=1)
    assert (relevance - plain).abs().max() > 1e-2 * plain.abs().max()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("build_model", [bert, llama])
def test_each_row_gets_what_it_gets_alone(build_model):
    torch.manual_seed(0)
    model = sharpened(build_model())
    batch = batch_of([7, 4, 6], model.config.pad_token_id)
    together = PositionalLRP(model).attribute(batch, target=2)
    for row, length in enumerate((7, 4, 6)):
        alone = {key: value[row : row + 1, :length] for key, value in batch.items()}
        torch.testing.assert_close(
            PositionalLRP(model).attribute(alone, target=2)[0], together[row, :length], rtol=1e-4, atol=1e-5
        )


def test_constant_attention_gives_rotary_positions_nothing():
    model = sharpened(llama())
    batch = batch_of([6, 5], model.config.pad_token_id)
    both = [engine(model, "cp_lrp").attribute(batch, target=0) for engine in (LRP, PositionalLRP)]
    torch.testing.assert_close(*both)


@pytest.mark.parametrize("name", ["bloom", "xlnet", "gptj"])
def test_positions_of_pairs_are_refused(name):
    model = build("text", name)
    with pytest.raises(
        ChallengerError, match=r"found in .*: none\. ALiBi and relative position biases belong to pairs.*Use LRP"
    ):
        PositionalLRP(model).attribute(build_batch("text", name, model), target=0)
    assert not any(m._forward_hooks for m in model.modules())


def test_two_lookups_and_floats_are_refused():
    model = sharpened(bart())
    with pytest.raises(ChallengerError, match="looks its ids up 2 times"):
        PositionalLRP(model).attribute(batch_of([6, 5], 1), target=0)
    with pytest.raises(ChallengerError, match="attributes token ids"):
        PositionalLRP(nn.Linear(3, 2)).attribute(torch.rand(2, 3), target=0)
