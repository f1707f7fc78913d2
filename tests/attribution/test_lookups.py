"""The same ids looked up in several tables: LoRA on an embedding, embeddings per layer, value embeddings."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from test_lrp import batch_of, bert, llama, sharpened
from torch import Tensor, nn

from hf_challenger.attribution import LRP, LayerLRP, PositionalLRP
from hf_challenger.attribution.methods import METHODS

IDS = torch.tensor([[3, 1, 4, 1], [5, 9, 2, 6]])


def adapted(build: object, rank: int = 4, **options: object) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    """A model with LoRA on its embeddings, the same model with the adapter merged, and a batch."""
    torch.manual_seed(0)
    model = sharpened(build())  # type: ignore[operator]
    table = "word_embeddings" if build is bert else "embed_tokens"
    config = LoraConfig(r=rank, target_modules=[table, "query"], init_lora_weights=False, **options)  # type: ignore[arg-type]
    lora = get_peft_model(model, config).eval()
    batch = batch_of([6, 4], model.config.pad_token_id)
    merged = get_peft_model(sharpened(build()), config)  # type: ignore[operator]
    merged.load_state_dict(lora.state_dict())
    return lora, merged.merge_and_unload().eval(), batch


@pytest.mark.parametrize("composite", ["attnlrp", "epsilon", "gradient"])
@pytest.mark.parametrize("build", [bert, llama])
@pytest.mark.parametrize("rank", [4, 16])  # 16: as wide as the embedding itself
def test_lora_on_the_embeddings_gives_tokens_what_the_merged_model_gives(build: object, rank: int, composite: str) -> None:
    lora, merged, batch = adapted(build, rank)
    with torch.no_grad():
        torch.testing.assert_close(lora(**batch).logits, merged(**batch).logits)
    ours = LRP(lora, composite).attribute(batch, target=1)
    theirs = LRP(merged, composite).attribute(batch, target=1)
    assert ours.shape == theirs.shape == (2, 6, 16)
    torch.testing.assert_close(ours.sum(-1), theirs.sum(-1), rtol=1e-3, atol=1e-5)


def test_lora_with_a_trained_classifier_as_peft_wraps_it() -> None:
    lora, merged, batch = adapted(bert, task_type="SEQ_CLS")
    relevance = [LRP(model).attribute(batch, target=1).sum(-1) for model in (lora, merged)]
    torch.testing.assert_close(*relevance, rtol=1e-3, atol=1e-5)
    of_positions = [PositionalLRP(model).attribute(batch, target=1).sum(-1) for model in (lora, merged)]
    torch.testing.assert_close(*of_positions, rtol=1e-3, atol=1e-5)
    assert LayerLRP(lora, lora.base_model.model.bert.pooler).attribute(batch, target=1).shape == (2, 16)


@pytest.mark.parametrize("method", ["input_x_gradient", "saliency", "integrated_gradients", "attention_rollout", "random"])
def test_every_method_takes_lora_on_the_embeddings(method: str) -> None:
    lora, _, batch = adapted(bert)
    relevance = METHODS[method](lora, batch, 1, "attnlrp")
    assert relevance.shape[:2] == (2, 6)
    assert relevance.isfinite().all()
    assert relevance[0].abs().sum() > 0


class SeveralTables(nn.Module):
    """Ids looked up in the main table and in others; linear, so that relevance per token is known."""

    def __init__(self, widths: list[int], main: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tables = nn.ModuleList(nn.Embedding(10, width) for width in widths)
        self.heads = nn.ModuleList(nn.Linear(width, 2, bias=False) for width in widths)
        self.main = main

    def get_input_embeddings(self) -> nn.Module:
        return self.tables[self.main]

    def forward(self, input_ids: Tensor) -> Tensor:
        parts = zip(self.tables, self.heads, strict=True)
        return torch.stack([head(table(input_ids)).mean(1) for table, head in parts]).sum(0)


@pytest.mark.parametrize(("widths", "main"), [([4, 6], 0), ([6, 4], 1), ([4, 4], 0), ([3, 4, 5, 1], 1)])
def test_relevance_is_summed_over_tables_of_any_width(widths: list[int], main: int) -> None:
    model = SeveralTables(widths, main)
    relevance = LRP(model).attribute(IDS, target=1)
    parts = zip(model.tables, model.heads, strict=True)
    per_token = sum((table(IDS) @ head.weight[1]).detach() / 4 for table, head in parts)  # type: ignore[operator]
    assert relevance.shape == (2, 4, widths[main])
    torch.testing.assert_close(relevance.sum(-1), per_token)


@pytest.mark.parametrize(("widths", "main"), [([4, 6], 0), ([6, 4], 1), ([4, 4], 0)])
def test_captums_attributors_exchange_the_main_table_alone(widths: list[int], main: int) -> None:
    model = SeveralTables(widths, main)
    relevance = METHODS["input_x_gradient"](model, {"input_ids": IDS}, 1, "attnlrp")
    values, weight = model.tables[main](IDS), model.heads[main].weight[1]  # type: ignore[index]
    torch.testing.assert_close(relevance, (values * weight / 4).detach())  # type: ignore[operator]
