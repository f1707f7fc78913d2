"""Attribution leaves everything as it was, also when the model raises midway."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

from hf_challenger.attribution import LRP
from hf_challenger.attribution.interception import Interception


class Restless(nn.Module):
    """Draws, normalises by batch, drops out, counts its calls; raises if told to."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.norm = nn.BatchNorm1d(8)
        self.dropout = nn.Dropout(0.5)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.classifier = nn.Linear(8, 3)
        self.raises = False

    def forward(self, input_ids: Tensor) -> Tensor:
        torch.rand(1), np.random.rand(), random.random()
        x = self.frozen(self.norm(self.embedding(input_ids).mean(1)))
        if self.raises:
            raise RuntimeError("midway")
        return self.classifier(self.dropout(torch.tanh(x)))


def snapshot(model: nn.Module) -> dict[str, Any]:
    return {
        "weights and buffers": copy.deepcopy(model.state_dict()),
        "gradients": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "training": [m.training for m in model.modules()],
        "checkpointing": [getattr(m, "gradient_checkpointing", None) for m in model.modules()],
        "hooks": [[list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)] for m in model.modules()],
        "attributes": [sorted(vars(m)) for m in model.modules()],
        "torch": torch.get_rng_state(),
        "numpy": [np.random.get_state()[1].copy(), np.random.get_state()[2]],
        "python": torch.tensor(random.getstate()[1]),
        "grad mode": torch.is_grad_enabled(),
        "autocast": [torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")],
        "modes": torch._C._len_torch_function_stack(),
    }


def assert_same(before: Any, after: Any, what: str = "") -> None:
    if isinstance(before, dict):
        assert before.keys() == after.keys()
        for key in before:
            assert_same(before[key], after[key], f"{what}/{key}")
    elif isinstance(before, (list, tuple)):
        assert len(before) == len(after), what
        for i, (old, new) in enumerate(zip(before, after, strict=True)):
            assert_same(old, new, f"{what}/{i}")
    elif isinstance(before, Tensor):
        assert torch.equal(before, after), what
    elif isinstance(before, np.ndarray):
        assert (before == after).all(), what
    else:
        assert before == after, what


IDS = torch.randint(1, 20, (4, 6), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model() -> Restless:
    torch.manual_seed(0)
    model = Restless().train()
    model.norm.eval()  # modes of their own: not every module trains, not every parameter learns
    model.classifier.bias.requires_grad_(False)
    model(IDS).square().sum().backward()
    return model


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("composite", ["attnlrp", "cp_lrp", "gradient"])
def test_a_model_keeps_its_modes_flags_gradients_buffers_and_the_random_states(
    model: Restless, composite: str, raises: bool
) -> None:
    model.norm.train()
    model.raises = raises
    before = snapshot(model)
    if raises:
        with pytest.raises(RuntimeError, match="midway"):
            LRP(model, composite).attribute(IDS, target=1)
    else:
        LRP(model, composite).attribute(IDS, target=1)
    assert_same(before, snapshot(model))


def bert(**options: Any) -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=20, num_labels=3, hidden_act="gelu_new", **sizes, **options))


def broken(model: nn.Module) -> Callable[[], None]:
    """Makes the classifier raise, after everything else has run."""

    def refuse(*_: Any) -> None:
        raise RuntimeError("midway")

    return model.classifier.register_forward_pre_hook(refuse).remove


@pytest.mark.parametrize("raises", [False, True])
def test_gradient_checkpointing_is_off_during_the_pass_and_on_afterwards(raises: bool) -> None:
    model = bert().train()
    plain = LRP(model).attribute({"input_ids": IDS}, target=1)
    model.gradient_checkpointing_enable()
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    repair = broken(model) if raises else lambda: None
    before = snapshot(model)
    if raises:
        with pytest.raises(RuntimeError, match="midway"):
            LRP(model).attribute({"input_ids": IDS}, target=1)
    else:
        assert torch.equal(LRP(model).attribute({"input_ids": IDS}, target=1), plain)
    assert_same(before, snapshot(model))
    repair()
    model(input_ids=IDS, labels=torch.zeros(4, dtype=torch.long)).loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_neftune_adds_no_noise_and_its_hook_stays() -> None:
    model = bert().train()
    plain = LRP(model).attribute({"input_ids": IDS}, target=1)
    embedding = model.get_input_embeddings()
    embedding.neftune_noise_alpha = 5.0

    def neftune(module: nn.Module, _: Any, output: Tensor) -> Tensor:
        return output + torch.rand_like(output) if module.training else output

    handle = embedding.register_forward_hook(neftune)
    before = snapshot(model)
    assert torch.equal(LRP(model).attribute({"input_ids": IDS}, target=1), plain)
    assert_same(before, snapshot(model))
    with torch.no_grad():
        assert not torch.equal(embedding(IDS), embedding(IDS))
    handle.remove()


def test_autocast_around_it_stays_and_applies() -> None:
    model = bert()
    plain = LRP(model).attribute({"input_ids": IDS}, target=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = snapshot(model)
        relevance = LRP(model).attribute({"input_ids": IDS}, target=1)
        assert_same(before, snapshot(model))
    assert not torch.equal(relevance, plain)
    assert torch.corrcoef(torch.stack([relevance.flatten(), plain.flatten()]))[0, 1] > 0.99


def test_training_goes_on_as_if_nothing_had_been_attributed() -> None:
    def losses(attribute: bool) -> list[float]:
        model = bert().train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        torch.manual_seed(1)
        found = []
        for _ in range(3):
            if attribute:
                LRP(model).attribute({"input_ids": IDS}, target=1)
            loss = model(input_ids=IDS, labels=torch.tensor([0, 1, 2, 0])).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            found.append(loss.item())
        return found

    assert losses(attribute=True) == losses(attribute=False)


def test_it_works_and_changes_nothing_under_no_grad() -> None:
    model = bert()
    with torch.no_grad():
        relevance = LRP(model).attribute({"input_ids": IDS}, target=1)
        assert not torch.is_grad_enabled()
    assert torch.equal(relevance, LRP(model).attribute({"input_ids": IDS}, target=1))
    assert not relevance.requires_grad


def test_an_attention_bias_cache_is_not_filled_by_attribution() -> None:
    class Levit(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.ones(3))
            self.attention_bias_cache: dict[str, Tensor] = {}

        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                return x * self.bias
            return x * self.attention_bias_cache.setdefault("bias", 1 * self.bias)

    model = Levit().train()
    LRP(model).attribute(torch.ones(2, 3), target=1)
    assert model.attention_bias_cache == {}


def test_operations_are_seen_only_inside_the_with() -> None:
    x = torch.ones(3, requires_grad=True)
    plain = torch.autograd.grad((x * x).sum(), x)[0]
    with pytest.raises(RuntimeError, match="midway"), Interception(LRP(nn.Identity()).composite):
        raise RuntimeError("midway")
    assert torch.equal(torch.autograd.grad((x * x).sum(), x)[0], plain)
