"""Random bad batches: a step, an error that names the cause, or Trainer's own; never a silent NaN or a changed model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import CLASSES, tiny_bert
from torch import Tensor
from transformers import Trainer

from hf_challenger import ChallengerError, ChallengerTrainer

PAD, UNK, CLS, SEP, MASK = range(5)
VOCABULARY, LONGEST = 45, 32
PROBLEMS = {"single_label_classification": CLASSES, "multi_label_classification": CLASSES, "regression": 1}

word = st.integers(MASK + 1, VOCABULARY - 1)
texts = st.one_of(
    st.just([CLS, SEP]),  # an empty string
    st.lists(st.sampled_from([PAD, UNK, CLS, SEP, MASK]), min_size=1, max_size=8),  # nothing but special tokens
    st.lists(word, min_size=1, max_size=1),  # a single token, not even [CLS]
    st.lists(word, min_size=LONGEST - 2, max_size=LONGEST - 2).map(lambda ids: [CLS, *ids, SEP]),  # the longest
    st.lists(word, min_size=1, max_size=10).map(lambda ids: [CLS, *ids, SEP]),
    st.just([]),  # nothing but padding, or nothing at all
    st.just([CLS, VOCABULARY + 3, SEP]),  # another model's token
)
whole_labels = st.sampled_from([0, 1, 2, 0, 1, 2, -100, -1, 7])
float_labels = st.sampled_from([0.0, 1.0, 0.0, 1.0, -100.0, 1e30, math.nan, math.inf])


@st.composite
def batches(draw: Any) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """A problem type, a batch of one to five rows, and challenge options."""
    problem = draw(st.sampled_from(sorted(PROBLEMS)))
    rows = draw(st.lists(texts, min_size=1, max_size=5))
    length = max(map(len, rows))
    left = draw(st.booleans())
    pads = [[PAD] * (length - len(row)) for row in rows]
    ids = torch.tensor([p + r if left else r + p for r, p in zip(rows, pads, strict=True)], dtype=torch.long)
    ones = [[0] * len(p) + [1] * len(r) if left else [1] * len(r) + [0] * len(p) for r, p in zip(rows, pads, strict=True)]
    batch = {"input_ids": ids.reshape(len(rows), length)}
    mask = draw(st.sampled_from(["long", "bool", "absent", "nan", "zeros"]))
    if mask != "absent":
        attention = torch.tensor(ones, dtype=torch.long).reshape(len(rows), length)
        attention = attention * 0 if mask == "zeros" else attention
        dtype = {"bool": torch.bool, "nan": torch.float32}.get(mask, torch.long)
        batch["attention_mask"] = attention.to(dtype)
        if mask == "nan" and attention.numel():
            batch["attention_mask"][0, 0] = math.nan
    if draw(st.booleans()):
        integers = [torch.int8, torch.int16, torch.int32, torch.int64]
        kind: Any = draw(st.sampled_from(integers)) if problem == "single_label_classification" else torch.float32
    else:
        kind = draw(st.sampled_from([torch.int64, torch.float32, torch.float64]))
    values = whole_labels if not kind.is_floating_point else float_labels
    width = draw(st.sampled_from([PROBLEMS[problem]] * 3 + [1, 2]))
    flat = draw(st.lists(values, min_size=len(rows) * width, max_size=len(rows) * width))
    labels = torch.tensor(flat, dtype=kind).reshape(len(rows), width)
    flatten = problem != "multi_label_classification" or draw(st.booleans())
    batch["labels"] = labels[:, 0] if flatten else labels
    options = {
        "challenge_share": draw(st.sampled_from([0.5, 1.0])),
        "challenge_rate": draw(st.sampled_from([0.01, 0.3, 1.0])),
        "challenge_selection": draw(st.sampled_from(["cues", "sample", "top", "random"])),
        "challenge_perturbation": draw(st.sampled_from(["attention", "mask"])),
        "challenge_attribution": draw(st.sampled_from(["lrp", "lrp", "input_x_gradient"])),
    }
    return problem, batch, options


def state_of(model: torch.nn.Module) -> tuple[Any, ...]:
    return (
        {name: value.clone() for name, value in model.state_dict().items()},
        [(p.requires_grad, p.grad) for p in model.parameters()],
        [m.training for m in model.modules()],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()],
        torch.get_rng_state(),
    )


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return all(same(a[k], b[k]) for k in a)
    return a == b if not isinstance(a, (tuple, list)) else all(same(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture
def trainers(trainer: Callable[..., ChallengerTrainer]) -> dict[str, ChallengerTrainer]:
    return {name: trainer(model=tiny_bert(problem_type=name, num_labels=width)) for name, width in PROBLEMS.items()}


tally: dict[str, int] = {}


def check(trainers: dict[str, ChallengerTrainer], case: tuple[str, dict[str, Tensor], dict[str, Any]]) -> None:
    problem, batch, options = case
    run = trainers[problem]
    for name, value in options.items():
        setattr(run.args, name, value)
    given = {name: value.clone() for name, value in batch.items()}
    model = run.model.train()
    before = state_of(model)
    try:
        loss = run.compute_loss(model, batch)
    except ChallengerError as error:
        outcome = re.sub(r"[-\d.]+|\(.*?\)|nan|inf\b", "…", str(error))[:60]
    except Exception as error:  # the model's own loss: Trainer would end so as well
        with pytest.raises(type(error), match=re.escape(str(error)[:40])):
            Trainer.compute_loss(run, model, {name: value.clone() for name, value in given.items()})
        outcome = f"as Trainer: {type(error).__name__} {error}"
    else:
        outcome = "step"
        assert loss.isfinite()
        loss.backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        assert not given["labels"].isnan().any()
        model.zero_grad(set_to_none=True)
    assert outcome == "step" or len(outcome) > 30
    tally[outcome] = tally.get(outcome, 0) + 1
    assert same(state_of(model), before)
    assert all(
        torch.equal(batch[k].nan_to_num(), v.nan_to_num()) for k, v in given.items()
    )  # the caller's batch is untouched


SLOW_IS_FINE = (HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large)


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=SLOW_IS_FINE)
@given(case=batches())
def test_bad_batches(trainers: dict[str, ChallengerTrainer], case: Any) -> None:
    check(trainers, case)


@pytest.mark.faults
def test_thousands_of_bad_batches(trainers: dict[str, ChallengerTrainer]) -> None:
    tally.clear()

    @settings(max_examples=2500, deadline=None, suppress_health_check=SLOW_IS_FINE)
    @given(case=batches())
    def many(case: Any) -> None:
        check(trainers, case)

    many()
    print(dict(sorted(tally.items(), key=lambda item: -item[1])))
    assert sum(tally.values()) >= 2000
    assert tally["step"] > 200
    assert len(tally) > 3
