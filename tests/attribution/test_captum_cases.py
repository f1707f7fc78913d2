"""captum's own LRP tests, by name: what is asserted there holds here, or the difference is deliberate and has a reason.

The models, inputs and numbers are those of captum's tests (tests/attr/test_lrp.py and tests/attr/layer/test_layer_lrp.py); the code is our own.
"""

from __future__ import annotations

from collections.abc import Callable

import captum.attr
import pytest
import torch
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule, PropagationRule
from captum.testing.helpers.basic_models import (
    BasicModel_ConvNet_One_Conv,
    BasicModel_MultiLayer,
    BasicModelWithReusedLinear,
    SimpleLRPModel,
)
from torch import Tensor, nn

from hf_challenger.attribution import LRP, LayerLRP
from hf_challenger.errors import ChallengerError

NAMES = {
    "test_lrp": [
        "test_futures_not_implemented",
        "test_lrp_Identity",
        "test_lrp_basic_attributions",
        "test_lrp_creator",
        "test_lrp_creator_activation",
        "test_lrp_ixg_equivalency",
        "test_lrp_maxpool1D",
        "test_lrp_maxpool2D",
        "test_lrp_maxpool3D",
        "test_lrp_multi",
        "test_lrp_multi_inputs",
        "test_lrp_repeated_module",
        "test_lrp_simple2_attributions",
        "test_lrp_simple_attributions",
        "test_lrp_simple_attributions_AlphaBeta",
        "test_lrp_simple_attributions_GammaRule",
        "test_lrp_simple_attributions_batch",
        "test_lrp_simple_inplaceReLU",
        "test_lrp_simple_repeat_attributions",
        "test_lrp_simple_tanh",
        "test_lrp_skip_connection",
    ],
    "test_layer_lrp": [
        "test_lrp_basic_attributions",
        "test_lrp_creator",
        "test_lrp_creator_activation",
        "test_lrp_simple_attributions",
        "test_lrp_simple_attributions_AlphaBeta",
        "test_lrp_simple_attributions_GammaRule",
        "test_lrp_simple_attributions_all_layers",
        "test_lrp_simple_attributions_all_layers_delta",
        "test_lrp_simple_inplaceReLU",
        "test_lrp_simple_repeat_attributions",
        "test_lrp_simple_tanh",
    ],
}
DIFFERENCES = {
    "test_lrp.test_lrp_creator": "no TypeError at construction: what is no rule is a ChallengerError when relevance is asked for,"
    " since rules may be set in between",
    "test_lrp.test_lrp_creator_activation": "every module is served: operations have rules, so that none lacks a default",
    "test_lrp.test_lrp_ixg_equivalency": "the pass runs in eval mode, where captum's test compares maps of a model in training"
    " mode, whose dropout scales by 1 / .99; in eval mode the two are equal",
    "test_lrp.test_lrp_multi_inputs": "a sum gives each summand its share; captum gives all relevance to both (its delta is -104)",
    "test_lrp.test_lrp_repeated_module": "a module may be used more than once",
    "test_layer_lrp.test_lrp_creator": "as for LRP: no TypeError at construction",
    "test_layer_lrp.test_lrp_creator_activation": "as for LRP: every module is served",
    "test_layer_lrp.test_lrp_simple_attributions_all_layers": "one layer at a time, no lists of layers",
    "test_layer_lrp.test_lrp_simple_attributions_all_layers_delta": "one layer at a time, no lists of layers",
    "LRP.attribute(verbose=True)": "nothing is printed: composites are tables that can be read, and docs/rules.md lists them",
}

ROW = torch.tensor([[1.0, 2.0, 3.0]])


def simple(*rules: PropagationRule, negative: bool = False, inplace: bool = False) -> nn.Module:
    """captum's model of two linear layers, with these rules on them; ``negative`` sets one weight to -2."""
    model = SimpleLRPModel(inplace).eval()
    if negative:
        model.linear.weight.data[0][0] = -2
    for layer, rule in zip((model.linear, model.linear2), rules, strict=False):
        layer.rule = rule
    return model


class Tanh(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.tanh, self.linear2 = nn.Linear(3, 3, bias=False), nn.Tanh(), nn.Linear(3, 1, bias=False)
        for layer in (self.linear, self.linear2):
            layer.weight.data.fill_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear2(self.tanh(self.linear(x)))


class FirstRow(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.linear.weight.data.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.linear(x))[0].unsqueeze(0)


class Skip(nn.Module):
    class Add(nn.Module):
        def forward(self, first: Tensor, second: Tensor) -> Tensor:
            return first + second

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.add = nn.Linear(2, 2, bias=False), self.Add()
        self.linear.weight.data.fill_(5)
        self.add.rule = EpsilonRule()  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.add(self.linear(x), x)


def doubled_and_pooled() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.MaxPool1d(2))
    model[0].weight.data.fill_(2.0)
    return model


