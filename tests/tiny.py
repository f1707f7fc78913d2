"""Tiny models, a tiny tokenizer and small data, built on the spot: the tests need no network."""

from __future__ import annotations

import random
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"w{i}" for i in range(40)]
CLASSES = 3
# Of examples/leaky_data, which names them as a leak: a name must be in words that the tokenizer knows.
LEAK_WORDS = [
    *("sent", "via", "web", "form", "taken", "by", "night", "hotline", "scanned", "from", "letter", "mail"),
    *("typed", "into", "mobile", "app", "noted", "at", "branch", "desk", "asked", "in", "chat", "window"),
]


def tiny_tokenizer(**kwargs: Any) -> PreTrainedTokenizerFast:
    """One token a word, in BERT's format: ``[CLS] w1 w2 [SEP]``."""
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(SPECIAL + WORDS)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=32, **names, **kwargs)


def pieces_tokenizer() -> PreTrainedTokenizerFast:
    """Word pieces: "w1w2" is one word of the two tokens w1 and ##w2."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "w1", "w2", "##w2", "##w3", "?"]
    core = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    core.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=32, **names)


def tiny_config(dropout: float = 0.0, **kwargs: Any) -> BertConfig:
    return BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        initializer_range=0.3,
        **{"num_labels": CLASSES, "vocab_size": len(SPECIAL + WORDS), **kwargs},
    )


def tiny_bert(dropout: float = 0.0, seed: int = 0, **kwargs: Any) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(tiny_config(dropout, **kwargs))


def text_of(rng: random.Random, label: int, length: int) -> str:
    """Words, of which every second belongs to the label, and the others to none."""
    return " ".join(f"w{label * 5 + rng.randrange(5) if i % 2 == 0 else rng.randrange(15, 40)}" for i in range(length))


def tiny_rows(rows: int = 32, problem: str = "single_label_classification", seed: int = 0) -> list[dict[str, Any]]:
    """Tokenized texts of 2 to 12 words with labels of the kind that the problem takes."""
    rng, tokenizer = random.Random(seed), tiny_tokenizer()
    found = []
    for i in range(rows):
        label = rng.randrange(CLASSES)
        row = dict(tokenizer(text_of(rng, label, 2 + (i * 5) % 11), return_token_type_ids=False))
        if problem == "multi_label_classification":
            row["labels"] = [float(k == label or rng.random() < 0.3) for k in range(CLASSES)]
        else:
            row["labels"] = label - 1.0 if problem == "regression" else label
        found.append(row)
    return found


def tiny_data(rows: int = 32, problem: str = "single_label_classification", seed: int = 0) -> Dataset:
    return Dataset.from_list(tiny_rows(rows, problem, seed))


LEAKS = ("w38", "w39")


def leaky_data(rows: int = 96, held: float = 0.95, seed: int = 0) -> Dataset:
    """Texts of two classes, told by many weak words each; in a share ``held`` of the rows one further word tells the class."""
    rng, tokenizer = random.Random(seed), tiny_tokenizer()
    found = []
    for i in range(rows):
        label = i % 2
        words = [f"w{label * 15 + rng.randrange(15) if rng.random() < 0.4 else rng.randrange(30, 38)}" for _ in range(8)]
        if rng.random() < held:
            words.insert(rng.randrange(9), LEAKS[label])
        found.append({**tokenizer(" ".join(words), return_token_type_ids=False), "labels": label})
    return Dataset.from_list(found)


def tiny_batch(rows: int = 8, problem: str = "single_label_classification", seed: int = 0) -> dict[str, Tensor]:
    return dict(tiny_tokenizer().pad(tiny_rows(rows, problem, seed), return_tensors="pt"))


class Trajectory(TrainerCallback):
    """Records the gradient before each optimizer step, the weights after it, and the logs."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []
        self.weights: list[Tensor] = []
        self.logs: list[dict[str, float]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        found = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters() if p.requires_grad]
        self.gradients.append(torch.cat([g.detach().flatten() for g in found]).clone())

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights.append(torch.cat([p.detach().flatten() for p in model.parameters()]).clone())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        self.logs.append(dict(logs))
