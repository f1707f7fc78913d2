"""What is put in the place of hidden time steps and patches, against slow re-derivations in float64."""

import math

import pytest
import torch
from torch import nn

from hf_challenger import ChallengerError
from hf_challenger.challenge.perturbation import perturbation_for
from hf_challenger.inputs import Patches, Series, SeriesChannelsFirst
from hf_challenger.keyed_random import Draw

ROWS, TIME, CHANNELS = 3, 12, 2


class OfSeries(nn.Module):
    def forward(self, past_values, past_observed_mask=None): ...


class OfImages(nn.Module):
    def forward(self, pixel_values): ...


def draw(rows=ROWS, first=0, step=4):
    return Draw(seed=7, stream=2, step=step, rows=torch.arange(first, first + rows))


@pytest.fixture
def series():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, TIME, CHANNELS, generator=generator, dtype=torch.float64).cumsum(1)
    observed = torch.ones(ROWS, TIME, CHANNELS, dtype=torch.bool)
    observed[2, 8:] = False  # padded at the end
    return {"past_values": x * observed, "past_observed_mask": observed}


@pytest.fixture
def drop_mask():
    """Units of two steps: 6 a row. The first and a pair in the middle; a gap at the end; one unit beside padding."""
    return torch.tensor([[1, 0, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]]).bool()


def hide(name, inputs, drop_mask, units=None, draw=None):
    units = units or Series(OfSeries(), unit_size=2)
    return perturbation_for(name, units)(inputs, drop_mask, units, draw or globals()["draw"]())[units.key]


