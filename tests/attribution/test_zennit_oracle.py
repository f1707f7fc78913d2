"""Relevances that zennit computed (zennit_relevances.py says how) are ours: its rules are the same as captum's and ours."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule, PropagationRule
from torch import nn
from zennit_relevances import COMPOSITE, FILE, network

from hf_challenger.attribution import LRP

PUBLISHED = json.loads(FILE.read_text())
# zennit's gamma also has terms for negative inputs and outputs, of which there are none here; its z+ drops the bias, which is 0.
OURS: dict[str, Callable[[], PropagationRule]] = {
    "epsilon": lambda: EpsilonRule(1e-6),
    "epsilon_large": lambda: EpsilonRule(0.05),
    "gamma": lambda: GammaRule(0.25),
    "zplus": Alpha1_Beta0_Rule,
}


@pytest.mark.parametrize("rule", [*OURS, COMPOSITE])
@pytest.mark.parametrize("name", ["linear", "convolutions"])
def test_relevance_is_what_zennit_computed(name: str, rule: str) -> None:
    model, x = network(name)
    for module in model:
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            of_layer = ("zplus" if isinstance(module, nn.Conv2d) else "epsilon") if rule == COMPOSITE else rule
            module.rule = OURS[of_layer]()  # type: ignore[assignment]
    expected = torch.tensor(PUBLISHED[f"{name}-{rule}"], dtype=torch.float64)
    found = LRP(model).attribute(x, target=model(x).argmax(1))
    assert expected.abs().max() > 0
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_the_rules_differ() -> None:
    maps = [torch.tensor(PUBLISHED[f"convolutions-{rule}"]) for rule in (*OURS, COMPOSITE)]
    assert all((a - b).abs().max() > 1e-3 * a.abs().max() for i, a in enumerate(maps) for b in maps[i + 1 :])
