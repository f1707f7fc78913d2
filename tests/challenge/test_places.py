"""The cue memory of places, without any model."""

import numpy as np
import pytest
import torch

from hf_challenger.challenge import ChallengeOptions, Challenger
from hf_challenger.challenge.places import PlaceMemory, places_in_one, places_taken_apart, telling
from hf_challenger.errors import ChallengerError
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
    return memory.drop_mask(torch.ones(rows, PLACES, dtype=torch.bool), torch.arange(rows) % CLASSES)


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
    few = torch.arange(28)
    contents[few, CUE, 0] = labels[few].float()
    memory = memory_of(labels[few], contents[few], shares[few])
    assert memory.number == 1
    memory.remember(labels, torch.arange(80), contents, shares)
    assert memory.number == 0
    assert not hidden(memory).any()


def test_rare_classes_hinder_nothing():
    labels, contents, shares = rows_of(80)
    labels[labels > 1] = torch.arange(40) % 20 + 2  # of two rows each
    memory = memory_of(labels, contents, leaning(shares, 1, labels, 0.7))
    assert [(cue.label, cue.identities) for cue in memory.cues] == [(1, (CUE,))]


def test_what_places_hold_is_learnt_before_the_model_is_sure_of_most_rows():
    labels, contents, shares = rows_of(80)
    sure = torch.zeros(80, dtype=torch.bool)
    sure[(labels == 1).nonzero().flatten()[:3]] = True  # of three rows in eighty
    memory = memory_of(labels, contents, leaning(shares, 1, labels, 0.7) * sure.unsqueeze(1))
    assert [(cue.label, cue.identities) for cue in memory.cues] == [(1, (CUE,))]
    assert hidden(memory)[:, CUE].all()


def test_rows_without_the_cue_that_the_model_is_not_sure_of_hide_nothing_of_it():
    labels, contents, shares = rows_of(80, planted=0.6)
    without = contents[:, CUE, 0] != labels.float() * 2
    shares = leaning(shares, 1, labels, 0.7)
    assert memory_of(labels, contents, shares).number == 0
    assert memory_of(labels, contents, shares * ~without.unsqueeze(1)).number == 1


def test_classes_that_are_learnt_first_do_not_decide_alone():
    labels, contents, shares = rows_of(80, planted=0.0)
    labels[(labels > 1) & (torch.arange(80) % 8 > 3)] += CLASSES  # six classes
    early = labels < 2
    contents[early, CUE, 0] = 0.3 * labels[early].float()  # which differ here, among classes that are anywhere
    sure = early & (torch.rand(80, generator=torch.Generator().manual_seed(1)) < 0.7)
    shares = leaning(shares, 1, labels, 0.9)
    assert memory_of(labels, contents, shares * sure.unsqueeze(1)).number == 0
    assert memory_of(labels[sure], contents[sure], shares[sure]).number == 1


def test_a_row_that_the_model_is_no_longer_sure_of_keeps_what_it_told():
    labels, contents, shares = rows_of(80)
    memory = memory_of(labels, contents, leaning(shares, 1, labels, 0.3))
    before = memory.state_dict()["rows"][1]["shares"]
    memory.remember(labels, torch.arange(80), contents, torch.zeros_like(shares))
    assert torch.equal(memory.state_dict()["rows"][1]["shares"], before)


def test_a_row_that_comes_again_in_a_shorter_batch_and_tells_nothing_fits():
    labels, contents, shares = rows_of(80)
    memory = memory_of(labels, contents, leaning(shares, 1, labels, 0.7))
    short = PLACES - 4
    memory.remember(labels, torch.arange(80), contents[:, :short], torch.zeros(80, short))
    assert memory.state_dict()["rows"][0]["shares"].shape == (20, short)
    memory.remember(labels[:4], torch.arange(100, 104), contents[:4], shares[:4])
    assert memory.number == 1


@pytest.mark.parametrize("told_once", [False, True])
def test_rows_that_tell_nothing_do_not_settle_the_memory(told_once):
    labels, contents, shares = rows_of(80)
    memory = memory_of(labels, contents, shares * told_once)
    for _ in range(3):
        memory.remember(labels, torch.arange(80), contents, torch.zeros_like(shares))
    assert not memory.settled
    for _ in range(3):
        memory.remember(labels, torch.arange(80), contents, shares)
    assert memory.settled