def kept_steps(row, drop_mask, observed):
    return [t for t in range(TIME) if not drop_mask[row, t // 2] and observed[row, t, 0]]


@pytest.mark.parametrize("name", Series.perturbations)
def test_only_hidden_and_observed_steps_change(name, series, drop_mask):
    x = series["past_values"]
    changed = hide(name, series, drop_mask) != x
    hidden = drop_mask.repeat_interleave(2, 1).unsqueeze(-1) & series["past_observed_mask"]
    assert not (changed & ~hidden).any()
    assert changed[hidden].float().mean() > 0.9
    assert torch.equal(hide(name, series, torch.zeros_like(drop_mask)), x)


def test_mean_is_that_of_the_observed_steps_of_the_channel(series, drop_mask):
    filled = hide("mean", series, drop_mask)
    for row, steps in ((0, TIME), (2, 8)):
        for channel in range(CHANNELS):
            values = [float(series["past_values"][row, t, channel]) for t in range(steps)]
            assert float(filled[row, 6, channel]) == pytest.approx(sum(values) / steps)


def test_zero_is_zero(series, drop_mask):
    assert not hide("zero", series, drop_mask)[0, 4:8].any()


def test_interpolation_draws_a_line_between_the_neighbours_that_are_left(series, drop_mask):
    filled, x = hide("interpolate", series, drop_mask), series["past_values"]
    for row in range(ROWS):
        kept = kept_steps(row, drop_mask, series["past_observed_mask"])
        for t in range(8 if row == 2 else TIME):
            before, after = [k for k in kept if k <= t], [k for k in kept if k >= t]
            for c in range(CHANNELS):
                if before and after:
                    a, b = before[-1], after[0]
                    wanted = float(x[row, a, c]) + (float(x[row, b, c] - x[row, a, c]) * (t - a) / (b - a) if b > a else 0)
                else:
                    wanted = float(x[row, (before[-1:] + after[:1])[0], c])
                assert float(filled[row, t, c]) == pytest.approx(wanted)


def test_noise_has_the_mean_and_variance_of_the_channel():
    torch.manual_seed(0)
    x = torch.randn(1, 40_000, 2) * torch.tensor([0.5, 3.0]) + torch.tensor([2.0, -1.0])
    drop_mask = torch.ones(1, 20_000, dtype=torch.bool)
    filled = hide("noise", {"past_values": x}, drop_mask, draw=draw(1))[0].double()
    torch.testing.assert_close(filled.mean(0), torch.tensor([2.0, -1.0]).double(), atol=0.05, rtol=0)
    torch.testing.assert_close(filled.std(0), torch.tensor([0.5, 3.0]).double(), atol=0.05, rtol=0)
    assert abs(torch.corrcoef(torch.stack([filled[:-1, 0], filled[1:, 0]]))[0, 1]) < 0.02


def test_noise_is_the_same_however_the_rows_are_spread(series, drop_mask):
    whole = hide("noise", series, drop_mask)
    for row in range(ROWS):
        alone = {k: v[row : row + 1] for k, v in series.items()}
        assert torch.equal(hide("noise", alone, drop_mask[row : row + 1], draw=draw(1, row)), whole[row : row + 1])
    assert not torch.equal(hide("noise", series, drop_mask, draw=draw(step=5)), whole)


def test_swap_takes_another_rows_segment_and_the_mean_where_that_row_is_padded(series, drop_mask):
    x, filled = series["past_values"], hide("swap", series, drop_mask)
    hidden = drop_mask.repeat_interleave(2, 1)
    donors = set()
    for row in range(ROWS):
        steps = [t for t in range(TIME) if hidden[row, t] and series["past_observed_mask"][row, t, 0]]
        others = [r for r in range(ROWS) if r != row]
        mean = x[row, : 8 if row == 2 else TIME].mean(0)
        fits = [
            r for r in others if all(_equal(filled[row, t], x[r, t] if not (r == 2 and t >= 8) else mean) for t in steps)
        ]
        assert len(fits) == 1
        donors.add((row, fits[0]))
    assert len(donors) == ROWS


def _equal(a, b):
    return torch.allclose(a, b)


def test_every_other_row_may_be_the_donor_and_never_the_row_itself():
    x = torch.arange(4.0)[:, None, None].expand(4, 4, 1).contiguous()
    drop_mask = torch.tensor([[True, False]]).expand(4, 2)
    seen = {
        (r, int(v))
        for s in range(60)
        for r, v in enumerate(hide("swap", {"past_values": x}, drop_mask, draw=draw(4, 0, s))[:, 0, 0])
    }
    assert seen == {(a, b) for a in range(4) for b in range(4) if a != b}


def test_a_row_alone_in_its_batch_is_filled_with_its_mean(series, drop_mask):
    alone = {k: v[:1] for k, v in series.items()}
    assert torch.equal(hide("swap", alone, drop_mask[:1], draw=draw(1)), hide("mean", alone, drop_mask[:1], draw=draw(1)))


@pytest.mark.parametrize("name", Series.perturbations)
def test_channels_first_gives_the_same_with_axes_exchanged(name, drop_mask):
    torch.manual_seed(0)
    x = torch.randn(ROWS, TIME, 1)
    first = hide(name, {"past_values": x.transpose(1, 2)}, drop_mask, SeriesChannelsFirst(OfSeries(), unit_size=2))
    torch.testing.assert_close(first.transpose(1, 2), hide(name, {"past_values": x}, drop_mask))


@pytest.mark.parametrize("channels", [0, 1, 3])
@pytest.mark.parametrize("name", Patches.perturbations)
def test_only_hidden_patches_change_also_of_grey_images(name, channels):
    torch.manual_seed(0)
    x = torch.rand(2, *([channels] if channels else []), 10, 7)  # patches of 3: 4 x 3, the last ones smaller
    drop_mask = torch.zeros(2, 4, 3, dtype=torch.bool)
    drop_mask[0, 3, 2] = drop_mask[1, 1, 0] = True
    units = Patches(OfImages(), unit_size=3)
    changed = hide(name, {"pixel_values": x}, drop_mask, units, draw(2)) != x
    hidden = torch.zeros_like(x, dtype=torch.bool)
    hidden[0, ..., 9:, 6:] = hidden[1, ..., 3:6, :3] = True
    assert torch.equal(changed, hidden)


def test_blur_keeps_what_is_flat_and_flattens_what_is_not():
    units = Patches(OfImages(), unit_size=4)
    everything = torch.ones(1, 4, 4, dtype=torch.bool)
    ramp = torch.linspace(0, 1, 16).expand(1, 1, 16, 16).contiguous()
    board = ((torch.arange(16)[:, None] + torch.arange(16)) % 2).float().expand(1, 1, 16, 16)
    blurred = hide("blur", {"pixel_values": ramp}, everything, units, draw(1))
    torch.testing.assert_close(blurred[..., 4:12], ramp[..., 4:12])  # in the middle a ramp's mean is itself
    assert hide("blur", {"pixel_values": board}, everything, units, draw(1)).std() < 0.05 * board.std()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", Series.perturbations)
def test_the_type_of_the_input_is_kept(name, dtype, series, drop_mask):
    assert hide(name, {"past_values": series["past_values"].to(dtype)}, drop_mask).dtype == dtype


def test_a_perturbation_of_another_kind_of_input_is_refused_with_the_ones_that_fit():
    with pytest.raises(
        ChallengerError, match=r"'blur' does not fit 'past_values'.*'mean' or 'interpolate' or 'zero' or 'noise'"
    ):
        perturbation_for("blur", Series(OfSeries()))
    with pytest.raises(ChallengerError, match=r"'attention' does not fit 'pixel_values'.*'blur'"):
        perturbation_for("attention", Patches(OfImages()))


def test_normal_numbers_are_normal():
    numbers = draw(2).normal(50_000).double()
    assert abs(numbers.mean()) < 0.01
    assert abs(numbers.std() - 1) < 0.01
    assert abs((numbers < 1).double().mean() - 0.5 * (1 + math.erf(1 / math.sqrt(2)))) < 0.005
    assert abs(torch.corrcoef(numbers)[0, 1]) < 0.02
