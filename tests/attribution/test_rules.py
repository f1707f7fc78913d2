"""Each rule against its relevance formula, written out in float64: R_in from R_out, without autograd."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LRP as CaptumLRP
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule
from torch import Tensor, nn

from hf_challenger.attribution import LRP, Composite, rules
from hf_challenger.attribution.composites import CONVOLUTIONS, ELEMENTWISE, LINEAR, _entries
from hf_challenger.attribution.interception import Interception

ATTNLRP = Composite.named("attnlrp")


def tensor(*shape: int, seed: int = 0) -> Tensor:
    """Values away from 0, where the formulas below divide."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values + values.sign() * 0.1


def propagate(composite: str | Composite, call: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """(relevance of each input ..., relevance of the output): the output's gradient is random, R = value · gradient.

    Along the way: the values under the rules are those of plain torch.
    """
    leaves = [x.clone().requires_grad_() for x in inputs]
    with Interception(Composite.named(composite)):
        output = call(*(leaf.clone() for leaf in leaves))
    with torch.no_grad():
        torch.testing.assert_close(output.detach(), call(*(x.clone() for x in inputs)), rtol=1e-12, atol=1e-12)
    gradient = tensor(*output.shape, seed=99)
    gradients = torch.autograd.grad(output, leaves, gradient, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else x * g for x, g in zip(inputs, gradients, strict=True)]
    return (*found, output.detach() * gradient)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def through_matrix(x: Tensor, matrix: Tensor, z: Tensor, relevance: Tensor) -> Tensor:
    """R_i = Σ_j x_i M_ij / z_j · R_j, in loops."""
    x, z, relevance, out = x.flatten(), z.flatten(), relevance.flatten(), torch.zeros_like(x.flatten())
    for i in range(len(x)):
        for j in range(len(z)):
            out[i] += x[i] * matrix[i, j] / z[j] * relevance[j]
    return out


def matrix_of(linear: Callable[[Tensor], Tensor], shape: torch.Size) -> Tensor:
    """Row i: what input i alone gives, without bias."""
    basis = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
    return torch.stack([(linear(e) - linear(torch.zeros_like(e))).flatten() for e in basis])


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


def half_through_matmul(a: Tensor, b: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """AttnLRP Eq. 7 for z = a b: R_a[i,k] = Σ_j a_ik b_kj / (2 z_ij) · R_ij, and likewise for b."""
    z = a @ b
    of_a, of_b = torch.zeros_like(a), torch.zeros_like(b)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                part = a[i, k] * b[k, j] / (2 * z[i, j]) * relevance[i, j]
                of_a[i, k] += part
                of_b[k, j] += part
    return of_a, of_b


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


# --- softmax and attention --------------------------------------------------------------------------------------------


def through_softmax(x: Tensor, relevance: Tensor) -> Tensor:
    """AttnLRP Prop. 3.1: R_i = x_i (R_i^out - s_i Σ_j R_j^out), along the last axis."""
    s = x.softmax(-1)
    return x * (relevance - s * relevance.sum(-1, keepdim=True))


@pytest.mark.parametrize("form", [lambda x: x.softmax(-1), lambda x: F.softmax(x, dim=-1), lambda x: torch.softmax(x, -1)])
def test_softmax_is_expanded_to_first_order(form: Callable[[Tensor], Tensor]) -> None:
    x = tensor(3, 4)
    found, relevance = propagate("attnlrp", form, x)
    close(found, through_softmax(x, relevance))
    assert propagate("cp_lrp", lambda x: form(x) + 0 * x, x)[0].abs().max() == 0


def attention_by_formula(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, relevance: Tensor, cp: bool) -> list[Tensor]:
    """One head: both products by Eq. 7, the softmax by Prop. 3.1; CP-LRP: v alone, in full."""
    scale = 1 / math.sqrt(q.shape[-1])
    scores = q @ k.T * scale
    weights = (scores + bias).softmax(-1)
    of_weights, of_v = half_through_matmul(weights, v, relevance)
    if cp:
        return [torch.zeros_like(q), torch.zeros_like(k), 2 * of_v]
    of_sum = through_softmax(scores + bias, of_weights)
    of_q, of_k = half_through_matmul(q, k.T, of_sum * scores / (scores + bias))
    return [of_q, of_k.T, of_v]


def eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    scores = torch.matmul(q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5 + mask
    return torch.matmul(F.softmax(scores, dim=-1, dtype=torch.float64), v)


ATTENTIONS: dict[str, Callable[..., Tensor]] = {
    "fused": lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, mask),
    "fused, by name": lambda q, k, v, mask: F.scaled_dot_product_attention(query=q, key=k, value=v, attn_mask=mask),
    "eager": eager,
    "einsum": lambda q, k, v, mask: torch.einsum(
        "bhqk,bhkd->bhqd", (torch.einsum("bhqd,bhkd->bhqk", q, k) / q.shape[-1] ** 0.5 + mask).softmax(-1), v
    ),
    "baddbmm": lambda q, k, v, mask: (
        torch.baddbmm(mask[0].expand(6, -1, -1), q.flatten(0, 1), k.flatten(0, 1).mT, alpha=q.shape[-1] ** -0.5)
        .softmax(-1)
        .bmm(v.flatten(0, 1))
        .unflatten(0, (2, 3))
    ),
}


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
@pytest.mark.parametrize("form", ATTENTIONS)
def test_attention_by_formula_fused_and_eager(form: str, composite: str) -> None:
    q, k, v = tensor(2, 3, 4, 5), tensor(2, 3, 6, 5, seed=1), tensor(2, 3, 6, 5, seed=2)
    mask = tensor(1, 1, 4, 6, seed=3)
    *found, relevance = propagate(composite, lambda q, k, v: ATTENTIONS[form](q, k, v, mask), q, k, v)
    for row in range(2):
        for head in range(3):
            at = (row, head)
            expected = attention_by_formula(q[at], k[at], v[at], mask[0, 0], relevance[at], composite == "cp_lrp")
            for ours, theirs in zip(found, expected, strict=True):
                close(ours[at], theirs)


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
@pytest.mark.parametrize("data", ["q", "k", "v", "kv", "qk", "qv"])
def test_fused_and_eager_attention_agree_where_only_some_carry_relevance(data: str, composite: str) -> None:
    every = {"q": tensor(1, 2, 4, 5), "k": tensor(1, 2, 6, 5, seed=1), "v": tensor(1, 2, 6, 5, seed=2)}
    mask = torch.zeros(1, 1, 4, 6).double()
    if composite == "cp_lrp" and "v" not in data:
        return  # nothing carries gradient: constant weights

    def call(form: str) -> list[Tensor]:
        given = [every[name] for name in data]
        return list(
            propagate(
                composite,
                lambda *x: ATTENTIONS[form](*{**every, **dict(zip(data, x, strict=True))}.values(), mask),
                *given,
            )
        )

    for fused, written_out in zip(call("fused"), call("eager"), strict=True):
        close(fused, written_out)


class WrittenOut(nn.Module):
    """nn.TransformerEncoderLayer (post-norm, gelu) in single operations."""

    def __init__(self, layer: nn.TransformerEncoderLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        layer, attention = self.layer, self.layer.self_attn
        rows, length, width = x.shape
        heads = attention.num_heads
        q, k, v = (
            (F.linear(x, w, b)).view(rows, length, heads, width // heads).transpose(1, 2)
            for w, b in zip(attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3), strict=True)
        )
        mixed = eager(q, k, v, torch.zeros(1).double()).transpose(1, 2).reshape(rows, length, width)
        x = layer.norm1(x + attention.out_proj(mixed))
        return layer.norm2(x + layer.linear2(F.gelu(layer.linear1(x))))


@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp"])
def test_nn_transformer_layers_equal_the_same_layer_written_out(composite: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu").double().eval().requires_grad_(False)
    x = tensor(2, 5, 8)
    whole, _ = propagate(composite, layer, x)
    close(whole, propagate(composite, WrittenOut(layer), x)[0])
    assert (whole - propagate("gradient", layer, x)[0]).abs().max() > 1e-3


# --- normalisation ----------------------------------------------------------------------------------------------------


def through_norm(x: Tensor, y: Tensor, w: Tensor, std: float, centred: bool, relevance: Tensor) -> Tensor:
    """y_j = Σ_i x_i (δ_ij - [centred] 1/n) w_j / std + b_j, std constant: the ε-rule of that linear map."""
    n = len(x)
    matrix = (torch.eye(n).double() - (1 / n if centred else 0)) * w / std
    return through_matrix(x, matrix, y, relevance)


W, B = tensor(6, seed=5), tensor(6, seed=6)
NORMS: dict[str, tuple[Callable[[Tensor], Tensor], Tensor, bool]] = {
    "layer_norm": (lambda x: F.layer_norm(x, (6,), W, B, 1e-5), W, True),
    "layer_norm without weights": (lambda x: F.layer_norm(x, (6,)), torch.ones(6).double(), True),
    "torch.layer_norm": (lambda x: torch.layer_norm(x, (6,), W, B), W, True),
    "rms_norm": (lambda x: F.rms_norm(x, (6,), W, 1e-5), W, False),
    "rms_norm, rsqrt": (lambda x: W * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)), W, False),
    "rms_norm, power": (lambda x: (x * (x.square().mean(-1, keepdim=True) + 1e-5) ** -0.5) * W, W, False),
    "layer_norm, sqrt": (
        lambda x: (x - x.mean(-1, keepdim=True)) / torch.sqrt(x.var(-1, keepdim=True, correction=0) + 1e-5) * W + B,
        W,
        True,
    ),
    "layer_norm, std": (lambda x: (x - x.mean(-1, True)) / (x.std(-1, correction=0, keepdim=True) + 1e-5) * W, W, True),
    "one group": (lambda x: F.group_norm(x[..., None], 1, W, B)[..., 0], W, True),
    "instance": (lambda x: F.instance_norm(x[:, None])[:, 0], torch.ones(6).double(), True),
    "normalize": (lambda x: F.normalize(x, dim=-1) * W, W, False),
}


@pytest.mark.parametrize("form", NORMS)
def test_norms_hold_the_standard_deviation_constant(form: str) -> None:
    call, w, centred = NORMS[form]
    x = tensor(3, 6)
    found, relevance = propagate("attnlrp", call, x)
    for row in range(3):
        mean = x[row].mean() if centred else 0
        std = math.sqrt(((x[row] - mean) ** 2).mean() + (0 if form in ("normalize", "layer_norm, std") else 1e-5))
        std = std + 1e-5 if form == "layer_norm, std" else std * math.sqrt(6) if form == "normalize" else std
        close(found[row], through_norm(x[row], call(x)[row], w, std, centred, relevance[row]))


def test_group_norm_centres_within_each_group() -> None:
    x, w, b = tensor(2, 4, 3), tensor(4, seed=1), tensor(4, seed=2)
    found, relevance = propagate("attnlrp", lambda x: F.group_norm(x, 2, w, b), x)
    y = F.group_norm(x, 2, w, b)
    for row in range(2):
        for group in (slice(0, 2), slice(2, 4)):
            part = x[row, group].flatten()
            std = math.sqrt(((part - part.mean()) ** 2).mean() + 1e-5)
            scale = w[group].repeat_interleave(3)
            expected = through_norm(part, y[row, group].flatten(), scale, std, True, relevance[row, group].flatten())
            close(found[row, group].flatten(), expected)


def test_batch_norm_in_eval_mode_is_linear() -> None:
    norm = nn.BatchNorm1d(4).double().eval().requires_grad_(False)
    norm.running_mean.copy_(tensor(4))
    norm.running_var.copy_(tensor(4, seed=1).abs())
    x = tensor(3, 4, seed=2)
    found, relevance = propagate("attnlrp", norm, x)
    std = (norm.running_var + norm.eps).sqrt()
    close(found, x / std / norm(x) * relevance)


# --- recurrent layers -------------------------------------------------------------------------------------------------


def split_by(parts: list[Tensor], z: Tensor, relevance: Tensor) -> list[Tensor]:
    """z = Σ parts (+ bias): each part gets its share."""
    return [part / z * relevance for part in parts]


def affine_backwards(x: Tensor, w: Tensor, part_relevance: Tensor) -> Tensor:
    """Relevance of the vector x for w x, of which ``part_relevance`` is the relevance."""
    return through_matrix(x, w.T, w @ x, part_relevance)


def lstm_by_hand(x: Tensor, layer: nn.LSTM, relevance: Tensor) -> Tensor:
    """Arras et al. 2017, one row: x (T, d), relevance of the outputs h (T, n) → (T, d)."""
    w, u, b = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0 + layer.bias_hh_l0
    n, time = layer.hidden_size, len(x)
    h, c = [torch.zeros(n).double()], [torch.zeros(n).double()]
    gates = []
    for t in range(time):
        z = w @ x[t] + u @ h[t] + b
        i, f, g, o = z[:n].sigmoid(), z[n : 2 * n].sigmoid(), z[2 * n : 3 * n].tanh(), z[3 * n :].sigmoid()
        c.append(f * c[t] + i * g)
        h.append(o * c[t + 1].tanh())
        gates.append((i, f, g, z[2 * n : 3 * n]))
    of_x, of_h, of_c = torch.zeros_like(x), torch.zeros(n).double(), torch.zeros(n).double()
    for t in reversed(range(time)):
        i, f, g, z = gates[t]
        of_c = of_c + of_h + relevance[t]  # h = o ⊙ tanh(c): all to c
        of_old, of_g = split_by([f * c[t], i * g], c[t + 1], of_c)
        wx, uh = w[2 * n : 3 * n] @ x[t], u[2 * n : 3 * n] @ h[t]
        of_wx, of_uh = split_by([wx, uh], z, of_g)
        of_x[t] = affine_backwards(x[t], w[2 * n : 3 * n], of_wx)
        of_h = affine_backwards(h[t], u[2 * n : 3 * n], of_uh) if t else torch.zeros(n).double()
        of_c = of_old
    return of_x


def gru_by_hand(x: Tensor, layer: nn.GRU, relevance: Tensor) -> Tensor:
    w, u, b, bu = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0
    n, time = layer.hidden_size, len(x)
    h, steps = [torch.zeros(n).double()], []
    for t in range(time):
        a, d = w @ x[t] + b, u @ h[t] + bu
        r, z = (a[:n] + d[:n]).sigmoid(), (a[n : 2 * n] + d[n : 2 * n]).sigmoid()
        m = a[2 * n :] + r * d[2 * n :]
        h.append((1 - z) * m.tanh() + z * h[t])
        steps.append((r, z, m))
    of_x, of_h = torch.zeros_like(x), torch.zeros(n).double()
    for t in reversed(range(time)):
        r, z, m = steps[t]
        of_new, of_old = split_by([(1 - z) * m.tanh(), z * h[t]], h[t + 1], of_h + relevance[t])
        wx, uh = w[2 * n :] @ x[t], u[2 * n :] @ h[t]
        of_wx, of_uh = split_by([wx, r * uh], m, of_new)
        of_x[t] = affine_backwards(x[t], w[2 * n :], of_wx)
        of_h = of_old + (affine_backwards(h[t], u[2 * n :], of_uh) if t else 0)
    return of_x


@pytest.mark.parametrize(("make", "by_hand"), [(nn.LSTM, lstm_by_hand), (nn.GRU, gru_by_hand)])
def test_recurrent_layers_let_the_signal_take_all(make: Any, by_hand: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    layer = make(3, 4, batch_first=True).double().requires_grad_(False)
    x = tensor(2, 5, 3)
    found, relevance = propagate("attnlrp", lambda x: layer(x)[0], x)
    for row in range(2):
        close(found[row], by_hand(x[row], layer, relevance[row]))


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_packed_bidirectional_layers_give_each_row_what_it_gets_alone(make: Any) -> None:
    torch.manual_seed(0)
    layer = make(3, 4, num_layers=2, bidirectional=True, batch_first=True).double().requires_grad_(False)
    x, lengths = tensor(2, 5, 3), [5, 3]

    def packed(x: Tensor) -> Tensor:
        sequence = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(layer(sequence)[0], batch_first=True)[0]

    leaf = x.clone().requires_grad_()
    with Interception(ATTNLRP):
        output = packed(leaf)
    (gradient,) = torch.autograd.grad(output.sum(), leaf)
    for row, length in enumerate(lengths):
        alone = x[row : row + 1, :length].clone().requires_grad_()
        with Interception(ATTNLRP):
            output_alone = layer(alone)[0]
        close(output[row : row + 1, :length], output_alone)
        (gradient_alone,) = torch.autograd.grad(output_alone.sum(), alone)
        close(gradient[row, :length], gradient_alone[0])
        assert (gradient[row, length:] == 0).all()


@pytest.mark.parametrize(
    ("make", "cell"),
    [(nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell), (nn.RNN, nn.RNNCell)],
)
def test_cells_step_as_their_layers_do(make: Any, cell: Any) -> None:
    torch.manual_seed(0)
    layer = make(3, 4).double().requires_grad_(False)
    one = cell(3, 4).double().requires_grad_(False)
    for own, theirs in zip(one.parameters(), layer.parameters(), strict=True):
        own.copy_(theirs)
    x = tensor(5, 2, 3)

    def by_cells(x: Tensor) -> Tensor:
        state, outputs = None, []
        for step in x:
            state = one(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs)

    close(propagate("attnlrp", lambda x: layer(x)[0], x)[0], propagate("attnlrp", by_cells, x)[0])


def test_projected_and_biasless_lstms_keep_their_values() -> None:
    torch.manual_seed(0)
    for options in ({"proj_size": 2}, {"bias": False}, {"proj_size": 2, "bias": False}):
        layer = nn.LSTM(3, 4, **options).double().requires_grad_(False)
        found, relevance = propagate("attnlrp", lambda x, layer=layer: layer(x)[0], tensor(5, 2, 3))
        if options == {"bias": False}:  # neither biases nor gates take anything: relevance is conserved
            close(found.sum(), relevance.sum())


# --- extension --------------------------------------------------------------------------------------------------------


def test_a_rule_for_an_operation_of_ones_own_takes_three_lines() -> None:
    mine = ATTNLRP.with_rules({torch.special.erfcx: rules.identity})
    x = tensor(5)
    found, relevance = propagate(mine, torch.special.erfcx, x)
    y = torch.special.erfcx(x)
    close(found, relevance * (y - 1) / y, 1e-7)
    assert torch.special.erfcx not in ATTNLRP.table
