"""Leaves at the embeddings, and operations that no rule covers."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_challenger.attribution import LRP, Composite, rule_coverage, rules
from hf_challenger.attribution.interception import Interception
from hf_challenger.errors import ChallengerError, ChallengerWarning

IDS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])


@pytest.fixture(autouse=True)
def nothing_reported_yet() -> None:
    rule_coverage._reported.clear()


class Bag(nn.Module):
    """Mean of embeddings, mixed in a way given from outside."""

    def __init__(self, mix: Any = None, **children: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 4)
        self.positions = nn.Embedding(4, 4)
        self.classifier = nn.Linear(4, 2)
        self.mix = mix or (lambda x: x)
        for name, child in children.items():
            setattr(self, name, child)

    def embed(self, ids: Tensor) -> Tensor:
        return self.table(ids)

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        return self.classifier(self.mix(x).mean(1))


class Hashed(Bag):
    def embed(self, ids: Tensor) -> Tensor:
        return self.table(((ids + 1) * 7) % 10)


class Transposed(Bag):
    def embed(self, ids: Tensor) -> Tensor:
        return self.table(ids.transpose(0, 1).contiguous()).transpose(0, 1)

    def get_input_embeddings(self) -> nn.Module:
        return self.table


class PaddedToAWindow(Bag):
    def embed(self, ids: Tensor) -> Tensor:
        return self.table(F.pad(ids, (0, 3)))[:, :-3]

    def get_input_embeddings(self) -> nn.Module:
        return self.table


class ShiftedTwice(Bag):
    """Looks its ids up again, one to the right, as BART's decoder does."""

    def embed(self, ids: Tensor) -> Tensor:
        shifted = ids.new_zeros(ids.shape)
        shifted[:, 1:] = ids[:, :-1]
        return self.table(ids) + self.table(shifted)

    def get_input_embeddings(self) -> nn.Module:
        return self.table


@pytest.mark.parametrize("kind", [Bag, Hashed, Transposed, PaddedToAWindow])
def test_relevance_is_read_at_the_tokens_however_they_are_looked_up(kind: type[Bag]) -> None:
    model = kind()
    relevance = LRP(model).attribute(IDS, target=1)
    looked_up = ((IDS + 1) * 7) % 10 if kind is Hashed else IDS
    expected = model.table.weight[looked_up] * model.classifier.weight[1] / 4
    torch.testing.assert_close(relevance, expected.detach())


def test_relevance_of_ids_embedded_twice_is_the_sum_over_the_copies() -> None:
    model = ShiftedTwice()
    relevance = LRP(model).attribute(IDS, target=1)
    once = model.table.weight[IDS] * model.classifier.weight[1] / 4
    expected = once * torch.tensor([2, 2, 2, 1]).reshape(1, 4, 1)  # the last token is shifted out
    torch.testing.assert_close(relevance, expected.detach())


def test_position_embeddings_are_weights_and_absorb_their_share() -> None:
    model = Bag()
    score = model(IDS)[:, 1]
    relevance = LRP(model).attribute(IDS, target=1).flatten(1).sum(1)
    of_positions = (model.positions.weight.mean(0) * model.classifier.weight[1]).sum()
    torch.testing.assert_close(relevance + of_positions + model.classifier.bias[1], score)


def test_a_model_may_write_into_its_embeddings() -> None:
    model = Bag(lambda x: x.mul_(2).add_(1))
    relevance = LRP(model).attribute(IDS, target=1)
    torch.testing.assert_close(relevance, (2 * model.table.weight[IDS] * model.classifier.weight[1] / 4).detach())


# --- unknown operations -----------------------------------------------------------------------------------------------


