"""Softmax, attention and normalisation rules against their relevance formulas, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from formulas import ATTNLRP, close, half_through_matmul, propagate, tensor, through_matrix
from torch import Tensor, nn

from hf_challenger.attribution.interception import Interception

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


def test_nn_transformer_encoders_give_padded_rows_what_they_get_alone() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2).double().eval().requires_grad_(False)
    x, padding = tensor(2, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])

    def first_position(x: Tensor, padding: Tensor | None) -> Tensor:
        leaf = x.clone().requires_grad_()
        with Interception(ATTNLRP):
            score = encoder(leaf, src_key_padding_mask=padding)[:, 0, 0].sum()
        return x * torch.autograd.grad(score, leaf)[0]

    together = first_position(x, padding)
    close(together[:1], first_position(x[:1], None))
    close(together[1:, :3], first_position(x[1:, :3], None))
    assert (together[1, 3:] == 0).all()


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
