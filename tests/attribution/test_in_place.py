"""Models may write into what an operation returned, or into their input: relevance is that of the model that does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, IdentityRule
from torch import Tensor, nn

from hf_challenger.attribution import LRP, Composite, rules
from hf_challenger.errors import ChallengerError

X = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.3
WEIGHT = torch.rand(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.3
LSTM = nn.LSTM(6, 6, batch_first=True).double().requires_grad_(False)
ALPHA1_BETA0 = Composite.named("attnlrp").with_rules({F.linear: rules.alpha1_beta0})

OPERATIONS: dict[str, tuple[str | Composite, Callable[[Tensor], Tensor]]] = {
    "linear, epsilon": ("epsilon", lambda x: F.linear(x, WEIGHT)),
    "linear, alpha1_beta0": (ALPHA1_BETA0, lambda x: F.linear(x, WEIGHT)),
    "convolution, gamma": ("epsilon_gamma", lambda x: F.conv1d(x, WEIGHT[:4, :4, None], padding=0)),
    "gelu": ("attnlrp", F.gelu),
    "sigmoid": ("attnlrp", torch.sigmoid),
    "power": ("attnlrp", lambda x: x**2),
    "product": ("attnlrp", lambda x: x * x),
    "attention": ("attnlrp", lambda x: F.scaled_dot_product_attention(x, x, x)),
    "layer norm": ("attnlrp", lambda x: F.layer_norm(x, (6,))),
    "rms norm": ("attnlrp", lambda x: F.rms_norm(x, (6,))),
    "group norm": ("attnlrp", lambda x: F.group_norm(x, 2)),
    "normalize": ("attnlrp", F.normalize),
    "glu": ("attnlrp", lambda x: F.glu(torch.cat([x, x], -1))),
    "lstm": ("attnlrp", lambda x: LSTM(x)[0]),
}
CHANGES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "y += x": lambda y, x: y.add_(x),
    "relu_": lambda y, x: F.relu(y, inplace=True),
    "y *= x": lambda y, x: y.mul_(x),
    "y[:, 0] = 0": lambda y, x: y[:, 0].zero_(),
    "y[:, 1] = x[:, 0]": lambda y, x: y.__setitem__((slice(None), 1), x[:, 0]),
}


class Changed(nn.Module):
    def __init__(
        self, operation: Callable[[Tensor], Tensor], change: Callable[[Tensor, Tensor], object], copied: bool
    ) -> None:
        super().__init__()
        self.operation, self.change, self.copied = operation, change, copied

    def forward(self, x: Tensor) -> Tensor:
        y = self.operation(x)
        y = y.clone() if self.copied else y
        self.change(y, x)
        return y.sum((1, 2)).unsqueeze(1)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_an_operation_returns_may_be_written_into(operation: str, change: str) -> None:
    composite, function = OPERATIONS[operation]
    in_place, copied = (
        LRP(Changed(function, CHANGES[change], copied), composite).attribute(X, target=0) for copied in (False, True)
    )
    assert in_place.abs().max() > 0
    torch.testing.assert_close(in_place, copied, rtol=1e-12, atol=1e-12)


# --- modules with captum's rules --------------------------------------------------------------------------------------


def network(inplace: bool) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv1d(4, 6, 3), nn.ReLU(inplace), nn.BatchNorm1d(6), nn.Hardtanh(inplace=inplace), nn.Flatten()]
    return nn.Sequential(*layers, nn.SELU(inplace), nn.Linear(24, 3)).double()


@pytest.mark.parametrize("rule", [EpsilonRule, GammaRule, Alpha1_Beta0_Rule])
@pytest.mark.parametrize("ruled", [[0], [0, 2], [2, 4], [0, 1, 2, 3, 4, 5, 6]])
def test_a_module_with_a_rule_may_be_followed_by_in_place_ones_and_be_one(ruled: list[int], rule: type) -> None:
    maps = []
    for inplace in (False, True):
        model = network(inplace)
        for index in ruled:
            model[index].rule = rule()
        maps.append(LRP(model, strict=True).attribute(X, target=1))
    assert maps[0].abs().max() > 0
    torch.testing.assert_close(*maps, rtol=1e-12, atol=1e-12)


def test_a_residual_is_added_in_place_to_a_ruled_module() -> None:
    class Residual(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.head, self.inplace = nn.Linear(6, 6), nn.Linear(24, 2), inplace
            self.layer.rule = GammaRule()  # type: ignore[assignment]

        def forward(self, x: Tensor) -> Tensor:
            y = self.layer(x)
            if self.inplace:
                y += x
            else:
                y = y + x
            return self.head(y.flatten(1))

    maps = [LRP(Residual(inplace).double()).attribute(X, target=1) for inplace in (False, True)]
    torch.testing.assert_close(*maps, rtol=1e-12, atol=1e-12)


def test_what_a_ruled_module_writes_into_its_input_is_seen_by_whoever_reads_the_input() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            y = 2 * x
            return (self.relu(y) + y).sum((1, 2)).unsqueeze(1)  # y is rectified too

    model = Reads()
    plain = LRP(model).attribute(X, target=0)
    model.relu.rule = EpsilonRule(1e-12)  # type: ignore[assignment]
    torch.testing.assert_close(LRP(model).attribute(X, target=0), plain)
    torch.testing.assert_close(plain, 4 * X.clamp(min=0))


# --- modules with several inputs --------------------------------------------------------------------------------------


class Weighted(nn.Module):
    """a·x + b·y, with the second input by position or by name, or written into the first."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.add = self.Add(how == "in place")

    class Add(nn.Module):
        def __init__(self, inplace: bool) -> None:
            super().__init__()
            self.inplace = inplace

        def forward(self, first: Tensor, second: Tensor, scale: float = 1.0) -> Tensor:
            if self.inplace:
                first += scale * second
                return first
            return first + scale * second

    def forward(self, x: Tensor) -> Tensor:
        first, second = 2 * x, x.flip(-1)
        more = {"second": second, "scale": 3.0}
        return (self.add(first, **more) if self.how == "by name" else self.add(first, *more.values()))[:, 0]


