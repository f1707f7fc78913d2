"""Units of series, images and audio: their size, their relevance, what is never one, and bad input."""

import pytest
import torch
from torch import nn
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    PatchTSTConfig,
    PatchTSTForClassification,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForSequenceClassification,
)

from hf_challenger import ChallengeOptions, Challenger, ChallengerError
from hf_challenger.inputs import Audio, Patches, Series, units_for
from hf_challenger.logits import logits_of


class Model(nn.Module):
    def __init__(self, config=None):
        super().__init__()
        self.config = config

    def forward(self, past_values): ...


class Images(Model):
    def forward(self, pixel_values): ...


def test_relevance_of_a_window_is_summed_over_steps_and_channels():
    relevance = torch.randn(2, 7, 3, dtype=torch.float64)
    found = Series(Model(), unit_size=3).per_unit(relevance)
    wanted = torch.stack([relevance[:, a:b].sum((1, 2)) for a, b in ((0, 3), (3, 6), (6, 7))], 1)
    torch.testing.assert_close(found, wanted)


def test_relevance_of_a_patch_is_that_of_its_pixels_also_at_ragged_edges():
    relevance = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    found = Patches(Images(), unit_size=4).per_unit(relevance)
    for i, rows in enumerate((slice(0, 4), slice(4, 5))):
        for j, columns in enumerate((slice(0, 4), slice(4, 7))):
            torch.testing.assert_close(found[:, i, j], relevance[:, :, rows, columns].sum((1, 2, 3)))


def test_padded_steps_are_never_units_however_the_padding_is_told():
    x = torch.randn(2, 8, 2)
    steps = torch.tensor([[1] * 8, [1] * 3 + [0] * 5])
    wanted = [[True] * 4, [True, True, False, False]]
    units = Series(Model(), unit_size=2)
    whole = steps.unsqueeze(-1).expand_as(x)
    for told in (
        {"past_observed_mask": whole},
        {"past_observed_mask": steps},
        {"attention_mask": steps},
        {"lengths": steps.sum(1)},
    ):
        inputs = {"past_values": x, **told}
        assert units.maskable(inputs).tolist() == wanted
        hidden = units.hidden(inputs, torch.ones(2, 4, dtype=torch.bool))
        assert torch.equal(hidden, whole.bool())


@pytest.mark.parametrize(
    ("units", "x", "words"),
    [
        (Series(Model()), torch.full((2, 9, 1), float("nan")), r"NaN or infinite values in 2 of 2 rows.*past_observed_mask"),
        (Series(Model()), torch.randn(2, 1, 4), "single unit of 1: .*longer input"),
        (Series(Model(), unit_size=20), torch.randn(2, 12, 1), "challenge_unit_size to 6 or less"),
        (Series(Model()), torch.randn(2, 3, 4, 5), r"a series is \(rows, time, channels\)"),
        (Patches(Images()), torch.zeros(2, 8, 8, 3), r"Channels go first: x.permute\(0, 3, 1, 2\)"),
        (Patches(Images()), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"uint8; relevance needs floats.*x.float\(\) / 255"),
        (Patches(Images(), unit_size=8), torch.zeros(2, 3, 8, 8), "challenge_unit_size to 4 or less"),
    ],
)
def test_bad_input_is_named_with_the_fix(units, x, words):
    with pytest.raises(ChallengerError, match=words):
        units.maskable({units.key: x})


def test_a_mask_of_another_shape_is_named():
    with pytest.raises(ChallengerError, match=r"past_observed_mask has shape \(2, 4\)"):
        Series(Model()).maskable({"past_values": torch.zeros(2, 8, 1), "past_observed_mask": torch.ones(2, 4)})


def patchtst():
    sizes = {"d_model": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32}
    config = PatchTSTConfig(num_input_channels=2, context_length=24, num_targets=3, patch_length=4, patch_stride=4, **sizes)
    return PatchTSTForClassification(config), {"past_values": torch.randn(12, 24, 2)}, (6,)


def vit():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}
    model = ViTForImageClassification(ViTConfig(image_size=12, patch_size=4, num_channels=1, **sizes))
    return model, {"pixel_values": torch.randn(12, 1, 12, 12)}, (3, 3)


def tones(rows, samples=8000, rate=16000):
    """One tone a row for half a second, each of another pitch, in noise."""
    time = torch.arange(samples) / rate
    return torch.stack([torch.sin(2 * torch.pi * 220 * (1 + i % 3) * time) for i in range(rows)]) + 0.05 * torch.randn(
        rows, samples
    )


def wav2vec2():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}
    convolutions = {
        "conv_dim": (16, 16, 16),
        "conv_stride": (10, 8, 4),
        "conv_kernel": (10, 8, 4),
        "num_feat_extract_layers": 3,
    }
    more = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2, "classifier_proj_size": 16}
    model = Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**sizes, **convolutions, **more, mask_time_prob=0.0))
    return model, {"input_values": tones(12)}, (25,)


def ast():
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}
    model = ASTForAudioClassification(ASTConfig(max_length=48, num_mel_bins=16, **sizes))
    spectrogram = torch.stft(tones(12, 6016), 256, 128, window=torch.hann_window(256), return_complex=True).abs()
    return model, {"input_values": spectrogram[:, :16, :48].transpose(1, 2).log1p()}, (24,)


@pytest.mark.parametrize("make", [patchtst, vit, wav2vec2, ast])
@pytest.mark.usefixtures("any_confidence")
def test_challenge_from_end_to_end_on_models_of_transformers(make):
    torch.manual_seed(0)
    model, inputs, grid = make()
    labels = torch.arange(12) % 3
    challenger = Challenger(model.train(), ChallengeOptions(challenge_share=0.7, challenge_selection="sample"))
    units = challenger.units
    found = units.maskable(inputs)
    assert found.shape[1:] == grid
    mixed = challenger.challenge(inputs, labels, step=0)
    assert 4 <= int(mixed.challenged.sum()) <= 12
    before, after = inputs[units.key], mixed.inputs[units.key]
    changed = after != before
    assert not (changed & ~units.hidden(inputs, mixed.drop_mask.unflatten(1, grid))).any()
    assert torch.equal(changed.flatten(1).any(1), mixed.challenged)
    loss = torch.nn.functional.cross_entropy(logits_of(model(**mixed.inputs)), labels)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_frames_lie_where_the_config_says():
    class Whisper(nn.Module):
        def __init__(self):
            super().__init__()
            self.config = type("Config", (), {"num_mel_bins": 80})()

        def forward(self, input_features): ...

    units = Audio(Whisper())
    assert units.axes(torch.zeros(1, 80, 300)) == (2,)
    assert units.axes(torch.zeros(1, 300, 80)) == (1,)


def test_the_patch_of_a_network_in_stages_is_a_share_of_the_image():
    stages = Images(type("Config", (), {"patch_size": 4, "depths": [1, 1]})())
    assert Patches(stages).size(torch.zeros(1, 3, 224, 224)) == (28, 28)
    assert Patches(Images()).size(torch.zeros(1, 1, 28, 28)) == (4, 4)
    assert units_for(stages).unit_size is None