class Distances(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(x, x.flip(1)) @ x


def test_an_operation_without_a_rule_that_mixes_data_is_named_once_with_its_module() -> None:
    model = Bag(Distances())
    with pytest.warns(ChallengerWarning, match="cdist in Distances mixes several tensors.*with_rules"):
        LRP(model).attribute(IDS, target=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        LRP(model).attribute(IDS, target=1)


def test_strict_refuses_it() -> None:
    with pytest.raises(ChallengerError, match="cdist in Distances"):
        LRP(Bag(Distances()), strict=True).attribute(IDS, target=1)


def test_a_rule_of_ones_own_settles_it() -> None:
    mine = Composite.named("attnlrp").with_rules({torch.cdist: rules.constant})
    assert LRP(Bag(Distances()), mine, strict=True).attribute(IDS, target=1).isfinite().all()


def test_gradient_asks_for_no_rules_and_so_misses_none() -> None:
    LRP(Bag(Distances()), "gradient", strict=True).attribute(IDS, target=1)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 2 * grad


class UsesDoubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Doubled.apply(x)


def test_an_autograd_function_is_named_with_the_module_that_uses_it() -> None:
    model = Bag(UsesDoubled())
    with pytest.warns(ChallengerWarning, match=r"autograd.Function .*Doubled in UsesDoubled hides its operations"):
        LRP(model).attribute(IDS, target=1)
    with pytest.raises(ChallengerError, match="Doubled"):
        LRP(model, strict=True).attribute(IDS, target=1)


def test_scripted_code_is_named_on_its_first_and_on_later_passes() -> None:
    @torch.jit.script
    def scripted(x: Tensor) -> Tensor:
        return torch.tanh(x * x)

    model = Bag(scripted)
    for _ in range(4):  # torch compiles it in the third
        rule_coverage._reported.clear()
        with pytest.warns(ChallengerWarning, match="Scripted code, or a fused call"):
            LRP(model).attribute(IDS, target=1)
    with pytest.raises(ChallengerError, match="Scripted code"):
        LRP(model, strict=True).attribute(IDS, target=1)


ORDINARY = {
    "choose and move": lambda x: torch.where(x > 0, torch.cat([x[:, :2], x[:, 2:]], 1), torch.maximum(x, -x)),
    "stack and gather": lambda x: torch.stack([x, 2 * x]).max(0).values.gather(1, torch.zeros(2, 4, 4, dtype=torch.long)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, x) + (x @ x.mT).softmax(-1) @ x,
    "norms": lambda x: F.layer_norm(x, (4,)) + F.rms_norm(x, (4,)) + x / x.norm(dim=-1, keepdim=True),
    "in place": lambda x: x.clone().add_(x).mul_(x).index_add_(1, torch.tensor([0]), x[:, :1]),
    "written into": lambda x: (
        torch.zeros_like(x).index_put_((torch.tensor([0, 1]),), x).scatter_add(1, torch.zeros(2, 4, 4, dtype=torch.long), x)
    ),
    "transformer layer": nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, activation="gelu"),
    "recurrent": lambda x: nn.LSTM(4, 4, batch_first=True).requires_grad_(False)(x)[0],
    "pooling": lambda x: F.interpolate(F.max_pool1d(x, 2), size=4) + F.avg_pool1d(x, 3, 1, 1),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_operations_are_known(name: str) -> None:
    model = Bag(ORDINARY[name]).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        assert LRP(model, strict=True).attribute(IDS, target=1).isfinite().all()


def test_interception_alone_raises_nothing_for_weights() -> None:
    x = torch.ones(2, 3)  # no data: nothing to report
    with Interception(Composite.named("attnlrp"), strict=True):
        torch.cdist(x, x)


class ByKeyword(torch.nn.Module):
    def __init__(self, of_ids: bool) -> None:
        super().__init__()
        self.by_keyword = True
        self.words = torch.nn.Embedding(9, 4) if of_ids else torch.nn.Linear(3, 4)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.words(x)
        divisor = hidden.square().mean(-1, keepdim=True) + 1
        if self.by_keyword:
            hidden = torch.add(input=hidden, other=1.0)
            hidden = torch.mul(input=torch.div(input=hidden, other=divisor), other=3.0)
        else:
            hidden = torch.mul(torch.div(torch.add(hidden, 1.0), divisor), 3.0)
        return self.head(hidden.mean(1) if hidden.dim() == 3 else hidden)


@pytest.mark.parametrize("of_ids", [True, False])
def test_operations_that_are_called_by_keyword_have_the_same_rule(of_ids: bool) -> None:
    torch.manual_seed(0)
    model = ByKeyword(of_ids).eval()
    x = torch.tensor([[1, 2, 3]]) if of_ids else torch.randn(2, 3)
    found = LRP(model).attribute(x, target=0)
    assert found.isfinite().all()
    model.by_keyword = False
    torch.testing.assert_close(found, LRP(model).attribute(x, target=0))
