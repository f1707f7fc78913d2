"""Which adapter a model gets, and an adapter of one's own."""

import pytest
import torch
from torch import nn

from hf_challenger import ChallengeOptions, Challenger, ChallengerError
from hf_challenger.inputs import ADAPTERS, Audio, Patches, Series, SeriesChannelsFirst, register_units, units_for


class Columns:
    """A table: a unit is a column."""

    key, perturbations, is_sequence_of_tokens = "x", ("zero",), False

    def __init__(self, model, processing_class, unit_size): ...

    def maskable(self, inputs):
        return torch.ones_like(inputs["x"], dtype=torch.bool)

    def per_unit(self, relevance):
        return relevance

    def hidden(self, inputs, drop_mask):
        return drop_mask

    def identities(self, inputs):
        return torch.arange(inputs["x"].shape[1]).expand_as(inputs["x"])

    def text_of(self, identities):
        return ", ".join(f"column {i}" for i in identities)


class OfTables(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x, **kwargs):
        return {"logits": self.layer(x)}


def forward_with(name):
    scope = {}
    exec(f"def forward(self, {name}, labels=None, **kwargs): ...", scope)
    return type("Model", (nn.Module,), {"forward": scope["forward"], "main_input_name": "input_ids"})()


@pytest.mark.parametrize(
    ("name", "adapter"),
    [("past_values", Series), ("pixel_values", Patches), ("input_values", Audio), ("input_features", Audio)],
)
def test_the_adapter_follows_from_the_main_input(name, adapter):
    """Also where main_input_name is the inherited 'input_ids', which forward does not take."""
    units = units_for(forward_with(name))
    assert type(units) is adapter
    assert units.key == name


def test_a_user_states_it_in_one_argument():
    assert type(units_for(forward_with("signal"), name="series_channels_first")) is SeriesChannelsFirst


def test_an_unknown_main_input_is_named_with_the_ways_out():
    with pytest.raises(
        ChallengerError, match=r"main input of Model is 'signal'.*challenge_units.*'series'.*docs/adapters.md"
    ):
        units_for(forward_with("signal"))
    with pytest.raises(ChallengerError, match=r"challenge_units='serie' is unknown.*'series'"):
        ChallengeOptions(challenge_units="serie").validate()


def test_unit_size_is_not_for_tokens():
    with pytest.raises(ChallengerError, match=r"challenge_unit_size=3 .*the unit of text is a token"):
        units_for(forward_with("input_ids"), name="tokens", unit_size=3)


@pytest.mark.parametrize("value", [0, -2, 1.5, True])
def test_sizes_are_whole_numbers(value):
    with pytest.raises(ChallengerError, match=f"challenge_unit_size={value}"):
        ChallengeOptions(challenge_unit_size=value).validate()


@pytest.mark.parametrize(
    ("units", "rate"), [("series", 0.1), ("series_channels_first", 0.1), ("patches", 0.25), ("columns", 0.25)]
)
def test_each_kind_of_input_has_its_rate_and_options_come_first(monkeypatch, units, rate):
    monkeypatch.setitem(ADAPTERS, "columns", Columns)
    model = OfTables()
    assert Challenger(model, ChallengeOptions(challenge_units=units)).rate == rate
    assert Challenger(model, ChallengeOptions(challenge_units=units, challenge_rate=0.7)).rate == 0.7


@pytest.mark.usefixtures("any_confidence")
def test_an_adapter_of_ones_own_serves_a_plain_module_that_returns_a_dict():
    register_units("columns", Columns)
    try:
        torch.manual_seed(0)
        model, x, labels = OfTables(), torch.randn(40, 6), torch.randint(3, (40,))
        options = ChallengeOptions(
            challenge_units="columns", challenge_share=0.5, challenge_rate=0.3, challenge_selection="top"
        )
        challenged = Challenger(model, options).challenge({"x": x}, labels, step=0)
        relevance = x * model.layer.weight[labels]  # of a linear layer: input times weight
        wanted = torch.zeros_like(x, dtype=torch.bool).scatter(1, relevance.topk(2).indices, True)
        rows = challenged.challenged
        assert int(rows.sum()) == 20
        assert torch.equal(challenged.drop_mask[rows], wanted[rows])
        assert torch.equal(challenged.inputs["x"], x.masked_fill(challenged.drop_mask, 0))
        model(**challenged.inputs)["logits"].sum().backward()
        with pytest.raises(ChallengerError, match="'columns' are known already"):
            register_units("columns", Columns)
    finally:
        del ADAPTERS["columns"]
