"""Named tables, and rules that span several operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import EsmConfig, JambaConfig, Qwen3NextConfig, Zamba2Config, ZambaConfig
from transformers.activations import ACT2FN
from transformers.models.bloom.modeling_bloom import BloomGelu
from transformers.models.esm.modeling_esm import EsmIntermediate
from transformers.models.jamba.modeling_jamba import JambaMambaMixer
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextGatedDeltaNet
from transformers.models.zamba.modeling_zamba import ZambaMambaMixer
from transformers.models.zamba2.modeling_zamba2 import Zamba2MambaMixer

from hf_challenger.attribution import COMPOSITES, LRP, Composite, rules
from hf_challenger.attribution.composed_modules import composed_module_rules
from hf_challenger.attribution.composites import forms_of
from hf_challenger.attribution.interception import Interception
from hf_challenger.errors import ChallengerError


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv1d(4, 8, 3, padding=1)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.convolution(x.mT).mT)
        x = x + F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1))
        return self.head(F.gelu(x).mean(1))


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))


def test_composites_are_all_different_and_all_finite(x: Tensor) -> None:
    found = {name: LRP(Block(), name).attribute(x, target=1) for name in COMPOSITES}
    assert list(found) == ["attnlrp", "cp_lrp", "epsilon", "epsilon_gamma", "gradient"]
    for name, relevance in found.items():
        assert relevance.isfinite().all()
        same = [other for other in found if other != name and torch.equal(found[other], relevance)]
        assert not same, f"{name} equals {same}"
    # ε = 1e-6 regularises, it does not change the explanation
    torch.testing.assert_close(found["epsilon"], found["attnlrp"], rtol=1e-2, atol=1e-4)


def test_gradient_is_gradient_times_input(x: Tensor) -> None:
    model = Block()
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(LRP(model, "gradient").attribute(x, target=1), x * gradient)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ChallengerError, match=r"composite='attnlpr' is unknown.*'attnlrp', 'cp_lrp', 'epsilon'"):
        LRP(nn.Identity(), "attnlpr")


def test_one_name_stands_for_every_form_of_an_operation() -> None:
    table = Composite.named("attnlrp").table
    for name in ("matmul", "__matmul__", "mul", "__mul__", "layer_norm", "tanh", "gelu"):
        assert all(form in table for form in forms_of(name)), name
    assert torch.Tensor.mul_ in table
    assert torch.Tensor.__imul__ in table
    assert torch.Tensor.tanh_ in table


def test_extending_a_composite_leaves_the_named_one_alone(x: Tensor) -> None:
    plain = LRP(Block()).attribute(x, target=1)
    mine = Composite.named("attnlrp").with_rules({F.gelu: rules.plain}, "mine")
    assert mine.name == "mine"
    assert not torch.equal(LRP(Block(), mine).attribute(x, target=1), plain)
    assert torch.equal(LRP(Block()).attribute(x, target=1), plain)
    with pytest.raises(TypeError):
        Composite.named("attnlrp").table[F.gelu] = rules.plain  # type: ignore[index]


# --- modules ----------------------------------------------------------------------------------------------------------


def through(model: nn.Module, x: Tensor, call: Any = None) -> tuple[Tensor, Tensor, Tensor]:
    """(input relevance, output relevance, output), float64, weights frozen."""
    model.double().eval().requires_grad_(False)
    leaf = x.double().requires_grad_()
    interception = Interception(Composite.named("attnlrp"))
    with composed_module_rules(model, interception), interception:
        output = (call or model)(leaf.clone())
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    (gradient,) = torch.autograd.grad(output, leaf, weights)
    with torch.no_grad():
        torch.testing.assert_close(output.detach(), (call or model)(x.double()))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    return leaf.detach() * gradient, output.detach() * weights, output.detach()


@pytest.mark.parametrize(
    "name", ["gelu_new", "gelu_fast", "quick_gelu", "gelu_pytorch_tanh", "silu", "gelu_10", "mish", "bloom"]
)
def test_activations_written_in_several_operations_count_as_one(name: str, x: Tensor) -> None:
    activation = BloomGelu() if name == "bloom" else ACT2FN[name]
    found, relevance, _ = through(nn.Sequential(activation), x)
    torch.testing.assert_close(found, relevance)


def test_an_activation_written_out_behind_a_linear_layer_counts_as_one(x: Tensor) -> None:
    torch.manual_seed(0)
    layer = EsmIntermediate(EsmConfig(hidden_size=4, intermediate_size=6))
    found, _, _ = through(nn.Sequential(layer), x)
    expected, _, _ = through(nn.Sequential(layer.dense, nn.GELU()), x)
    torch.testing.assert_close(found, expected)


SIZES: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
MIXERS: dict[str, Any] = {
    "jamba": lambda: JambaMambaMixer(
        JambaConfig(**SIZES, mamba_dt_rank=4, mamba_d_state=4, attn_layer_period=2, attn_layer_offset=1), 0
    ),
    "zamba": lambda: ZambaMambaMixer(
        ZambaConfig(**SIZES, mamba_dt_rank=4, mamba_d_state=4, layers_block_type=["linear_attention", "hybrid"]), 0
    ),
    "zamba2": lambda: Zamba2MambaMixer(
        Zamba2Config(
            **SIZES,
            mamba_d_state=4,
            n_mamba_heads=2,
            mamba_headdim=8,
            mamba_ngroups=1,
            chunk_size=4,
            layers_block_type=["linear_attention", "hybrid"],
        ),
        0,
    ),
    "qwen3_next": lambda: Qwen3NextGatedDeltaNet(
        Qwen3NextConfig(
            **SIZES,
            num_key_value_heads=1,
            linear_num_key_heads=1,
            linear_num_value_heads=2,
            linear_key_head_dim=4,
            linear_value_head_dim=4,
            layer_types=["linear_attention", "full_attention"],
        ),
        0,
    ),
}


@pytest.mark.parametrize("name", MIXERS)
def test_state_space_layers_pass_relevance_to_the_signal_over_any_distance(name: str) -> None:
    """What reaches an input over n steps must not be halved n times.

    With the selection constant, the mixer is linear in its signal, and SiLU on signal and gate passes relevance unchanged:
    without biases nothing is lost. Were Δ, B, C (or q, k) data, uniform products would lose most of it.
    """
    torch.manual_seed(0)
    mixer = MIXERS[name]()
    for parameter in mixer.parameters():
        if parameter.dim() > 1 and parameter is not mixer.A_log:
            nn.init.normal_(parameter, 0, 0.5)
    if mixer.conv1d.bias is not None:
        nn.init.zeros_(mixer.conv1d.bias)
    x = torch.randn(2, 12, 8, generator=torch.Generator().manual_seed(1))
    found, relevance, _ = through(mixer, x)
    torch.testing.assert_close(found.sum(), relevance.sum(), rtol=1e-3, atol=1e-6)