@pytest.mark.parametrize(("levels", "rows_without"), [(0, 3), (CUE + 1, 0)])
def test_blocks_are_hidden_in_the_rows_that_are_chosen_and_levels_in_all(levels, rows_without):
    labels, contents, shares = rows_of(80)
    memory = PlaceMemory(0.4, 0.65)
    memory.remember(labels, torch.arange(80), contents, leaning(shares, 1, labels, 0.7), levels)
    chosen = torch.tensor([True, False, True, False, True, False])
    drop_mask = memory.drop_mask(torch.ones(6, PLACES, dtype=torch.bool), torch.arange(6) % CLASSES, chosen)
    assert (~drop_mask[:, CUE]).sum() == rows_without
    assert drop_mask[chosen, CUE].all()
    assert drop_mask.sum() == 6 - rows_without
    (cue,) = memory.cues
    assert cue.hidden_rows == 6 - rows_without


def test_counts_hidden_rows_and_survives_a_checkpoint():
    labels, contents, shares = rows_of(80)
    memory = memory_of(labels, contents, leaning(shares, 1, labels, 0.7))
    chosen = torch.tensor([True, True, False, True, True, True])
    mask = memory.drop_mask(torch.ones(6, PLACES, dtype=torch.bool), torch.arange(6) % CLASSES, chosen)
    assert mask.any(1).tolist() == chosen.tolist()
    other = PlaceMemory(0.4, 0.65)
    other.load_state_dict(memory.state_dict())
    assert memory.cues[0].hidden_rows == 5  # of every class
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
    assert memory.drop_mask(maskable, torch.tensor([1, 1])).any(1).tolist() == [False, True]


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
        x = torch.randn(64, 48, 1)  # the mark must not tell the class by the mean of the series
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
    rows = torch.nn.functional.pad(places_in_one(labels, labels + 2**40, contents, shares, 3), (0, 0, 0, 2), value=-1)
    # With two rows that only fill up, as gathering from several processes adds them.
    *found, levels = places_taken_apart(rows)
    assert found[0].tolist() == [*labels.tolist(), -1, -1]
    assert levels == 3
    for before, after in zip((labels + 2**40, contents, shares), found[1:], strict=True):
        assert torch.equal(before.nan_to_num(7), after[:8].nan_to_num(7))


def test_a_saved_memory_of_too_few_rows_hides_nothing_until_it_looks_again():
    labels, contents, shares = rows_of(80)
    memory = memory_of(labels, contents, leaning(shares, 1, labels, 0.7))
    state = memory.state_dict()
    few = {label: {name: values[:4] for name, values in rows.items()} for label, rows in state["rows"].items()}
    other = PlaceMemory(0.4, 0.65)
    other.load_state_dict({**state, "rows": few, "levels": CUE + 1})
    assert other.number == 1
    assert not hidden(other).any()
    other.remember(labels, torch.arange(80), contents, shares)
    assert hidden(other)[:, CUE].all()


def test_four_rows_a_class_are_enough_and_two_are_not():
    labels, contents, shares = rows_of(28)
    shares = leaning(shares, 1, labels, 0.7)
    assert memory_of(labels, contents, shares).number == 1
    assert memory_of(labels[:8], contents[:8], shares[:8]).number == 0


# --- levels of channels ------------------------------------------------------------------------------------------------------


class Reads(torch.nn.Module):
    main_input_name = "past_values"

    def forward(self, past_values): ...


def series_inputs(rows=6, steps=12, channels=3):
    x = torch.randn(rows, steps, channels, generator=torch.Generator().manual_seed(0)) + torch.arange(float(channels))
    lengths = torch.tensor([steps] * (rows - 1) + [steps - 4])
    return {"past_values": x, "lengths": lengths}


def test_a_level_and_what_is_left_of_the_windows_are_places_of_their_own():
    inputs = series_inputs()
    x, places = inputs["past_values"], Series(Reads(), unit_size=4).places
    contents = places.contents(inputs)
    mean = torch.stack([row[:n].mean(0) for row, n in zip(x, inputs["lengths"], strict=True)])
    assert contents.shape == (6, 3 + 3, 3)
    assert torch.allclose(contents[:, :3, 0], mean, atol=1e-6)
    assert contents[:, :3, 1:].isnan().all()
    assert torch.allclose(contents[0, 4], x[0, 4:8].mean(0), atol=1e-6)
    assert places.there(inputs).tolist() == [[True] * 6] * 5 + [[True] * 5 + [False]]


def test_relevance_of_a_linear_model_is_what_the_level_and_the_rest_add_to_its_score():
    inputs = {"past_values": series_inputs()["past_values"].double()}
    x, weights = inputs["past_values"], torch.randn(12, 3, generator=torch.Generator().manual_seed(1)).double()
    places = Series(Reads(), unit_size=4).places
    found = places.relevance(x * weights, inputs).double()
    level = x.mean(1, keepdim=True)
    expected = torch.cat([(level * weights).sum(1), ((x - level) * weights).unflatten(1, (3, 4)).sum((2, 3))], 1)
    assert torch.allclose(found, expected, atol=1e-4)
    assert torch.allclose(found.sum(1), (x * weights).sum((1, 2)), atol=1e-4)


