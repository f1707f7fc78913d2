"""On the networks that captum's LRP supports, ours equals it (relative 1e-12, float64); module.rule means the same to both."""

import copy

import captum.attr
import pytest
import torch
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule, PropagationRule
from torch import nn

from hf_challenger.attribution import LRP, LayerLRP
from hf_challenger.errors import ChallengerError


def mlp():
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.Tanh(), nn.Linear(12, 3)), (5, 6)


def conv1d():
    layers = [nn.Conv1d(2, 6, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 9, 3)), (4, 2, 20)


def conv2d():
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, 3)), (3, 1, 14, 14)


def conv2d_with_norm():
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 16, 3)), (3, 1, 14, 14)


NETWORKS = [mlp, conv1d, conv2d, conv2d_with_norm]
RULES = {
    "epsilon": lambda: EpsilonRule(1e-9),
    "epsilon_large": lambda: EpsilonRule(0.05),
    "gamma": lambda: GammaRule(0.25),
    "gamma_without_bias": lambda: GammaRule(1.0, set_bias_to_zero=True),
    "alpha1_beta0": Alpha1_Beta0_Rule,
    "alpha1_beta0_without_bias": lambda: Alpha1_Beta0_Rule(set_bias_to_zero=True),
}


def built(network, seed=0):
    torch.manual_seed(seed)
    model, shape = network()
    model = model.double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    # Positive inputs, since z' of the alpha1_beta0 rule has the sign of x and a bias: near 0 both would only compare noise.
    return model, torch.rand(shape, dtype=torch.float64) + 0.1


def with_rules(model, rule, elsewhere=EpsilonRule):
    """A copy with ``rule`` on linear layers and convolutions; elsewhere captum's default, which it lacks for Conv1d nets."""
    model = copy.deepcopy(model)
    for module in model.children():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d)):
            module.rule = rule()
        elif not isinstance(module, (nn.ReLU, nn.Tanh)):
            module.rule = elsewhere()
    return model


def captums(model, x, target):
    return captum.attr.LRP(copy.deepcopy(model)).attribute(x.clone(), target=target)


def assert_equal(ours, theirs, tolerance=1e-12):
    assert theirs.abs().max() > 0
    assert (ours - theirs).abs().max() <= tolerance * theirs.abs().max()


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("rule", RULES)
def test_rules_on_modules_give_what_captum_gives(network, rule):
    model, x = built(network)
    model = with_rules(model, RULES[rule])
    target = torch.arange(len(x)) % 3
    assert_equal(LRP(model).attribute(x, target=target), captums(model, x, target))


@pytest.mark.parametrize("network", NETWORKS)
def test_without_rules_equals_captums_default(network):
    model, x = built(network)
    theirs = captums(with_rules(model, *[lambda: EpsilonRule(1e-13)] * 2), x, 1)
    assert_equal(LRP(model).attribute(x, target=1), theirs, 1e-6)  # their ε is small, ours is 0


def test_rules_differ_from_each_other():
    """Else the comparisons above could not fail."""
    model, x = built(conv2d)
    maps = {name: LRP(with_rules(model, rule)).attribute(x, target=0) for name, rule in RULES.items()}
    maps["none"] = LRP(model).attribute(x, target=0)
    names = [name for name in maps if name != "none"]
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert (maps[a] - maps[b]).abs().max() > 1e-3 * maps[a].abs().max(), (a, b)


def test_rules_may_differ_by_layer():
    model, x = built(conv2d)
    model = with_rules(model, EpsilonRule)
    model[0].rule, model[3].rule = Alpha1_Beta0_Rule(), GammaRule(0.5)
    assert_equal(LRP(model).attribute(x, target=2), captums(model, x, 2))


def test_identity_rule_on_a_batch_norm():
    model, x = built(conv2d_with_norm)
    model = with_rules(model, EpsilonRule)
    model[1].rule = IdentityRule()
    ours, theirs = LRP(model).attribute(x, target=0), captums(model, x, 0)
    assert_equal(ours, theirs)
    model[1].rule = EpsilonRule()
    assert (LRP(model).attribute(x, target=0) - ours).abs().max() > 1e-3 * ours.abs().max()


def test_identity_rule_needs_equal_shapes():
    model, x = built(mlp)
    model[0].rule = IdentityRule()
    with pytest.raises(ChallengerError, match=r"IdentityRule .*\(5, 6\) and \(5, 12\).*Use EpsilonRule"):
        LRP(model).attribute(x, target=0)


class ConstantWeights(PropagationRule):
    def _manipulate_weights(self, module, inputs, outputs):
        module.weight.data = torch.ones_like(module.weight.data)
        module.bias.data.zero_()  # in place, too


def test_a_rule_of_ones_own():
    model, x = built(mlp)
    model = with_rules(model, EpsilonRule)
    model[0].rule = ConstantWeights()
    before = model[0].bias.clone()
    assert_equal(LRP(model).attribute(x, target=0), captums(model, x, 0))
    assert torch.equal(model[0].bias, before)


