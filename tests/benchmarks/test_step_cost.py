"""benchmarks/step_cost.py: a stretch of steps holds the share of attributing steps that the rate says."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import pytest

from hf_challenger.challenge.challenger import ATTRIBUTED, ATTRIBUTED_SETTLED, STEPS
from hf_challenger.keyed_random import keyed_uniform

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from step_cost import step_numbers


@pytest.mark.parametrize("share", [ATTRIBUTED, ATTRIBUTED_SETTLED])
def test_a_stretch_holds_the_share_of_attributing_steps_that_the_rate_says(share: float) -> None:
    seed, steps = 42, 24
    numbers = list(islice(step_numbers(seed, share), 2 * steps))
    assert len(set(numbers)) == 2 * steps
    for stretch in (numbers[:steps], numbers[steps:]):
        assert sum(float(keyed_uniform(seed, STEPS, n)) < share for n in stretch) == round(share * steps)
