"""One function decides which tensor of a batch is attributed, for adapters and for every attribution."""

import pytest
import torch
from torch import nn

from hf_challenger.attribution import LRP, LayerLRP
from hf_challenger.attribution.methods import METHODS
from hf_challenger.errors import ChallengerError
from hf_challenger.inputs import Series
from hf_challenger.inputs.main_input import main_input_in, main_input_of


class TwoStreams(nn.Module):
    """Two float inputs, of which the first argument is not the one that an adapter wants."""

    def __init__(self, name=None):
        super().__init__()
        torch.manual_seed(0)
        self.of_context, self.of_feats = nn.Linear(3, 2), nn.Linear(6, 2)
        if name is not None:
            self.main_input_name = name

    def forward(self, context, feats):
        return self.of_context(context) + self.of_feats(feats)


BATCH = {"context": torch.rand(4, 3), "feats": torch.rand(4, 6)}


class Keywords(TwoStreams):
    def forward(self, context, **inputs):
        return super().forward(context, inputs["feats"])


class Anything(TwoStreams):
    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (TwoStreams(), "context"),
        (TwoStreams("feats"), "feats"),
        (TwoStreams("input_ids"), "context"),  # inherited from PreTrainedModel, and not an argument
        (Keywords("feats"), "feats"),
        (Keywords("input_ids"), "context"),
        (Anything("feats"), "feats"),
    ],
)
def test_adapter_and_attribution_agree(model, name):
    assert main_input_of(model) == main_input_in(model, BATCH) == Series(model).key == name
    relevance = LRP(model).attribute(BATCH, target=0)
    assert relevance.shape == BATCH[name].shape
    assert torch.equal(relevance, LRP(model).attribute(BATCH, target=0, main_input=name))


@pytest.mark.parametrize("name", [m for m in METHODS if m not in ("attention_rollout", "captum_lrp")])
def test_every_method_attributes_the_key_that_it_is_given(name):
    model = TwoStreams()
    for key, x in BATCH.items():
        assert METHODS[name](model, BATCH, 0, "attnlrp", main_input=key).shape == x.shape
    assert METHODS[name](model, BATCH, 0, "attnlrp").shape == BATCH["context"].shape


def test_relevance_of_the_named_input_is_its_own():
    model = TwoStreams()
    relevance = LRP(model).attribute(BATCH, target=1, main_input="feats")
    assert torch.allclose(relevance, BATCH["feats"] * model.of_feats.weight[1].detach())
    at_layer = LayerLRP(model, "of_feats").attribute(BATCH, target=1, attribute_to_layer_input=True, main_input="feats")
    assert torch.allclose(at_layer, relevance)


def test_a_key_that_the_batch_lacks_is_named():
    with pytest.raises(ChallengerError, match=r"no 'ids'; it holds context, feats\. Name one of its keys"):
        LRP(TwoStreams()).attribute(BATCH, target=0, main_input="ids")
    with pytest.raises(ChallengerError, match=r"main_input='feats' names a key of a dict, but the inputs are tensors"):
        LRP(TwoStreams()).attribute(tuple(BATCH.values()), target=0, main_input="feats")


def test_a_batch_without_the_main_input_has_its_only_tensor_attributed():
    model = TwoStreams("input_ids")
    labels = {"labels": torch.zeros(4, 1), "attention_mask": torch.ones(4, 3)}
    assert main_input_in(model, {"other": BATCH["feats"], **labels}) == "other"
    with pytest.raises(ChallengerError, match=r"Cannot tell which of u, v .* is 'context'\. Set model\.main_input_name"):
        main_input_in(model, {"u": BATCH["feats"], "v": BATCH["feats"]})