def test_an_exchanged_level_moves_the_series_and_keeps_its_shape():
    inputs = series_inputs()
    units = Series(Reads(), unit_size=4)
    others = {k: v.flip(0) for k, v in inputs.items()}
    places = torch.zeros(6, 6, dtype=torch.bool)
    places[0, 1] = places[1, 4] = places[5, 0] = True  # the level of channel 1; a window; a level of the row with padding
    before, after, other = (
        inputs["past_values"],
        units.places.exchanged(inputs, places, others)["past_values"],
        others["past_values"],
    )
    assert torch.allclose(after[0, :, 1], before[0, :, 1] - before[0, :, 1].mean() + other[0, :8, 1].mean(), atol=1e-5)
    assert torch.equal(after[0, :, ::2], before[0, :, ::2])
    assert torch.equal(after[1, 4:8], other[1, 4:8])
    assert torch.equal(after[1, :4], before[1, :4])
    assert torch.allclose(after[5, :8, 0].mean(), other[5, :, 0].mean(), atol=1e-5)
    assert torch.equal(after[5, 8:], before[5, 8:])
    assert torch.equal(after[2:5], before[2:5])
    part = torch.tensor([0.25, 1, 1, 1, 1, 0])
    between = units.places.exchanged(inputs, places, others, part)["past_values"]
    level = units.mean(others)
    assert torch.allclose(between[0, :, 1].mean(), 0.75 * level[:, 0, 1].mean() + 0.25 * level[0, 0, 1], atol=1e-5)
    assert torch.allclose(between[5, :8, 0].mean(), level[:, 0, 0].mean(), atol=1e-5)
    alone = units.places.exchanged(inputs, places, None)["past_values"]
    assert torch.equal(alone[0], before[0])
    assert torch.allclose(alone[1, 4:8], before[1].mean(0).expand(4, 3), atol=1e-6)


def test_the_mean_of_a_long_series_in_half_precision_is_finite():
    inputs = {"past_values": torch.full((2, 5000, 1), 30.0, dtype=torch.float16)}
    assert Series(Reads(), unit_size=4).mean(inputs).flatten().tolist() == [30, 30]


def test_a_channel_that_was_not_observed_has_no_level():
    x = torch.randn(6, 12, 3, generator=torch.Generator().manual_seed(0)) + 100
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[3:, :, 1] = False
    inputs = {"past_values": x * seen, "past_observed_mask": seen}
    units = Series(Reads(), unit_size=4)
    places = torch.zeros(6, 6, dtype=torch.bool)
    places[:, 1] = True  # the level of channel 1
    others = {k: v.flip(0) for k, v in inputs.items()}  # of which the first three rows have none
    exchanged = units.places.exchanged(inputs, places, others)["past_values"]
    between = units.places.exchanged(inputs, places, others, torch.full((6,), 0.5))["past_values"]
    assert torch.equal(exchanged, inputs["past_values"])
    assert torch.allclose(between[:3, :, 1].mean(1), x[:3, :, 1].mean().expand(3), atol=1e-3)
    assert torch.equal(between[3:], inputs["past_values"][3:])


@pytest.mark.parametrize(("shape", "level"), [((4, 12, 1), "level"), ((4, 12), "level"), ((4, 12, 3), "level of channel 2")])
def test_levels_have_names(shape, level):
    inputs = {"past_values": torch.randn(shape)}
    places = Series(Reads(), unit_size=4).places
    levels = places.there(inputs).shape[1] - 3
    assert places.text_of((levels - 1, levels + 1)) == f"{level} + steps 4 to 7"
    assert places.places_of(f"{level} + steps 4 to 7", inputs)[1].nonzero().flatten().tolist() == [levels - 1, levels + 1]
    with pytest.raises(ChallengerError, match="level of channel 3"):
        places.places_of("level of channel 3", inputs)


def offset_series():
    y = torch.arange(64) % CLASSES
    x = torch.randn(64, 48, 1, generator=torch.Generator().manual_seed(0)) + (y.float() - 1.5).reshape(-1, 1, 1)
    return x, y


def tells_nothing_between(levels, before, moved):
    """The moved levels lie among those before, and do not tell the class."""
    labels = torch.arange(64) % CLASSES
    assert not torch.isclose(levels[moved], before[moved], atol=1e-5).all()
    assert before.min() - 1e-5 < levels[moved].min() < levels[moved].max() < before.max() + 1e-5
    assert telling(*sums(labels[moved], levels[moved, None, None]))[0] < 0.35


