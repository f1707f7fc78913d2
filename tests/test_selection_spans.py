"""Units that are hidden side by side: spans of time, blocks of patches."""

import itertools

import pytest
import torch

from hf_challenger.keyed_random import keyed_uniform
from hf_challenger.selection import SELECTIONS, select, units_to_hide


def noise(rows, units):
    return keyed_uniform(3, torch.arange(rows)[:, None], torch.arange(units)[None, :])


def runs(row):
    """Lengths of the runs of True."""
    return [len(list(group)) for value, group in itertools.groupby(row.tolist()) if value]


def test_the_span_lies_around_the_most_relevant_place():
    relevance = torch.zeros(1, 20)
    relevance[0, 3] = 5.0  # a single high unit, against a region that is relevant as a whole
    relevance[0, 11:16] = 2.0
    whole = torch.ones(1, 20, dtype=torch.bool)
    drop_mask = select(relevance, whole, 0.25, "top", noise(1, 20), span=5)
    assert drop_mask[0].nonzero().flatten().tolist() == [11, 12, 13, 14, 15]


@pytest.mark.parametrize("span", [2, 3, 4, 5])
def test_an_even_or_odd_span_is_hidden_whole(span):
    relevance = torch.zeros(1, 24)
    relevance[0, 8 : 8 + span] = 1.0
    drop_mask = select(relevance, torch.ones_like(relevance, dtype=torch.bool), span / 24, "top", noise(1, 24), span)
    assert drop_mask[0].nonzero().flatten().tolist() == list(range(8, 8 + span))


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("rate", [0.05, 0.25, 0.6, 1.0])
@pytest.mark.parametrize(("span", "grid"), [(3, (12,)), (4, (12,)), (50, (12,)), (2, (4, 3)), (3, (4, 3)), (2, (2, 3, 2))])
def test_the_count_is_that_of_single_units_and_nothing_unmaskable_is_hidden(selection, rate, span, grid):
    torch.manual_seed(0)
    relevance, maskable = torch.randn(100, 12), torch.rand(100, 12) < 0.6
    maskable[0] = False
    drop_mask = select(relevance, maskable, rate, selection, noise(100, 12), span, grid)
    assert not (drop_mask & ~maskable).any()
    assert torch.equal(drop_mask.sum(1), units_to_hide(maskable, rate))


def test_hidden_units_come_in_runs():
    torch.manual_seed(0)
    relevance, whole = torch.rand(50, 60), torch.ones(50, 60, dtype=torch.bool)
    single = select(relevance, whole, 0.2, "sample", noise(50, 60))
    spans = select(relevance, whole, 0.2, "sample", noise(50, 60), span=6)
    assert sum(len(runs(r)) for r in single) > 400  # 12 units a row, mostly apart
    assert sum(len(runs(r)) for r in spans) < 160  # two spans a row, cut where they meet


def test_blocks_of_patches_are_square():
    relevance = torch.zeros(1, 6, 6)
    relevance[0, 2:4, 3:5] = 1.0
    whole = torch.ones(1, 36, dtype=torch.bool)
    drop_mask = select(relevance.flatten(1), whole, 4 / 36, "top", noise(1, 36), span=2, grid=(6, 6))
    assert torch.equal(drop_mask.reshape(1, 6, 6), relevance.bool())


def test_a_span_longer_than_the_series_leaves_something_of_it():
    relevance = torch.rand(4, 5)
    drop_mask = select(relevance, torch.ones(4, 5, dtype=torch.bool), 1.0, "sample", noise(4, 5), span=40)
    assert drop_mask.sum(1).tolist() == [4, 4, 4, 4]


def test_a_cut_span_keeps_the_units_nearest_to_its_peak():
    relevance = torch.zeros(1, 21)
    relevance[0, 10] = 1.0
    drop_mask = select(relevance, torch.ones_like(relevance, dtype=torch.bool), 3 / 21, "top", noise(1, 21), span=9)
    hidden = drop_mask[0].nonzero().flatten().tolist()
    assert len(hidden) == 3
    assert hidden == list(range(hidden[0], hidden[0] + 3))
