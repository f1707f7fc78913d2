"""The cue memory of places, without any model."""

import numpy as np
import pytest
import torch

from hf_challenger.challenge import ChallengeOptions, Challenger
from hf_challenger.challenge.places import PlaceMemory, places_in_one, places_taken_apart, telling
from hf_challenger.inputs import Patches, Series, SeriesChannelsFirst
from hf_challenger.small_models import image_model, series_model

CLASSES, PLACES, CUE = 4, 9, 2


def rows_of(rows, planted=0.95, seed=0):
    """Labels, contents ``(rows, places, 1)`` of noise in which a place holds the class's level, and even shares."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % CLASSES
    contents = torch.randn(rows, PLACES, 1, generator=generator)
    marked = torch.rand(rows, generator=generator) < planted
    contents[marked, CUE, 0] = labels[marked].float() * 2
    return labels, contents, torch.full((rows, PLACES), 1 / PLACES)


def leaning(shares, label, labels, share):
    """Rows of a class hold that share of their relevance at the place of the cue."""
    shares = shares.clone()
    shares[labels == label] = (1 - share) / (PLACES - 1)
    shares[labels == label, CUE] = share
    return shares


def memory_of(labels, contents, shares, threshold=0.4, telling=0.65):
    memory = PlaceMemory(threshold, telling)
    memory.remember(labels, torch.arange(len(labels)), contents, shares)
    return memory


def hidden(memory, rows=6):
    return memory.drop_mask(
        torch.zeros(rows, PLACES), torch.ones(rows, PLACES, dtype=torch.bool), torch.arange(rows) % CLASSES
    )


def sums(labels, contents):
    groups = [contents[labels == c].numpy().astype(float) for c in labels.unique()]
    return [
        np.stack([part(group) for group in groups])
        for part in (lambda g: (g == g).sum(0), lambda g: g.sum(0), lambda g: (g**2).sum(0))
    ]


def test_telling_is_the_adjusted_r2_of_a_regression_on_the_class():
    labels, contents, _ = rows_of(60)
    one_hot = torch.nn.functional.one_hot(labels).numpy().astype(float)
    expected = []
    for place in contents[:, :, 0].numpy().astype(float).T:
        residual = place - one_hot @ np.linalg.lstsq(one_hot, place, rcond=None)[0]
        expected.append(1 - (residual**2).sum() / (60 - CLASSES) / place.var(ddof=1))
    assert telling(*sums(labels, contents)) == pytest.approx(np.maximum(expected, 0))


def test_telling_knows_constants_and_takes_the_best_channel():
    labels, contents, _ = rows_of(40)
    contents[:, 0] = 3.7  # a background
    noise = torch.randn(40, PLACES, 1, generator=torch.Generator().manual_seed(1))
    both = telling(*sums(labels, torch.cat([noise, contents], 2)))
    assert both[0] < 0.5
    assert telling(*sums(labels, contents))[0] == 0
    assert both[CUE] > 0.65 > both[3]
    assert (telling(*sums(labels[labels == 0], contents[labels == 0])) == 0).all()


def test_a_place_that_tells_and_is_leaned_on_is_hidden_in_rows_of_every_class():
    labels, contents, shares = rows_of(80)
    memory = memory_of(labels, contents, leaning(shares, 1, labels, 0.7))
    (cue,) = memory.cues
    assert (cue.label, cue.identities, cue.coverage) == (1, (CUE,), 1.0)
    assert cue.strength == pytest.approx(0.7)
    assert hidden(memory)[:, CUE].all()
    assert hidden(memory).sum() == len(hidden(memory))


@pytest.mark.parametrize(
    ("planted", "share", "why"), [(0.0, 0.9, "its content tells nothing"), (0.95, 0.2, "no class leans on it")]
)
def test_without_both_there_is_no_cue(planted, share, why):
    labels, contents, shares = rows_of(80, planted)
    memory = memory_of(labels, contents, leaning(shares, 1, labels, share))
    assert memory.cues == [], why
    assert not hidden(memory).any()


def test_what_tells_by_chance_over_few_rows_is_forgotten():
    labels, contents, shares = rows_of(80, planted=0.0)
    shares = leaning(shares, 1, labels, 0.7)
    few = torch.arange(20)
    contents[few, CUE, 0] = labels[few].float()
    memory = memory_of(labels[few], contents[few], shares[few])
    assert memory.number == 1
    memory.remember(labels, torch.arange(80), contents, shares)
    assert memory.number == 0
    assert not hidden(memory).any()


def test_classes_that_are_learnt_first_do_not_decide_alone():
    labels, contents, shares = rows_of(80)
    early = (labels < 1) | (torch.arange(80) < CLASSES)  # many rows of one class, one of each other
    memory = memory_of(labels[early], contents[early], leaning(shares, 0, labels, 0.9)[early])
    assert memory.number == 0


def test_counts_hidden_rows_and_survives_a_checkpoint():
    labels, contents, shares = rows_of(80)
    memory = memory_of(labels, contents, leaning(shares, 1, labels, 0.7))
    chosen = torch.tensor([True, True, False, True, True, True])
    mask = memory.drop_mask(None, torch.ones(6, PLACES, dtype=torch.bool), torch.arange(6) % CLASSES, chosen)
    assert mask.any(1).tolist() == chosen.tolist()
    other = PlaceMemory(0.4, 0.65)
    other.load_state_dict(memory.state_dict())
    assert memory.cues[0].hidden_rows == 2
    assert other.cues == memory.cues
    assert torch.equal(hidden(other), hidden(memory))
    for known in (memory, other):
        known.remember(labels[:8], torch.arange(100, 108), contents[:8], shares[:8])
    assert other.cues == memory.cues
    assert other.settled == memory.settled


def test_a_row_of_which_nothing_would_be_left_stays_whole():
    labels, contents, shares = rows_of(80)
    memory = memory_of(labels, contents, leaning(shares, 1, labels, 0.7))
    maskable = torch.zeros(2, PLACES, dtype=torch.bool)
    maskable[0, CUE] = maskable[1] = True
    assert memory.drop_mask(None, maskable, torch.tensor([1, 1])).any(1).tolist() == [False, True]


def test_rows_are_bounded_and_other_lengths_fit():
    labels, contents, shares = rows_of(400)
    memory = memory_of(labels, contents, shares)
    longer = torch.cat([contents, contents], 1)[:8], torch.cat([shares, shares], 1)[:8] / 2
    memory.remember(labels[:8], torch.arange(1000, 1008), longer[0], longer[1])
    assert {len(rows["keys"]) for rows in memory.state_dict()["rows"].values()} == {64}
    assert memory.state_dict()["rows"][0]["contents"].shape == (64, 2 * PLACES, 1)


@pytest.mark.parametrize(
    ("adapter", "key", "shape"),
    [(Patches, "pixel_values", (2, 3, 8, 8)), (Patches, "pixel_values", (2, 8, 8)), (Series, "past_values", (2, 8, 3))],
)
def test_contents_are_the_mean_of_each_block_in_each_channel(adapter, key, shape):
    class Model(torch.nn.Module):
        main_input_name = key

        def forward(self, **inputs): ...

    x = torch.randn(shape)
    contents = adapter(Model(), unit_size=4).contents({key: x})
    if adapter is Series:
        assert torch.allclose(contents[:, 1], x[:, 4:].mean(1))
    else:
        first = x[..., :4, 4:].mean((-2, -1)).reshape(2, -1)
        assert torch.allclose(contents[:, 0, 1], first)


def test_contents_of_padding_are_nan_and_channels_may_come_first():
    class Model(torch.nn.Module):
        main_input_name = "x"

        def forward(self, x): ...

    x = torch.randn(2, 3, 8)
    inputs = {"x": x, "lengths": torch.tensor([6, 4])}
    contents = SeriesChannelsFirst(Model(), unit_size=4).contents(inputs)
    assert torch.allclose(contents[0, 1], x[0, :, 4:6].mean(-1))
    assert contents[1, 1].isnan().all()
    assert not contents[:, 0].isnan().any()


@pytest.mark.parametrize("kind", ["images", "series"])
def test_a_planted_place_is_found_and_swapped_in_a_plain_loop(kind):
    torch.manual_seed(0)
    y = torch.arange(64) % CLASSES
    if kind == "images":
        model, key, cue = image_model("cnn", 16, 16, 1, num_labels=CLASSES), "pixel_values", np.s_[:, :, :2, :2]
        x = 0.2 * torch.rand(64, 1, 16, 16)
        x[cue] = (1 + y.float()).reshape(-1, 1, 1, 1)
    else:
        model, key, cue = series_model("fcn-small", 48, 1, num_labels=CLASSES), "past_values", np.s_[:, :2]
        x = 0.2 * torch.randn(64, 48, 1)
        x[cue] = 2.0 * (y.float() - 1.5).reshape(-1, 1, 1)
    challenger = Challenger(model, ChallengeOptions())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(60):
        batch = challenger.challenge({key: x}, y, step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**batch.inputs).logits, y).backward()
        optimizer.step()
    assert challenger.cues
    assert {cue.text for cue in challenger.cues} == {"rows 0 to 1, columns 0 to 1" if kind == "images" else "steps 0 to 1"}
    assert (batch.drop_mask.sum(0) > 0).nonzero().flatten().tolist() == [0]
    changed = (batch.inputs[key] != x).flatten(1).any(1)
    assert changed.sum() > 16
    assert set(batch.inputs[key][cue].flatten().tolist()) == set(x[cue].flatten().tolist())  # nothing but other rows' levels
    rest = batch.inputs[key].clone()
    rest[cue] = x[cue]
    assert torch.equal(rest, x)


def test_rows_come_out_of_one_tensor_as_they_went_in():
    labels, contents, shares = rows_of(8)
    contents = torch.cat([contents, -contents], 2)
    contents[3, 1] = torch.nan
    rows = torch.nn.functional.pad(places_in_one(labels, labels + 2**40, contents, shares), (0, 0, 0, 2), value=-1)
    found = places_taken_apart(rows)  # with two rows that only fill up, as gathering from several processes adds them
    assert found[0].tolist() == [*labels.tolist(), -1, -1]
    for before, after in zip((labels + 2**40, contents, shares), found[1:], strict=True):
        assert torch.equal(before.nan_to_num(7), after[:8].nan_to_num(7))
