"""NaN in series: refused, also at steps that a mask leaves out, since the models of transformers compute with these."""

import pytest
import torch
from torch import nn
from transformers import PatchTSTConfig, PatchTSTForClassification

from hf_challenger import ChallengeOptions, Challenger, ChallengerError
from hf_challenger.checks import check_inputs

MODEL = nn.Linear(1, 1)
UNOBSERVED = "in row 1 of the batch, at steps that {} marks as unobserved.*fill unobserved steps with 0"
OBSERVED = "in row 1 of the batch. Clean or impute"


@pytest.fixture
def patchtst():
    torch.manual_seed(0)
    sizes = {"d_model": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "ffn_dim": 8}
    config = PatchTSTConfig(num_input_channels=2, context_length=12, num_targets=3, patch_length=3, patch_stride=3, **sizes)
    return PatchTSTForClassification(config).eval()


def batch(fill):
    values = torch.randn(3, 12, 2, generator=torch.Generator().manual_seed(0))
    observed = torch.ones(3, 12, 2, dtype=torch.bool)
    observed[1, 9:] = False
    return {"past_values": values.masked_fill(~observed, fill), "past_observed_mask": observed}


def test_patchtst_computes_with_unobserved_steps(patchtst):
    """Why NaN is refused there; were this to change, they could be let through."""
    with torch.no_grad():
        assert patchtst(**batch(float("nan"))).prediction_logits.isnan().any(1).tolist() == [False, True, False]
        assert patchtst(**batch(0.0)).prediction_logits.isfinite().all()


@pytest.mark.parametrize("scaling", ["mean", None])
def test_so_it_does_with_other_scalers(patchtst, scaling):
    model = PatchTSTForClassification(patchtst.config.__class__(**{**patchtst.config.to_dict(), "scaling": scaling})).eval()
    with torch.no_grad():
        assert model(**batch(float("nan"))).prediction_logits[1].isnan().any()


def test_the_challenge_names_the_way_out_and_takes_it(patchtst, monkeypatch):
    monkeypatch.setattr("hf_challenger.challenge.challenger.SURE", 0.0)
    challenger = Challenger(patchtst, ChallengeOptions(challenge_share=1.0, challenge_selection="sample"))
    labels = torch.tensor([0, 1, 2])
    with pytest.raises(ChallengerError, match=UNOBSERVED.format("past_observed_mask")):
        challenger.challenge(batch(float("nan")), labels, step=0)
    mixed = challenger.challenge(batch(0.0), labels, step=0)
    assert mixed.challenged.all()
    assert not mixed.drop_mask[1, 3:].any(), "the last patch was never observed"


@pytest.mark.parametrize(
    ("key", "mask_shape", "words"),
    [
        ("past_observed_mask", (2, 4, 3), UNOBSERVED),
        ("past_observed_mask", (2, 4), UNOBSERVED),
        ("attention_mask", (2, 4), UNOBSERVED),
        ("attention_mask", (2, 7), OBSERVED),  # of something else
        ("position_mask", (2, 4), OBSERVED),  # not known to be one
    ],
)
def test_masks(key, mask_shape, words):
    values, mask = torch.zeros(2, 4, 3), torch.ones(mask_shape, dtype=torch.long)
    values[1, 3], mask[1, 3:] = float("nan"), 0
    with pytest.raises(ChallengerError, match=words.format(key)):
        check_inputs({"past_values": values, key: mask}, MODEL)
    mask[1, 3:] = 1
    with pytest.raises(ChallengerError, match=OBSERVED):
        check_inputs({"past_values": values, key: mask}, MODEL)


def test_channels_first_and_waveforms():
    values, mask = torch.zeros(2, 3, 4), torch.ones(2, 4, dtype=torch.bool)
    values[1, :, 3], mask[1, 3] = float("inf"), False
    with pytest.raises(ChallengerError, match=UNOBSERVED.format("attention_mask")):
        check_inputs({"x": values, "attention_mask": mask}, MODEL)
    with pytest.raises(ChallengerError, match=UNOBSERVED.format("attention_mask")):
        check_inputs({"input_values": values[:, 0], "attention_mask": mask}, MODEL)
