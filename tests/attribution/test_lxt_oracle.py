"""Relevances that LXT computed (lxt_relevances.py says how) are ours, where its rules are ours: on decoders of transformers.

LXT 2.1 cannot import its BERT with transformers 5 (find_pruneable_heads_and_indices is gone), so that no encoder is compared.
"""

from __future__ import annotations

import json

import pytest
import torch
from lxt_relevances import CASES, FILE, LABELS, classifier

from hf_challenger.attribution import LRP

PUBLISHED = json.loads(FILE.read_text())
OURS = {"attnLRP": "attnlrp", "cp_LRP": "cp_lrp"}


@pytest.mark.parametrize(("name", "rules"), CASES)
def test_relevance_is_what_lxt_computed(name: str, rules: str) -> None:
    model, ids = classifier(name)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    expected = torch.tensor(PUBLISHED[f"{name}-{rules}"], dtype=torch.float64)
    found = LRP(model, composite=OURS[rules]).attribute(batch, target=LABELS).sum(-1)
    assert (found - expected).abs().max() <= 1e-6 * expected.abs().max()  # LXT computes its norms of Llama in float32
    other = LRP(model, composite="gradient").attribute(batch, target=LABELS).sum(-1)
    assert (other - expected).abs().max() > 0.1 * expected.abs().max()