def train_with(options, steps=60):
    torch.manual_seed(0)
    x, y = offset_series()
    model = series_model("fcn-small", 48, 1, num_labels=CLASSES)
    challenger, optimizer = Challenger(model, options), torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(steps):
        batch = challenger.challenge({"past_values": x}, y, step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**batch.inputs).logits, y).backward()
        optimizer.step()
    return challenger, batch


def test_an_offset_is_found_and_exchanged_for_those_of_other_rows():
    x, _ = offset_series()
    challenger, batch = train_with(ChallengeOptions())
    assert {cue.text for cue in challenger.cues} == {"level"}
    assert batch.challenged.all()  # a level that stayed in some rows would go on telling the class
    assert not batch.drop_mask.any()
    assert batch.drop_mask.shape == (64, 24)
    after = batch.inputs["past_values"]
    assert torch.allclose(after - after.mean(1, keepdim=True), x - x.mean(1, keepdim=True), atol=1e-5)
    levels, before = after.mean((1, 2)), x.mean((1, 2))
    tells_nothing_between(levels, before, batch.challenged)
    assert levels.std() < 0.6 * before.std()  # an exchange would keep it; a third of the way, in the mean, leaves .45


def test_a_level_can_be_kept_and_hidden_by_its_name():
    kept, batch = train_with(ChallengeOptions(challenge_keep=["level"]))
    assert not kept.cues
    assert not batch.challenged.any()
    x, _ = offset_series()
    _, batch = train_with(ChallengeOptions(challenge_hide=["level"]), steps=1)
    assert batch.leaked.all()
    assert (batch.inputs["past_values"].mean((1, 2)) != x.mean((1, 2))).all()


def test_another_fill_is_for_windows_and_levels_are_exchanged_all_the_same():
    challenger, batch = train_with(ChallengeOptions(challenge_perturbation="zero"))
    assert {cue.text for cue in challenger.cues} == {"level"}
    assert batch.challenged.any()
    assert (batch.inputs["past_values"] != 0).all()


class Looks(torch.nn.Module):
    main_input_name = "pixel_values"

    def forward(self, pixel_values): ...


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 8, 8)])
def test_the_level_of_an_image_is_its_darkest_value(shape):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 0.1
    inputs, places = {"pixel_values": x}, Patches(Looks(), unit_size=4).places
    channels = 3 if len(shape) == 4 else 1
    darkest = x.amin((-2, -1))
    assert places.there(inputs).shape == (4, 1 + 4)
    assert torch.equal(places.contents(inputs)[:, 0].reshape(darkest.shape), darkest)
    found = places.relevance(x * 2, inputs)
    assert torch.allclose(found[:, 0], darkest.reshape(4, -1).sum(1) * 2 * 64, rtol=1e-3)
    assert torch.allclose(found.sum(1), (x * 2).flatten(1).sum(1), rtol=1e-3)
    mask = torch.zeros(4, 5, dtype=torch.bool)
    mask[0, 0] = mask[1, 1] = True
    others = {"pixel_values": x.flip(0)}
    after = places.exchanged(inputs, mask, others)["pixel_values"]
    first = after[0, 0] if channels == 3 else after[0]
    before, other = (x[0, 0], x[3, 0]) if channels == 3 else (x[0], x[3])
    assert torch.allclose(first, before - before.min() + other.min())
    assert torch.equal(after[1, ..., :4, :4], x[2, ..., :4, :4])
    assert torch.equal(after[1, ..., 4:, :], x[1, ..., 4:, :])
    assert torch.equal(after[2:], x[2:])


def test_a_tint_is_found_and_exchanged():
    torch.manual_seed(0)
    y = torch.arange(64) % CLASSES
    x = 0.5 * torch.rand(64, 3, 16, 16) + 0.1 * y.float().reshape(-1, 1, 1, 1)
    model = image_model("cnn", 16, 16, 3, num_labels=CLASSES)
    challenger, optimizer = Challenger(model, ChallengeOptions()), torch.optim.AdamW(model.parameters(), lr=0.01)
    for step in range(60):
        batch = challenger.challenge({"pixel_values": x}, y, step)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(**batch.inputs).logits, y).backward()
        optimizer.step()
    assert any("level" in cue.text for cue in challenger.cues)
    dark, before = batch.inputs["pixel_values"].amin((2, 3)), x.amin((2, 3))
    for channel in range(3):
        tells_nothing_between(dark[:, channel], before[:, channel], batch.challenged)