def test_rules_stay_and_hooks_go():
    model, x = built(conv2d)
    model = with_rules(model, GammaRule)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rules = [getattr(module, "rule", None) for module in model.modules()]
    pointers = [p.data_ptr() for p in model.parameters()]
    LRP(model).attribute(x, target=0)
    assert [getattr(module, "rule", None) for module in model.modules()] == rules
    assert [p.data_ptr() for p in model.parameters()] == pointers
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


def test_hooks_go_when_the_model_raises():
    model, x = built(mlp)
    model = with_rules(model, GammaRule)
    model.append(nn.Linear(7, 2).double())  # does not fit
    with pytest.raises(RuntimeError):
        LRP(model).attribute(x, target=0)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_rules_hold_under_any_composite_but_leave_other_layers_to_it():
    model, x = built(mlp)
    model = with_rules(model, GammaRule)
    everywhere = [LRP(model, c).attribute(x, target=0) for c in ("attnlrp", "epsilon", "cp_lrp")]
    assert_equal(everywhere[1], everywhere[0])
    assert_equal(everywhere[2], everywhere[0])
    assert (LRP(model, "gradient").attribute(x, target=0) - everywhere[0]).abs().max() > 1e-3  # it has no rule for tanh


def test_a_module_used_twice_keeps_its_rule():
    """captum refuses; two modules that share weights are the oracle."""
    torch.manual_seed(0)
    shared, head = nn.Linear(4, 4).double(), nn.Linear(4, 2).double()
    twice = nn.Sequential(shared, nn.ReLU(), shared, nn.ReLU(), head)
    unrolled = with_rules(nn.Sequential(*(copy.deepcopy(m) for m in twice)), GammaRule)
    x = torch.rand(3, 4, dtype=torch.float64)
    for module in (shared, head):
        module.rule = GammaRule()
    assert_equal(LRP(twice).attribute(x, target=1), captums(unrolled, x, 1))


def test_what_is_no_rule_is_refused():
    model, x = built(mlp)
    model[2].rule = "gamma"
    with pytest.raises(ChallengerError, match=r"2\.rule is a str; expected one of captum's propagation rules .* GammaRule"):
        LRP(model).attribute(x, target=0)
    model = nn.Sequential(nn.Sequential(nn.Linear(6, 2).double()))
    model[0].rule = GammaRule()
    with pytest.raises(ChallengerError, match=r"made of other modules\. Set the rule on each"):
        LRP(model).attribute(x, target=0)


# --- relevance at a layer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at_input", [False, True])
@pytest.mark.parametrize("index", [0, 2, 3, 5])
@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
def test_relevance_at_a_layer_equals_captums(index, at_input, rule):
    model, x = built(conv2d)
    model = with_rules(model, RULES[rule])
    other = copy.deepcopy(model)
    theirs = captum.attr.LayerLRP(other, other[index]).attribute(x, target=1, attribute_to_layer_input=at_input)
    ours = LayerLRP(model, str(index)).attribute(x, target=1, attribute_to_layer_input=at_input)
    assert_equal(ours, theirs)


def test_relevance_at_an_activation():
    """captum's LayerLRP raises there; ReLU passes relevance unchanged, and what comes out goes into the next layer."""
    model, x = built(conv2d)
    at_relu, into_pool = LayerLRP(model, "1"), LayerLRP(model, "2")
    relevance = at_relu.attribute(x, target=1)
    assert torch.equal(relevance, into_pool.attribute(x, target=1, attribute_to_layer_input=True))
    assert_equal(at_relu.attribute(x, target=1, attribute_to_layer_input=True), relevance)


def test_the_layer_is_a_module_or_its_name():
    model, x = built(mlp)
    assert torch.equal(LayerLRP(model, "2").attribute(x, 0), LayerLRP(model, model[2]).attribute(x, 0))
    with pytest.raises(ChallengerError, match=r"Sequential has no module '9'. Among its modules: 0, 1, 2, 3, 4"):
        LayerLRP(model, "9")
    with pytest.raises(ChallengerError, match="The layer, a Linear, is not a module of this Sequential"):
        LayerLRP(model, nn.Linear(2, 2))


def test_a_layer_called_twice_gives_a_tuple():
    torch.manual_seed(0)
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 2))
    x = torch.rand(3, 4)
    first, second = LayerLRP(model, "0").attribute(x, target=0)
    assert first.shape == second.shape == (3, 4)
    assert not torch.allclose(first, second)


def test_strict_holds_at_a_layer_as_well():
    model = nn.Sequential(nn.Linear(3, 3), nn.Unflatten(0, (1, 2)), MixesItself(), nn.Flatten(), nn.Linear(4, 2))
    assert LayerLRP(model, "0").attribute(torch.rand(2, 3), target=0).shape == (2, 3)
    with pytest.raises(ChallengerError, match="cdist in MixesItself"):
        LayerLRP(model, "0", strict=True).attribute(torch.rand(2, 3), target=0)


class MixesItself(nn.Module):
    def forward(self, x):
        return torch.cdist(x, x.flip(1))


def test_a_layer_that_is_not_reached_is_named():
    model, x = built(mlp)
    model.unused = nn.Linear(1, 1)
    model.forward = lambda x: model[0](x)
    with pytest.raises(ChallengerError, match="never gave unused a tensor that depends on the inputs"):
        LayerLRP(model, "unused").attribute(x, target=0)
    assert not model.unused._forward_hooks
