"""Which units are hidden: counts, order, sampling law, and what is never hidden."""

import math

import pytest
import torch

from hf_challenger.challenge.selection import SELECTIONS, choose_rows, random, sample, top, units_to_hide
from hf_challenger.keyed_random import keyed_uniform


def noise(rows, units, seed=0):
    return keyed_uniform(seed, torch.arange(rows)[:, None], torch.arange(units)[None, :])


def test_top_hides_the_most_relevant_maskable_units():
    relevance = torch.tensor([[9.0, 1.0, 5.0, 3.0, -8.0]])
    maskable = torch.tensor([[False, True, True, True, True]])  # the most relevant one may not be hidden
    drop_mask = top(relevance, maskable, 0.5, noise(1, 5))
    assert drop_mask.tolist() == [[False, False, True, True, False]]


@pytest.mark.parametrize("name", SELECTIONS)
@pytest.mark.parametrize("rate", [0.01, 0.15, 0.5, 1.0])
def test_hides_the_stated_count_and_never_outside_the_maskable_units(name, rate):
    torch.manual_seed(0)
    relevance, maskable = torch.randn(200, 12), torch.rand(200, 12) < 0.6
    drop_mask = SELECTIONS[name](relevance, maskable, rate, noise(200, 12))
    assert not (drop_mask & ~maskable).any()
    for row, may in zip(drop_mask, maskable, strict=True):
        n = int(may.sum())
        expected = min(max(1, int(rate * n + 0.5)), max(n - 1, 0))
        assert int(row.sum()) == expected


def test_a_row_with_one_maskable_unit_is_left_whole():
    maskable = torch.tensor([[True, False], [False, False], [True, True]])
    assert units_to_hide(maskable, 0.9).tolist() == [0, 0, 1]


def test_sampling_follows_positive_relevance():
    """With one unit drawn a row, frequencies are the shares of positive relevance."""
    relevance = torch.tensor([[4.0, 2.0, 1.0, 1.0, -5.0, 0.0]]).expand(40_000, 6)
    drop_mask = sample(relevance, torch.ones_like(relevance, dtype=torch.bool), 0.1, noise(40_000, 6))
    frequency = drop_mask.double().mean(0)
    expected = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0, 0.0], dtype=torch.float64)
    assert (frequency - expected).abs().max() < 0.01  # four standard errors


def test_sampling_draws_without_replacement_as_the_plackett_luce_law_says():
    relevance = torch.tensor([[3.0, 2.0, 1.0, -1.0]]).expand(40_000, 4)
    drop_mask = sample(relevance, torch.ones_like(relevance, dtype=torch.bool), 0.5, noise(40_000, 4))
    pair = (drop_mask[:, 0] & drop_mask[:, 1]).double().mean()
    assert abs(pair - (3 / 6 * 2 / 3 + 2 / 6 * 3 / 4)) < 0.012


def test_without_positive_relevance_the_choice_is_uniform():
    relevance = -torch.ones(30_000, 3)
    drop_mask = sample(relevance, torch.ones(30_000, 3, dtype=torch.bool), 0.3, noise(30_000, 3))
    assert (drop_mask.double().mean(0) - 1 / 3).abs().max() < 0.012


def test_random_ignores_relevance():
    maskable, draws = torch.ones(50, 8, dtype=torch.bool), noise(50, 8)
    masks = [random(torch.randn(50, 8), maskable, 0.4, draws) for _ in range(2)]
    assert torch.equal(*masks)


def test_keyed_numbers_depend_on_their_key_alone():
    whole = keyed_uniform(7, 1, torch.arange(16)[:, None], torch.arange(40)[None, :])
    part = keyed_uniform(7, 1, torch.arange(4, 8)[:, None], torch.arange(10)[None, :])
    assert torch.equal(whole[4:8, :10], part)
    state = torch.random.get_rng_state()
    keyed_uniform(1, 2)
    assert torch.equal(state, torch.random.get_rng_state())


def test_keyed_numbers_are_uniform_and_uncorrelated():
    u = keyed_uniform(3, torch.arange(400)[:, None], torch.arange(500)[None, :]).double()
    assert u.min() > 0
    assert u.max() < 1
    histogram = torch.histc(u.flatten(), 20, 0, 1)
    chi2 = ((histogram - 10_000).square() / 10_000).sum()
    assert chi2 < 43.8  # 0.999 quantile of chi-square with 19 degrees of freedom
    centred = u - 0.5
    for a, b in ((centred[:, 1:], centred[:, :-1]), (centred[1:], centred[:-1])):  # neighbouring units, neighbouring rows
        assert abs((a * b).mean() * 12) < 0.01
    other_seed = keyed_uniform(4, torch.arange(400)[:, None], torch.arange(500)[None, :]).double() - 0.5
    assert abs((centred * other_seed).mean() * 12) < 0.01


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 1 / 3, 0.5, 0.7, 1.0])
def test_rows_are_chosen_evenly(share):
    offsets = keyed_uniform(0, torch.arange(2000))
    chosen = torch.stack([choose_rows(torch.arange(40), share, u) for u in offsets])
    in_line = chosen.float().unfold(1, 16, 1).sum(-1)  # of any 16 rows in line
    assert in_line.min() >= math.floor(16 * share)
    assert in_line.max() <= math.ceil(16 * share)
    torch.testing.assert_close(chosen.float().mean(0), torch.full((40,), share), atol=0.04, rtol=0)


def test_rows_are_chosen_by_their_position_alone():
    offset = torch.tensor(0.3)
    whole = choose_rows(torch.arange(20), 0.3, offset)
    assert torch.equal(
        torch.cat([choose_rows(torch.arange(7), 0.3, offset), choose_rows(torch.arange(7, 20), 0.3, offset)]), whole
    )
