"""What is hidden is not read: by no model family, whatever its layers make of an attention mask."""

from types import SimpleNamespace

import pytest
import torch
from families import build, build_batch, families, special

from hf_challenger.challenge.perturbation import perturbation_for
from hf_challenger.inputs import Tokens

# Decoders of encoder-decoders get the ids as their own inputs; convolutions and pooling look past an attention mask.
SOME = ["bart", "t5", "mbart", "convbert", "nystromformer", "canine", "bert", "gpt2"]
ALL = [
    pytest.param(name, marks=() if name in SOME else pytest.mark.families)
    for name in families("text")
    if not special("text", name).broken
]


def of_family(name, mask_token):
    """A tiny model, a batch for it, and its adapter with a tokenizer whose filler is its mask token or its unknown token."""
    model = build("text", name)
    tokenizer = SimpleNamespace(all_special_ids=[], unk_token_id=9, mask_token_id=8 if mask_token else None, pad_token_id=0)
    return model, build_batch("text", name, model), Tokens(model, tokenizer)


@pytest.mark.parametrize("mask_token", [True, False])
@pytest.mark.parametrize("family", ALL)
def test_what_a_hidden_token_was_moves_no_logit(family, mask_token):
    model, batch, tokens = of_family(family, mask_token)
    if not (mask_token or tokens.takes_attention_mask):
        pytest.skip("refused: there is no way to hide a word")
    hide = perturbation_for("auto", tokens)

    def logits(word, hidden):
        inputs = {**batch, "input_ids": batch["input_ids"].clone()}
        inputs["input_ids"][:, 4] = word
        drop_mask = torch.zeros_like(inputs["input_ids"], dtype=torch.bool)
        drop_mask[:, 4] = hidden
        with torch.no_grad():
            return model(**hide(inputs, drop_mask, tokens, None)).logits

    torch.testing.assert_close(logits(50, True), logits(60, True), rtol=0, atol=0)
    assert (logits(50, False) - logits(60, False)).abs().max() > 1e-6