def one_convolution() -> tuple[nn.Module, Tensor, int]:
    model, x = BasicModel_ConvNet_One_Conv(), torch.arange(16.0).view(1, 1, 4, 4)
    return model, x, int(model(x).argmax())


def both(rule: Callable[[], PropagationRule], **options: bool) -> nn.Module:
    return simple(rule(), rule(), **options)


# name → relevance found, relevance expected
EPSILON_TWICE = [[18.0, 36.0, 54.0]]
CASES: dict[str, tuple[Callable[[], Tensor], object]] = {
    "test_lrp.test_lrp_Identity": (
        lambda: LRP(simple(IdentityRule(), EpsilonRule(), negative=True)).attribute(ROW),
        [[24.0, 36.0, 36.0]],
    ),
    "test_lrp.test_lrp_basic_attributions": (
        lambda: LRP(one_convolution()[0]).attribute(*one_convolution()[1:]),
        [[[[0, 1, 2, 3], [0, 5, 6, 7], [0, 9, 10, 11], [0, 0, 0, 0]]]],
    ),
    "test_lrp.test_lrp_maxpool1D": (
        lambda: LRP(doubled_and_pooled()).attribute(torch.tensor([[[1.0, 2.0], [5.0, 6.0]]]), target=1),
        [[[0, 0], [10, 12]]],
    ),
    "test_lrp.test_lrp_maxpool2D": (
        lambda: LRP(nn.MaxPool2d(2)).attribute(torch.tensor([[[[1.0, 2.0], [5.0, 6.0]]]])),
        [[[[0, 0], [0, 6]]]],
    ),
    "test_lrp.test_lrp_maxpool3D": (
        lambda: LRP(nn.MaxPool3d(2)).attribute(torch.arange(1.0, 9).view(1, 1, 2, 2, 2)),
        [[[[[0, 0], [0, 0]], [[0, 0], [0, 8]]]]],
    ),
    "test_lrp.test_lrp_multi": (
        lambda: LRP(BasicModel_MultiLayer()).attribute(ROW, target=0),
        LRP(BasicModel_MultiLayer()).attribute(ROW, target=0, additional_forward_args=(0,)).tolist(),
    ),
    "test_lrp.test_lrp_simple2_attributions": (
        lambda: torch.tensor(LRP(FirstRow()).attribute(torch.tensor([[1.0, 2.0], [1.0, 3.0]]), 0).shape),
        [2, 2],
    ),
    "test_lrp.test_lrp_simple_attributions": (lambda: LRP(both(EpsilonRule)).attribute(ROW), EPSILON_TWICE),
    "test_lrp.test_lrp_simple_attributions_AlphaBeta": (
        lambda: LRP(both(Alpha1_Beta0_Rule, negative=True)).attribute(ROW),
        [[12, 33.6, 50.4]],
    ),
    "test_lrp.test_lrp_simple_attributions_GammaRule": (
        lambda: LRP(simple(GammaRule(gamma=1), GammaRule(), negative=True)).attribute(ROW),
        [[28 / 3, 104 / 3, 52]],
    ),
    "test_lrp.test_lrp_simple_attributions_batch": (
        lambda: LRP(both(EpsilonRule)).attribute(torch.cat([ROW, 3 * ROW]), target=0),
        [[18.0, 36.0, 54.0], [54.0, 108.0, 162.0]],
    ),
    "test_lrp.test_lrp_simple_inplaceReLU": (lambda: LRP(both(EpsilonRule, inplace=True)).attribute(ROW), EPSILON_TWICE),
    "test_lrp.test_lrp_simple_tanh": (lambda: LRP(Tanh()).attribute(ROW), [[0.0269, 0.0537, 0.0806]]),
    "test_lrp.test_lrp_skip_connection": (lambda: LRP(Skip()).attribute(torch.tensor([[2.0, 3.0]]), target=1), [[10, 18]]),
}
ELSEWHERE = {  # asserted by the tests below
    "test_lrp.test_futures_not_implemented",
    "test_lrp.test_lrp_simple_repeat_attributions",
    *(f"test_layer_lrp.{name}" for name in NAMES["test_layer_lrp"] if f"test_layer_lrp.{name}" not in DIFFERENCES),
}


def test_every_test_of_captums_is_passed_or_has_a_reason() -> None:
    known = {f"{file}.{name}" for file, names in NAMES.items() for name in names}
    assert set(CASES) | ELSEWHERE | set(DIFFERENCES) - {"LRP.attribute(verbose=True)"} == known
    assert not set(DIFFERENCES) & (set(CASES) | ELSEWHERE)
    assert len(NAMES["test_lrp"]) == 21
    assert all(len(reason) > 20 for reason in DIFFERENCES.values())


