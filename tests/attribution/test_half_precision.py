"""Relevance in float16 and bfloat16: finite wherever a stabiliser stands, and close to that in float32."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule
from torch import Tensor, nn

from hf_challenger.attribution import LRP, Composite, rules
from hf_challenger.attribution.rules import stable_ratio

HALVES = [torch.float16, torch.bfloat16]
EPSILON_GAMMA = Composite.named("epsilon_gamma")
COMPOSITES = {
    "epsilon_gamma": EPSILON_GAMMA,
    "alpha1_beta0": EPSILON_GAMMA.with_rules({F.conv2d: rules.alpha1_beta0, F.linear: rules.alpha1_beta0}),
    "a small epsilon": EPSILON_GAMMA.with_rules({F.conv2d: rules.epsilon(1e-9), F.linear: rules.epsilon(1e-9)}),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(64, 3, bias=False))


def images() -> Tensor:
    """A bright square on black, as digits are: most sums are exactly 0."""
    x = torch.zeros(8, 1, 8, 8)
    x[:, :, 2:5, 2:5] = torch.rand(8, 1, 3, 3, generator=torch.Generator().manual_seed(0)) + 0.1
    return x


def assert_close_to_float32(half: Tensor, single: Tensor) -> None:
    assert half.isfinite().all()
    assert single.abs().max() > 0
    together = torch.stack([half.float().flatten(), single.flatten()])
    assert torch.corrcoef(together)[0, 1] > 0.99


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_composites_with_a_stabiliser(composite: str, dtype: torch.dtype) -> None:
    model, x = network(), images()
    single = LRP(model, COMPOSITES[composite]).attribute(x, target=0)
    half = LRP(model.to(dtype), COMPOSITES[composite]).attribute(x.to(dtype), target=0)
    assert half.dtype is dtype
    assert_close_to_float32(half, single)


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rule", [EpsilonRule, GammaRule, Alpha1_Beta0_Rule, lambda: EpsilonRule(0.0)])
def test_captums_rules(rule: Callable[[], object], dtype: torch.dtype) -> None:
    model, x = network(), images()
    for index in (0, 2, 5):
        model[index].rule = rule()
    single = LRP(model).attribute(x, target=0)
    half = LRP(model.to(dtype)).attribute(x.to(dtype), target=0)
    assert_close_to_float32(half, single)


def test_an_identity_rule_at_a_tiny_value() -> None:
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 1))
    model[0].running_mean.fill_(-3.0)
    model[0].rule = IdentityRule()
    x = torch.tensor([[1e-6, 1.0], [0.0, 1.0]]).half()
    assert LRP(model.half()).attribute(x).isfinite().all()


CONSTANT = {
    "layer norm": lambda x: F.layer_norm(x, (4,), eps=1e-12),
    "rms norm": lambda x: F.rms_norm(x, (4,), eps=1e-12),
    "group norm": lambda x: F.group_norm(x, 1, eps=1e-12),
    "instance norm": lambda x: F.instance_norm(x[:, None], eps=1e-12)[:, 0],
    "normalize": lambda x: torch.cat([F.normalize(x[:1]), x[1:]]),
}


class Normalised(nn.Module):
    def __init__(self, norm: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.norm = norm
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x))


@pytest.mark.parametrize("name", CONSTANT)
def test_normalisation_of_a_row_without_variance(name: str) -> None:
    """Its deviation is eps alone, which half precision rounds to 0."""
    torch.manual_seed(0)
    x = torch.tensor([[0.3, -0.2, 0.7, 0.1], [0.0, 0.0, 0.0, 0.0]])
    model = Normalised(CONSTANT[name])
    single = LRP(model).attribute(x, target=0)
    half = LRP(model.half()).attribute(x.half(), target=0)
    assert_close_to_float32(half, single)


@pytest.mark.parametrize("name", ["rms norm", "group norm", "instance norm"])
def test_normalisation_of_values_whose_square_half_precision_lacks(name: str) -> None:
    torch.manual_seed(0)
    x = 1000 * torch.randn(3, 4)
    model = Normalised(CONSTANT[name])
    single = LRP(model).attribute(x, target=0)
    half = LRP(model.half()).attribute(x.half(), target=0)
    assert_close_to_float32(half, single)


def test_a_ratio_is_that_of_its_equation_and_bounded() -> None:
    y, z = torch.tensor([1.0, -2.0, 3.0, 0.0]), torch.tensor([2.0, -4.0, 0.0, 0.0])
    torch.testing.assert_close(stable_ratio(y, z, 0.5), torch.tensor([1 / 2.5, 2 / 4.5, 6.0, 0.0]))
    assert stable_ratio(y, z, 0.0).isfinite().all()
    assert stable_ratio(y.half(), z.half(), 1e-9).tolist() == [0.5, 0.5, pytest.approx(256, rel=0.01), 0.0]
