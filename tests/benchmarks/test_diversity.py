"""The two measures of diversity, on matrices whose answer is known, and on a network."""

import math
import sys
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import diversity  # noqa: E402


def test_effective_rank_counts_equal_directions():
    rows = torch.cat([torch.eye(4), -torch.eye(4)])  # centred, four equal singular values
    assert diversity.effective_rank(rows) == pytest.approx(4)
    assert diversity.effective_rank(torch.arange(6.0)[:, None] * torch.ones(1, 3)) == pytest.approx(1)


def test_filter_cosine_of_equal_opposite_and_orthogonal_filters():
    assert diversity.filter_cosine(torch.tensor([[1.0, 1], [-2, -2]])) == pytest.approx(1)
    assert diversity.filter_cosine(torch.eye(3).reshape(3, 3, 1)) == pytest.approx(0)
    assert diversity.filter_cosine(torch.tensor([[1.0, 0], [1, 1]])) == pytest.approx(1 / math.sqrt(2))


def test_a_network_of_convolutions_has_both_and_is_left_as_it_was():
    torch.manual_seed(0)
    model, x = Network(), torch.randn(20, 1, 9)
    found = diversity.diversity(model, lambda: [model(part) for part in x.split(8)])
    assert found["effective_rank"] == pytest.approx(diversity.effective_rank(model.hidden(x).detach()), rel=1e-5)
    assert 1 < found["effective_rank"] <= 5
    assert 0 < found["filter_cosine"] < 1
    assert not model.head._forward_pre_hooks
    assert diversity.diversity(torch.nn.Linear(2, 2), lambda: None) == {}


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution, self.head = torch.nn.Conv1d(1, 5, 3), torch.nn.Linear(5, 2)

    def hidden(self, x):
        return self.convolution(x).relu().mean(-1)

    def forward(self, x):
        return self.head(self.hidden(x))