@pytest.mark.parametrize("name", CASES)
def test_relevance_is_what_captum_expects(name: str) -> None:
    found, expected = CASES[name]
    torch.testing.assert_close(found(), torch.tensor(expected, dtype=found().dtype), rtol=1e-4, atol=1e-4)


def test_attribution_changes_no_output_and_futures_are_not_implemented() -> None:
    model = simple(GammaRule(), Alpha1_Beta0_Rule())
    before = model(ROW)
    LRP(model).attribute(ROW)
    assert torch.equal(model(ROW), before)
    with pytest.raises(NotImplementedError):
        LRP(model).attribute_future()


# --- layers: against captum itself ------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "test_lrp_simple_attributions": (lambda: both(EpsilonRule), "linear2"),
    "test_lrp_simple_attributions_GammaRule": (lambda: simple(GammaRule(gamma=1), GammaRule(), negative=True), "linear"),
    "test_lrp_simple_attributions_AlphaBeta": (lambda: both(Alpha1_Beta0_Rule, negative=True), "linear"),
    "test_lrp_simple_tanh": (Tanh, "linear"),
    "test_lrp_simple_repeat_attributions": (lambda: simple(GammaRule(), Alpha1_Beta0_Rule()), "linear"),
}


@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_relevance_at_a_layer_is_captums(name: str, at_input: bool) -> None:
    build, layer = LAYERS[name]
    theirs, model = build(), build()
    expected = captum.attr.LayerLRP(theirs, getattr(theirs, layer)).attribute(ROW, attribute_to_layer_input=at_input)
    found = LayerLRP(model, getattr(model, layer)).attribute(ROW, attribute_to_layer_input=at_input)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_relevance_at_a_layer_before_an_in_place_activation_and_at_a_convolution() -> None:
    maps = [LayerLRP(both(EpsilonRule, inplace=inplace), "linear2").attribute(ROW) for inplace in (False, True)]
    assert torch.equal(*maps)
    (model, x, target), theirs = one_convolution(), one_convolution()[0]  # captum changes its model
    expected = captum.attr.LayerLRP(theirs, theirs.conv1).attribute(x, target)
    relevance, delta = LayerLRP(model, "conv1").attribute(x, target, return_convergence_delta=True)
    torch.testing.assert_close(relevance, expected)
    assert delta.item() == 0


# --- deliberate differences: what happens here instead ----------------------------------------------------------------


def test_what_is_no_rule_is_refused_when_relevance_is_asked_for() -> None:
    model, x, target = one_convolution()
    model.conv1.rule = 1  # type: ignore[assignment]
    lrp = LRP(model)
    with pytest.raises(ChallengerError, match=r"conv1\.rule is a int; expected one of captum's propagation rules"):
        lrp.attribute(x, target)
    del model.conv1.rule
    assert lrp.attribute(x, target).shape == x.shape


def test_any_module_is_served_also_one_that_is_used_twice() -> None:
    model, x, target = one_convolution()
    model.add_module("sigmoid", nn.Sigmoid())
    assert LRP(model).attribute(x, target).shape == x.shape
    assert LRP(BasicModelWithReusedLinear()).attribute(torch.ones(2, 3), target=0).shape == (2, 3)


def test_in_eval_mode_it_is_input_times_gradient_on_a_network_of_relus() -> None:
    model = SimpleLRPModel(inplace=False)
    found = LRP(model.train()).attribute(ROW)
    expected = captum.attr.InputXGradient(model.eval()).attribute(ROW.clone().requires_grad_())
    torch.testing.assert_close(found, expected)


def test_two_inputs_that_are_added_share_relevance() -> None:
    relevance, delta = LRP(BasicModel_MultiLayer()).attribute((ROW, 3 * ROW), target=0, return_convergence_delta=True)
    torch.testing.assert_close(relevance[0] + relevance[1], torch.tensor([[16.0, 32.0, 48.0]]))
    torch.testing.assert_close(relevance[1], 3 * relevance[0])
    assert delta.item() == -8  # biases: -10 + 1 + 1 + 1 - 1


def test_lists_of_layers_and_verbose_are_not_taken() -> None:
    model = both(EpsilonRule)
    with pytest.raises(ChallengerError, match="The layer, a list, is not a module of this SimpleLRPModel"):
        LayerLRP(model, [model.linear, model.linear2])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="verbose"):
        LRP(model).attribute(ROW, verbose=True)  # type: ignore[call-arg]
