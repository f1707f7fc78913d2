"""Pictures: what they show is read back from the figure, and every one is really drawn."""

import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from tiny import pieces_tokenizer, tiny_batch, tiny_bert, tiny_tokenizer
from torch import nn
from transformers import PatchTSTConfig, PatchTSTForClassification, ViTConfig, ViTForImageClassification

from hf_challenger import ChallengeOptions, Challenger, ChallengerError, visualize
from hf_challenger.calibration import reliability_bins
from hf_challenger.visualize.texts import Text, draw_texts


def drawn(figure, tmp_path):
    """Pixels ``(height, width, 3)`` in [0, 1]."""
    from matplotlib.image import imread

    figure.savefig(tmp_path / "x.png", dpi=60)
    return imread(tmp_path / "x.png")[..., :3]


def has_colour(pixels, colour):
    return bool((np.abs(pixels - np.array(to_rgb(colour))).max(-1) < 0.06).any())


def texts(figure):
    return [t.get_text() for axes in figure.axes for t in axes.texts]


def test_reliability_diagram_shows_accuracy_and_counts(tmp_path):
    generator = torch.Generator().manual_seed(0)
    probabilities = (torch.randn(200, 3, generator=generator) * 2).softmax(1)
    labels = torch.randint(3, (200,), generator=generator)
    figure = visualize.reliability_diagram(probabilities, labels, bins=10)
    bins = reliability_bins(probabilities, labels, 10)
    above, below = figure.axes
    heights = [bar.get_height() for bar in above.containers[0]]
    assert heights == pytest.approx(bins.accuracy.nan_to_num().tolist())
    assert [bar.get_height() for bar in below.containers[0]] == bins.count.tolist()
    assert f"ECE {bins.error:.3f}" in above.get_title()
    assert "200 rows" in below.get_xlabel()
    pixels = drawn(figure, tmp_path)
    assert has_colour(pixels, visualize.BLUE)
    assert has_colour(pixels, visualize.ORANGE)


def test_training_curves_show_the_log_history(tmp_path, trainer):
    made = trainer(max_steps=3, eval_strategy="steps", eval_steps=1)
    made.train()
    figure = visualize.training_curves(made.state.log_history)
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert set(lines) == {"training", "evaluation"}
    logged = [log["loss"] for log in made.state.log_history if "loss" in log]
    assert list(lines["training"]) == logged
    drawn(figure, tmp_path)


def test_training_curves_without_a_logged_loss_are_refused():
    with pytest.raises(ChallengerError, match="Train with logging_steps below the number of steps"):
        visualize.training_curves([{"train_loss": 1.0, "step": 1}])


