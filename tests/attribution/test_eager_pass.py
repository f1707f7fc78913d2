"""Inference mode, compiled models, activation checkpoints: left for the pass, or refused by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from captum.attr._utils.lrp_rules import GammaRule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from hf_challenger.attribution import LRP, LayerLRP, contrastive, rule_coverage
from hf_challenger.attribution.methods import METHODS
from hf_challenger.errors import ChallengerError, ChallengerWarning

IDS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])


class Classifier(nn.Module):
    """Embeds ids, mixes with an activation, normalises."""

    main_input_name = "input_ids"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(10, 4)
        self.block = nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.LayerNorm(4))
        self.head = nn.Linear(4, 3)

    def run(self, x: Tensor) -> Tensor:
        return self.block(x)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.run(self.table(input_ids))
        x = x if attention_mask is None else x * attention_mask.unsqueeze(-1)
        return self.head(x.mean(1))


# --- inference mode ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [None, 1, torch.tensor([0, 2]), torch.rand(2, 3), contrastive(torch.tensor([0, 2]))])
def test_inference_mode_is_left_for_the_pass_and_is_back_afterwards(target: object) -> None:
    model = Classifier()
    batch = {"input_ids": IDS, "attention_mask": torch.ones(2, 4)}
    expected = LRP(model).attribute(batch, target=target)
    with torch.inference_mode():
        made_inside = {key: value.clone() for key, value in batch.items()}
        inside = target.clone() if isinstance(target, Tensor) else target
        assert torch.equal(LRP(model).attribute(made_inside, target=inside), expected)
        assert torch.is_inference_mode_enabled()
    assert torch.equal(LRP(model).attribute(made_inside, target=inside), expected)  # inference tensors, outside of it


@pytest.mark.parametrize("name", METHODS)
def test_every_method_works_in_inference_mode(name: str) -> None:
    torch.manual_seed(0)
    floats = name == "captum_lrp"
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)) if floats else Attending()
    batch = {"input": torch.rand(2, 4)} if floats else {"input_ids": IDS}
    expected = METHODS[name](model, batch, 1, "attnlrp")
    with torch.inference_mode():
        made_inside = {key: value.clone() for key, value in batch.items()}
        assert torch.equal(METHODS[name](model, made_inside, 1, "attnlrp"), expected)


class Attending(Classifier):
    def run(self, x: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(x[:, None], x[:, None], self.block(x)[:, None])[:, 0]


def test_additional_arguments_and_layers_in_inference_mode() -> None:
    model = Classifier()
    with torch.inference_mode():
        mask = torch.ones(2, 4)
        relevance = LRP(model).attribute(IDS, 1, mask)
        at_layer = LayerLRP(model, "block.0").attribute(IDS, 1, mask)
    assert torch.equal(relevance, LRP(model).attribute(IDS, 1, torch.ones(2, 4)))
    assert torch.equal(at_layer, LayerLRP(model, "block.0").attribute(IDS, 1))


def test_weights_made_in_inference_mode_are_named() -> None:
    with torch.inference_mode():
        model = Classifier()
    with pytest.raises(
        ChallengerError, match=r"table.weight of Classifier was made under torch.inference_mode.*outside of it"
    ):
        LRP(model).attribute(IDS, target=1)


# --- compiled code ----------------------------------------------------------------------------------------------------


def compiled_whole(model: Classifier) -> nn.Module:
    return torch.compile(model, backend="aot_eager")  # type: ignore[return-value]


def compiled_in_place(model: Classifier) -> nn.Module:
    model.compile(backend="aot_eager")
    return model


def compiled_part(model: Classifier) -> nn.Module:
    model.block = torch.compile(model.block, backend="aot_eager")  # type: ignore[assignment]
    return model


def compiled_function(model: Classifier) -> nn.Module:
    model.run = torch.compile(model.run, backend="aot_eager")  # type: ignore[method-assign]
    return model


@pytest.mark.parametrize("compiled", [compiled_whole, compiled_in_place, compiled_part, compiled_function])
def test_compiled_models_run_eagerly_in_the_pass(compiled: Callable[[Classifier], nn.Module]) -> None:
    expected = LRP(Classifier()).attribute(IDS, target=1)
    model = compiled(Classifier())
    logits = model(IDS)  # is compiled here
    rule_coverage._reported.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        assert torch.equal(LRP(model, strict=True).attribute(IDS, target=1), expected)
        assert torch.equal(LRP(model).attribute({"input_ids": IDS}, target=1), expected)
    torch.testing.assert_close(model(IDS), logits)


def test_a_compiled_module_keeps_its_captum_rule() -> None:
    model = Classifier()
    model.block[0].rule = GammaRule()
    expected = LRP(model).attribute(IDS, target=1)
    assert torch.equal(LRP(torch.compile(model, backend="aot_eager")).attribute(IDS, target=1), expected)  # type: ignore[arg-type]


# --- activation checkpoints -------------------------------------------------------------------------------------------


class Checkpointed(Classifier):
    def __init__(self, use_reentrant: bool, only_in_training: bool = False) -> None:
        super().__init__()
        self.use_reentrant, self.only_in_training = use_reentrant, only_in_training

    def run(self, x: Tensor) -> Tensor:
        if self.only_in_training and not self.training:
            return self.block(x)
        return checkpoint(self.block, x, use_reentrant=self.use_reentrant)


class Sequential(Checkpointed):
    def run(self, x: Tensor) -> Tensor:
        return checkpoint_sequential(self.block, 2, x, use_reentrant=self.use_reentrant)


def run_checkpointed(block: nn.Module, x: Tensor, use_reentrant: bool) -> Tensor:
    return checkpoint(block, x, use_reentrant=use_reentrant)


class Inner(nn.Module):
    def __init__(self, block: nn.Module, use_reentrant: bool) -> None:
        super().__init__()
        self.inner, self.use_reentrant = block, use_reentrant

    def forward(self, x: Tensor) -> Tensor:
        return torch.utils.checkpoint.checkpoint(lambda x: self.inner(x), x, use_reentrant=self.use_reentrant)


def within(use_reentrant: bool) -> nn.Module:
    model = Classifier()
    model.block = Inner(model.block, use_reentrant)  # type: ignore[assignment]
    return model


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize(("build", "name"), [(Checkpointed, "Checkpointed"), (Sequential, "Sequential"), (within, "Inner")])
@pytest.mark.parametrize("method", ["lrp", "input_x_gradient"])
def test_a_checkpoint_in_a_forward_is_refused_by_name(
    method: str, build: Callable[[bool], nn.Module], name: str, use_reentrant: bool
) -> None:
    model = build(use_reentrant)
    with pytest.raises(
        ChallengerError, match=rf"^{name} calls torch\.utils\.checkpoint in its forward.*`if self\.training:`"
    ):
        METHODS[method](model, {"input_ids": IDS}, 1, "attnlrp")
    model.train()(IDS).sum().backward()  # nothing of the refusal stays behind
    assert model.table.weight.grad is not None


def test_a_checkpoint_called_by_a_function_names_the_module_that_called_it() -> None:
    class Calls(Classifier):
        def run(self, x: Tensor) -> Tensor:
            return run_checkpointed(self.block, x, False)

    with pytest.raises(ChallengerError, match=r"^Calls calls torch\.utils\.checkpoint"):
        LRP(Calls()).attribute(IDS, target=1)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_the_way_out_leads_out(use_reentrant: bool) -> None:
    model = Checkpointed(use_reentrant, only_in_training=True).train()
    assert torch.equal(LRP(model).attribute(IDS, target=1), LRP(Classifier()).attribute(IDS, target=1))


def test_hooks_of_a_models_own_are_named_and_those_around_the_pass_do_no_harm() -> None:
    class Offloads(Classifier):
        def run(self, x: Tensor) -> Tensor:
            with torch.autograd.graph.save_on_cpu():
                return self.block(x)

    with pytest.raises(ChallengerError, match=r"^Offloads sets saved-tensors hooks"):
        LRP(Offloads()).attribute(IDS, target=1)
    expected = LRP(Classifier()).attribute(IDS, target=1)
    with torch.autograd.graph.save_on_cpu():
        assert torch.equal(LRP(Classifier()).attribute(IDS, target=1), expected)


def test_other_errors_of_a_model_stay_as_they_are() -> None:
    class Wrong(Classifier):
        def run(self, x: Tensor) -> Tensor:
            return x @ x

    with pytest.raises(RuntimeError, match=r"Expected size|size of tensor|shapes? cannot be"):
        LRP(Wrong()).attribute(IDS[:, :3], target=1)
