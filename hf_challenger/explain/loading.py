"""Saved classifiers, with checks that they are trained."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from ..command_line import check_task
from ..errors import ChallengerError


def load(name: str) -> tuple[nn.Module, Any]:
    """A saved classifier and its tokenizer.

    Args:
        name: a folder, or a name on the Hub.

    Raises:
        ChallengerError: where there is none, where it has no trained head, or where the tokenizer is empty.
    """
    try:
        head = _adapter_head(name)
        loaded, info = AutoModelForSequenceClassification.from_pretrained(name, output_loading_info=True, **head)
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ChallengerError(
            f"No text classifier could be loaded from {name!r} ({reason}). Give the folder that trainer.save_model() wrote, with"
            " its tokenizer, or a model's name on the Hub."
        ) from error
    if not getattr(loaded, "_hf_peft_config_loaded", False):  # an adapter's base model may be of any task
        check_task(name, getattr(loaded.config, "architectures", None) or [])
    missing = sorted(info["missing_keys"])
    if missing:
        raise ChallengerError(
            f"{name!r} holds no trained classification head (missing: {', '.join(missing[:3])}), so its answers would be random."
            " Fine-tune it first."
        )
    # Where the files are missing, transformers makes a tokenizer of special tokens only: every word would be unknown to it.
    if len(tokenizer) <= len(tokenizer.all_special_ids) < (getattr(loaded.config, "vocab_size", None) or 0):
        raise ChallengerError(
            f"{name!r} holds no tokenizer, or an empty one of {len(tokenizer)} special tokens. Save it into the folder"
            " (tokenizer.save_pretrained), or train with processing_class=tokenizer, which saves it with the model."
        )
    return loaded, tokenizer


def _adapter_head(name: str) -> dict[str, Any]:
    """``num_labels`` of a PEFT folder, whose base model's config does not know it: as many as its saved head has outputs.

    Empty for other folders, and for names on the Hub. Class names come from a config.json beside the adapter, if there is one.
    """
    folder = Path(name)
    weights = folder / "adapter_model.safetensors"
    if not (folder / "adapter_config.json").is_file() or not weights.is_file():
        return {}
    if (folder / "config.json").is_file():
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("id2label"):
            names = {int(i): label for i, label in config["id2label"].items()}
            return {"num_labels": len(names), "id2label": names, "label2id": {label: i for i, label in names.items()}}
    with safe_open(weights, "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    heads = [
        k for k in shapes if re.search(r"\b(classifier|score|classification_head)\b.*\bweight$", k) and ".lora_" not in k
    ]
    outputs = [k for k in heads if "dense" not in k]
    return {"num_labels": shapes[outputs[-1]][0]} if outputs else {}