def test_token_heat_map_paints_orange_for_and_blue_against(tmp_path):
    figure = visualize.token_heatmap([(["good", "$x^2$", "bad"], [2.0, 0.0, -2.0], "label <pos>")])
    assert texts(figure) == ["label <pos>", "good", "$x^2$", "bad", "Orange speaks for the class, blue against it."]
    grounds = [p.get_facecolor()[:3] for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    for ground, colour in zip(grounds, (visualize.ORANGE, "white", visualize.BLUE), strict=True):
        assert ground == pytest.approx(to_rgb(colour), abs=0.01)
    drawn(figure, tmp_path)


@pytest.mark.parametrize("words", [["w"], ["word"] * 40])
def test_the_key_of_a_text_stands_below_it_and_inside_the_picture(tmp_path, words):
    figure = visualize.token_heatmap([(words, [1.0] * len(words), "a")])
    drawn(figure, tmp_path)
    place = figure.axes[0].texts[-1].get_window_extent()
    assert 0 <= place.x0 < place.x1 <= figure.bbox.x1
    assert place.y1 <= min(box.get_window_extent().y0 for box in figure.axes[0].patches)


def test_long_texts_and_words_stay_inside_the_picture(tmp_path):
    words = [f"word{i}" for i in range(60)] + ["x" * 200]
    figure = visualize.token_heatmap([(words, [1.0] * 61, "a"), (words, [1.0] * 61, "b")])
    axes = figure.axes[0]
    boxes = [p for p in axes.patches if isinstance(p, Rectangle)]
    assert len(boxes) == 122
    assert max(p.get_x() + p.get_width() for p in boxes) <= axes.get_xlim()[1]
    assert max(p.get_y() + p.get_height() for p in boxes) <= axes.get_ylim()[0]
    drawn(figure, tmp_path)


@pytest.mark.parametrize("shape", [(30,), (30, 3), (30, 12)])
def test_series_relevance_has_a_panel_a_channel(tmp_path, shape):
    generator = torch.Generator().manual_seed(0)
    series, relevance = torch.randn(2, *shape, generator=generator)
    figure = visualize.series_relevance(series, relevance)
    channels = min(series.reshape(30, -1).shape[1], 8)
    panels = [axes for axes in figure.axes if axes.lines]
    assert len(panels) == channels
    assert panels[0].lines[0].get_ydata() == pytest.approx(series.reshape(30, -1)[:, 0].tolist())
    shown = np.asarray(panels[0].images[0].get_array())
    assert shown[0] == pytest.approx(relevance.reshape(30, -1)[:, 0].numpy())
    drawn(figure, tmp_path)


@pytest.mark.parametrize("shape", [(8, 10), (1, 8, 10), (3, 8, 10)])
def test_image_relevance_is_summed_over_channels(tmp_path, shape):
    generator = torch.Generator().manual_seed(0)
    image, relevance = torch.randn(2, *shape, generator=generator)
    figure = visualize.image_relevance(image, relevance)
    shown = figure.axes[1].images[0]
    expected = relevance.reshape(-1, 8, 10).sum(0)
    np.testing.assert_allclose(np.asarray(shown.get_array()), expected.numpy(), atol=1e-6)
    assert shown.get_clim() == pytest.approx((-float(expected.abs().max()), float(expected.abs().max())))
    drawn(figure, tmp_path)


@pytest.mark.usefixtures("any_confidence")
def test_before_and_after_hatches_the_hidden_tokens(tmp_path):
    model, tokenizer, batch = tiny_bert(), tiny_tokenizer(), tiny_batch(8)
    labels = batch.pop("labels")
    options = ChallengeOptions(challenge_selection="sample", challenge_share=1.0, challenge_rate=0.4)
    challenger = Challenger(model, options, tokenizer)
    figure = visualize.before_and_after(challenger, batch, labels, tokenizer, rows=2)
    mixed = challenger.challenge(batch, labels, 0)
    rows = mixed.challenged.nonzero().flatten()[:2]
    hatched = [p for p in figure.axes[0].patches if p.get_hatch()]
    assert len(hatched) == int(mixed.drop_mask[rows].sum()) > 0
    words = int(challenger.units.maskable(batch)[rows].sum())
    assert len(texts(figure)) == 2 * 2 + 2 * words - len(hatched) + 1  # the key
    assert texts(figure)[-1].endswith("Hatched: hidden.")
    assert any("% of the positive relevance hidden" in t for t in texts(figure))
    drawn(figure, tmp_path)


@pytest.mark.usefixtures("any_confidence")
def test_pieces_of_a_word_stand_together_without_their_marks(tmp_path):
    tokenizer = pieces_tokenizer()
    batch = dict(tokenizer(["w1w2w3 w2?", "w2 w1"], return_tensors="pt", padding=True))
    options = ChallengeOptions(challenge_share=1.0, challenge_rate=0.2, challenge_selection="top")
    challenger = Challenger(tiny_bert().eval(), options, tokenizer)
    figure = visualize.before_and_after(challenger, batch, torch.tensor([0, 1]), tokenizer, rows=1)
    assert texts(figure)[2:7] == ["w1", "w2", "w3", "w2", "?"]
    boxes = [(p.get_x(), p.get_x() + p.get_width()) for p in figure.axes[0].patches][:4]
    touching = [right == pytest.approx(left) for (_, right), (left, _) in pairwise(boxes)]
    assert touching == [True, True, False]
    assert sum(bool(p.get_hatch()) for p in figure.axes[0].patches) == 1
    drawn(figure, tmp_path)


def test_words_stay_whole_at_the_end_of_a_line():
    long, short = ["abcdefghij"] * 3, ["x"] * 30
    text = Text([*short, *long], [1.0] * 33, "", goes_on=[False] * 31 + [True] * 2)
    boxes = [p.get_y() for p in draw_texts([text]).axes[0].patches]
    assert len(set(boxes[:30])) == len(set(boxes[30:])) == 1
    assert boxes[0] < boxes[30]


class Convolution(nn.Module):
    """Channels first."""

    main_input_name = "x"

    def __init__(self):
        super().__init__()
        self.filters, self.head = nn.Conv1d(2, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.filters(x).relu().mean(-1))


def patchtst():
    return PatchTSTForClassification(
        PatchTSTConfig(
            num_input_channels=2,
            context_length=24,
            patch_length=4,
            patch_stride=4,
            d_model=8,
            num_attention_heads=2,
            num_hidden_layers=1,
            ffn_dim=16,
            num_targets=3,
        )
    )


def vit():
    return ViTForImageClassification(
        ViTConfig(
            image_size=8,
            patch_size=2,
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            num_labels=3,
        )
    )


@pytest.mark.parametrize(
    ("build", "key", "shape", "units"),
    [
        (patchtst, "past_values", (4, 24, 2), "auto"),
        (Convolution, "x", (4, 2, 24), "series_channels_first"),
        (vit, "pixel_values", (4, 3, 8, 8), "auto"),
    ],
)
@pytest.mark.usefixtures("any_confidence")
def test_before_and_after_shows_series_and_images(tmp_path, build, key, shape, units):
    torch.manual_seed(0)
    model, inputs = build(), {key: torch.randn(shape)}
    options = ChallengeOptions(challenge_selection="sample", challenge_share=1.0, challenge_rate=0.3, challenge_units=units)
    figure = visualize.before_and_after(Challenger(model, options), inputs, torch.tensor([0, 1, 2, 0]), rows=2)
    assert len(figure.axes) == 6
    assert [axes.get_title() for axes in figure.axes[:3]] == ["before", "relevance", "challenged (hatched: hidden)"]
    before, after = figure.axes[0], figure.axes[2]
    first = inputs[key][0]
    shown = before.images[0].get_array()[..., 0] if key == "pixel_values" else before.lines[0].get_ydata()
    of_first_row = first[0] if key == "pixel_values" else first[:, 0] if key == "past_values" else first[0]
    assert np.corrcoef(np.ravel(shown), of_first_row.flatten())[0, 1] > 0.999
    if key == "pixel_values":
        assert not np.allclose(before.images[0].get_array(), after.images[0].get_array())
    else:
        assert len(before.lines) == 2
        assert before.lines[0].get_ydata().shape == (24,)
        assert any(not np.allclose(a.get_ydata(), b.get_ydata()) for a, b in zip(before.lines, after.lines, strict=True))
    drawn(figure, tmp_path)


def test_bad_inputs_are_refused_with_the_way_out():
    with pytest.raises(ChallengerError, match="One relevance a word is expected; got 1 for 2 words"):
        visualize.token_heatmap([(["a", "b"], [1.0], "x")])
    with pytest.raises(ChallengerError, match="NaN"):
        visualize.token_heatmap([(["a"], [float("nan")], "x")])
    with pytest.raises(ChallengerError, match="Take one row"):
        visualize.series_relevance(torch.zeros(2, 3, 4), torch.zeros(2, 3, 4))
    with pytest.raises(ChallengerError, match="Take one row"):
        visualize.image_relevance(torch.zeros(3, 4, 4), torch.zeros(4, 4))
    batch = tiny_batch(4)
    labels = batch.pop("labels")
    challenger = Challenger(tiny_bert(), ChallengeOptions(challenge_share=0.0), tiny_tokenizer())
    with pytest.raises(ChallengerError, match="None of the 4 rows"):
        visualize.before_and_after(challenger, batch, labels, tiny_tokenizer())


def test_without_matplotlib_the_error_says_how_to_get_it(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ChallengerError, match="pip install matplotlib"):
        visualize.training_curves([{"loss": 1.0, "step": 1}])
    with pytest.raises(ChallengerError, match="pip install matplotlib"):
        visualize.token_heatmap([(["a"], [1.0], "x")])
