"""Linear, elementwise and product rules against their relevance formulas, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LRP as CaptumLRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from formulas import ATTNLRP, close, half_through_matmul, matrix_of, propagate, tensor, through_matrix
from torch import Tensor, nn

from hf_challenger.attribution import LRP, rules
from hf_challenger.attribution.composites import CONVOLUTIONS, ELEMENTWISE, LINEAR, _entries

# --- linear operations ------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "linear": (lambda x, w, b: F.linear(x, w, b), (1, 4), (3, 4), (3,)),
    "linear by name": (lambda x, w, b: F.linear(input=x, weight=w, bias=b), (1, 4), (3, 4), (3,)),
    "addmm": (lambda x, w, b: torch.addmm(b, x, w), (1, 4), (4, 3), (3,)),
    "conv1d": (lambda x, w, b: F.conv1d(x, w, b, padding=1), (1, 2, 5), (3, 2, 3), (3,)),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2), (1, 2, 5, 4), (2, 2, 3, 2), (2,)),
    "conv_transpose1d": (lambda x, w, b: F.conv_transpose1d(x, w, b), (1, 2, 3), (2, 2, 2), (2,)),
}
MODIFIED: dict[str, tuple[Any, float, Callable[[Tensor], Tensor]]] = {
    "epsilon": (rules.epsilon(0.3), 0.3, lambda w: w),
    "gamma": (rules.gamma(0.25), 1e-9, lambda w: w + 0.25 * torch.where(w > 0, w, torch.zeros_like(w))),
    "alpha1_beta0": (rules.alpha1_beta0, 1e-9, lambda w: torch.where(w > 0, w, torch.zeros_like(w))),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("rule", MODIFIED)
def test_epsilon_gamma_and_alpha1_beta0_redistribute_by_their_modified_weights(rule: str, operation: str) -> None:
    call, *shapes = OPERATIONS[operation]
    x, w, b = (tensor(*shape, seed=i) for i, shape in enumerate(shapes))
    ours, epsilon, modify = MODIFIED[rule]
    composite = ATTNLRP.with_rules(_entries([*LINEAR, "addmm"], ours))
    found, relevance = propagate(composite, lambda x: call(x, w, b), x)
    modified = call(x, modify(w), b)
    stable = torch.where(modified < 0, modified - epsilon, modified + epsilon)
    expected = through_matrix(x, matrix_of(lambda x: call(x, modify(w), b), x.shape), stable, relevance)
    close(found.flatten(), expected)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_linear_operations_keep_the_plain_epsilon_rule_by_default(operation: str) -> None:
    call, *shapes = OPERATIONS[operation]
    x, w, b = (tensor(*shape, seed=i) for i, shape in enumerate(shapes))
    found, relevance = propagate("attnlrp", lambda x: call(x, w, b), x)
    z = call(x, w, b)
    close(found.flatten(), through_matrix(x, matrix_of(lambda x: call(x, w, b), x.shape), z, relevance))


@pytest.mark.parametrize(
    ("captum_rule", "ours"),
    [
        (lambda: EpsilonRule(0.01), rules.epsilon(0.01)),
        (lambda: GammaRule(0.25), rules.gamma(0.25)),
        (Alpha1_Beta0_Rule, rules.alpha1_beta0),
    ],
    ids=["epsilon", "gamma", "alpha1_beta0"],
)
def test_a_convolutional_network_gets_what_captum_gives(captum_rule: Callable[[], Any], ours: Any) -> None:
    torch.manual_seed(0)
    convolutions = [nn.Conv1d(2, 6, 3), nn.ReLU(), nn.Conv1d(6, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)]
    model = nn.Sequential(*convolutions).double()
    x = tensor(4, 2, 10)
    # ReLU(z) · z/|z| and so on: captum's activations take the identity rule as ours do.
    composite = ATTNLRP.with_rules(_entries(LINEAR, ours))
    found = LRP(model, composite).attribute(x, target=1)
    for layer in model:
        if isinstance(layer, (nn.Conv1d, nn.Linear)):
            layer.rule = captum_rule()
        if isinstance(layer, nn.Flatten):
            layer.rule = EpsilonRule(1e-12)
    expected = CaptumLRP(model).attribute(x.clone().requires_grad_(), target=1)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-8)


def test_epsilon_gamma_puts_gamma_on_convolutions_and_epsilon_on_linear_layers() -> None:
    x, w = tensor(1, 2, 5), tensor(3, 2, 3, seed=1)
    for name, composite in [("conv1d", rules.gamma(0.25)), ("linear", rules.epsilon(1e-6))]:
        call = (lambda x: F.conv1d(x, w)) if name == "conv1d" else (lambda x: F.linear(x, w.flatten(1)[:, :5]))
        close(propagate("epsilon_gamma", call, x)[0], propagate(ATTNLRP.with_rules(_entries([name], composite)), call, x)[0])
    assert set(CONVOLUTIONS) < set(LINEAR)


# --- elementwise functions --------------------------------------------------------------------------------------------


def elementwise(name: str) -> Callable[[Tensor], Tensor]:
    arguments = {"clamp": (-0.7, 0.9), "clamp_min": (-0.5,), "clamp_max": (0.5,)}.get(name, ())
    for space in (torch, F, torch.special):
        if hasattr(space, name):
            return lambda x: getattr(space, name)(x, *arguments)
    raise AssertionError(name)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_activations_pass_relevance_unchanged_but_for_the_share_of_their_value_at_zero(name: str) -> None:
    function = elementwise(name)
    x = tensor(3, 5) * (0.7 if name != "log1p" else 0.2)
    found, relevance = propagate("attnlrp", function, x)
    y, at_zero = function(x), function(torch.zeros(1, dtype=torch.float64))
    for r_in, r_out, value in zip(found.flatten(), relevance.flatten(), y.flatten(), strict=True):
        # y = (y - f(0)) + f(0): the second part is a bias
        expected = torch.zeros(()).double() if value == 0 else r_out * (value - at_zero[0]) / value
        close(r_in, expected, 1e-7)


def test_an_activation_at_zero_is_finite_and_irrelevant() -> None:
    x = torch.tensor([0.0, -0.0, 1e-300, 2.0], dtype=torch.float64)
    for name in ("gelu", "silu", "tanh", "sigmoid", "exp", "softplus"):
        found, _ = propagate("attnlrp", elementwise(name), x)
        assert found.isfinite().all(), name
        assert (found[:2] == 0).all(), name


@pytest.mark.parametrize("exponent", [2, 3, -1, -0.5])
def test_powers_are_elementwise_and_negative_ones_normalise(exponent: float) -> None:
    x = tensor(6).abs()
    found, relevance = propagate("attnlrp", lambda x: x**exponent, x) if exponent > 0 else (None, None)
    if exponent > 0:
        close(found, relevance)
        return
    y = tensor(6, seed=1)
    of_x, of_y, relevance = propagate("attnlrp", lambda x, y: y * x**exponent, x, y)
    close(of_x, torch.zeros(6).double())
    close(of_y, relevance)


# --- products of data -------------------------------------------------------------------------------------------------


MATMULS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "@": lambda a, b: a @ b,
    "torch.matmul": torch.matmul,
    "matmul by name": lambda a, b: torch.matmul(input=a, other=b),
    "mm": torch.mm,
    "bmm": lambda a, b: torch.bmm(a[None], b[None])[0],
    "Tensor.bmm": lambda a, b: a[None].bmm(b[None])[0],
    "einsum": lambda a, b: torch.einsum("ik,kj->ij", a, b),
    "einsum of a list": lambda a, b: torch.einsum("ik,kj->ij", [a, b]),
    "baddbmm": lambda a, b: torch.baddbmm(torch.zeros(1, 3, 2).double(), a[None], b[None])[0],
    "addmm": lambda a, b: torch.addmm(torch.zeros(2).double(), a, b),
    "tensordot": lambda a, b: torch.tensordot(a, b, dims=1),
    "linear with a data weight": lambda a, b: F.linear(a, b.T),
    "products, summed": lambda a, b: (a[:, :, None] * b[None]).sum(1),
    "multi_dot": lambda a, b: torch.linalg.multi_dot([a, b]),
}


@pytest.mark.parametrize("form", MATMULS)
def test_matrix_products_give_each_factor_half(form: str) -> None:
    a, b = tensor(3, 4), tensor(4, 2, seed=1)
    of_a, of_b, relevance = propagate("attnlrp", MATMULS[form], a, b)
    expected = half_through_matmul(a, b, relevance)
    close(of_a, expected[0])
    close(of_b, expected[1])


def in_place(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda a, b: getattr(a, name)(b)


ELEMENTWISE_PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "*": lambda a, b: a * b,
    "mul": torch.mul,
    "mul by name": lambda a, b: torch.mul(a, other=b),
    "multiply": torch.multiply,
    "mul_": in_place("mul_"),
    "*=": in_place("__imul__"),
    "einsum": lambda a, b: torch.einsum("ik,ik->ik", a, b),
    "addcmul": lambda a, b: torch.addcmul(torch.zeros(3, 4).double(), a, b),
}


@pytest.mark.parametrize("form", ELEMENTWISE_PRODUCTS)
def test_elementwise_products_give_each_factor_half(form: str) -> None:
    a, b = tensor(3, 4), tensor(3, 4, seed=1)
    of_a, of_b, relevance = propagate("attnlrp", ELEMENTWISE_PRODUCTS[form], a, b)
    close(of_a, relevance / 2)
    close(of_b, relevance / 2)


def test_three_factors_get_a_third_each() -> None:
    a, b, c = (tensor(4, seed=i) for i in range(3))
    *found, relevance = propagate("attnlrp", lambda a, b, c: torch.einsum("i,i,i->i", a, b, c), a, b, c)
    for share in found:
        close(share, relevance / 3)


def test_a_product_with_a_weight_or_a_number_keeps_everything() -> None:
    a, weight = tensor(3, 4), tensor(4, seed=1)
    for call in (lambda a: a * (1 + weight), lambda a: 2 * a, lambda a: a * weight, lambda a: a / 3, lambda a: a / weight):
        found, relevance = propagate("attnlrp", call, a)
        close(found, relevance)


@pytest.mark.parametrize("form", [lambda a, b: a / b, torch.div, in_place("div_"), in_place("__itruediv__")])
def test_a_divisor_is_a_constant(form: Callable[[Tensor, Tensor], Tensor]) -> None:
    a, b = tensor(3, 4), tensor(3, 4, seed=1)
    of_a, of_b, relevance = propagate("attnlrp", form, a, b)
    close(of_a, relevance)
    close(of_b, torch.zeros(3, 4).double())


def test_a_gated_mlp_gives_gate_and_signal_half_each() -> None:
    x, w_gate, w_up = tensor(1, 4), tensor(3, 4, seed=1), tensor(3, 4, seed=2)
    found, relevance = propagate("attnlrp", lambda x: F.silu(F.linear(x, w_gate)) * F.linear(x, w_up), x)
    gate, up = x @ w_gate.T, x @ w_up.T
    close(found.flatten(), through_matrix(x, w_gate.T, gate, relevance / 2) + through_matrix(x, w_up.T, up, relevance / 2))


def test_glu_is_identity_on_its_gate_and_uniform_on_its_product() -> None:
    x = tensor(2, 6)
    found, relevance = propagate("attnlrp", lambda x: F.glu(x, -1), x)
    sigma = torch.sigmoid(x[:, 3:])
    close(found[:, :3], relevance / 2)
    close(found[:, 3:], relevance / 2 * (sigma - 0.5) / sigma)


@pytest.mark.parametrize("name", ["silu", "relu6", "mish", "hardswish", "elu"])
def test_in_place_activations_are_activations(name: str) -> None:
    function = getattr(F, name)
    x = tensor(3, 5)
    out_of_place, _ = propagate("attnlrp", function, x)
    close(propagate("attnlrp", lambda x: function(x, inplace=True), x)[0], out_of_place)
    close(propagate("attnlrp", lambda x: function(x, inplace=False), x)[0], out_of_place)


@pytest.mark.parametrize("name", ["tanh_", "sigmoid_", "exp_", "clamp_min_"])
def test_in_place_methods_follow_their_out_of_place_forms(name: str) -> None:
    arguments = (-0.5,) if name == "clamp_min_" else ()
    x = tensor(3, 5)
    expected = propagate("attnlrp", lambda x: getattr(x, name[:-1])(*arguments), x)[0]
    close(propagate("attnlrp", lambda x: getattr(x, name)(*arguments), x)[0], expected)


# --- extension --------------------------------------------------------------------------------------------------------


def test_a_rule_for_an_operation_of_ones_own_takes_three_lines() -> None:
    mine = ATTNLRP.with_rules({torch.special.erfcx: rules.identity})
    x = tensor(5)
    found, relevance = propagate(mine, torch.special.erfcx, x)
    y = torch.special.erfcx(x)
    close(found, relevance * (y - 1) / y, 1e-7)
    assert torch.special.erfcx not in ATTNLRP.table