@pytest.mark.parametrize("how", ["by position", "by name", "in place"])
def test_a_rule_gives_each_input_its_contribution(how: str) -> None:
    model, x = Weighted(how), X[..., :4]
    model.add.rule = EpsilonRule(0.5)  # type: ignore[assignment]
    relevance = LRP(model).attribute(x, target=1)
    z = 2 * x[:, 0, 1] + 3 * x[:, 0, 2]
    share = z / (z + 0.5 * torch.where(z < 0, -1, 1))
    expected = torch.zeros_like(x)
    expected[:, 0, 1], expected[:, 0, 2] = 2 * x[:, 0, 1] * share, 3 * x[:, 0, 2] * share
    torch.testing.assert_close(relevance, expected)


def test_an_identity_rule_has_one_input_to_give_to() -> None:
    model = Weighted("by position")
    model.add.rule = IdentityRule()  # type: ignore[assignment]
    with pytest.raises(ChallengerError, match=r"single input, but Add has 2 that carry relevance\. Use EpsilonRule"):
        LRP(model).attribute(X, target=0)


def test_a_rule_on_a_module_that_returns_several_tensors_is_refused_by_name() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(6, 2, batch_first=True)
            self.lstm.rule = EpsilonRule()  # type: ignore[assignment]

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(x)[0][:, -1]

    with pytest.raises(ChallengerError, match=r"LSTM has a rule, but it returned a tuple.*Remove its rule"):
        LRP(Recurrent().double()).attribute(X, target=0)


def test_a_ruled_embedding_is_still_where_ids_are_looked_up() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Flatten(), nn.Linear(24, 2))
    ids = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    plain = LRP(model).attribute(ids, target=0)
    model[0].rule = EpsilonRule()
    assert torch.equal(LRP(model).attribute(ids, target=0), plain)
