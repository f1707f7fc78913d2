"""Tiny random models of every classifier family in transformers, and a batch for each."""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig
from transformers.models.auto import modeling_auto

MAPPINGS = {
    "text": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    "image": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    "audio": modeling_auto.MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES,
    "series": modeling_auto.MODEL_FOR_TIME_SERIES_CLASSIFICATION_MAPPING_NAMES,
}
VOCABULARY = 96

# What config classes call their sizes. Applied to the config and to each sub-config, where the name exists.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "type_vocab_size": 2,
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "dim", "encoder_hidden_size", "embedding_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer", "num_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head", "num_heads", "encoder_attention_heads"), 4),
    **dict.fromkeys(("decoder_attention_heads",), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("intermediate_size", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "ffn_dim", "hidden_dim"), 48),
    **dict.fromkeys(("ffn_hidden_size", "moe_intermediate_size", "shared_expert_intermediate_size"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 64),
    **dict.fromkeys(("head_dim", "d_kv"), 8),
    **dict.fromkeys(("num_local_experts", "num_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "num_experts_per_token"), 2),
    "word_embed_proj_dim": 32,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "initializer_range": 0.2,
    "init_std": 0.2,
    "image_size": 32,
    "patch_size": 8,
}


@dataclass
class Family:
    """How to build one: what differs from the generic recipe, and what cannot be asked of it.

    Attributes:
        sizes: overrides of SIZES for this type; a dict for a sub-config.
        batch: extra entries of the batch, or replacements.
        no_padding: why padded positions may carry relevance.
        no_rules: why the check that rules were hit is narrower, by kind.
        skip: why it cannot be built or run at all.
    """

    sizes: dict[str, Any] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)
    no_padding: str = ""
    skip: str = ""


SPECIAL: dict[tuple[str, str], Family] = {}


def families(modality: str) -> list[str]:
    return list(MAPPINGS[modality])


def special(modality: str, name: str) -> Family:
    return SPECIAL.get((modality, name), Family())


def _shrunk(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    out = {k: v for k, v in SIZES.items() if k in config}
    for key, value in config.items():
        if isinstance(value, dict) and "model_type" in value:
            out[key] = {**_shrunk(value, overrides.get(key, {})), "model_type": value["model_type"]}
    for key, value in overrides.items():
        if not (isinstance(value, dict) and isinstance(out.get(key), dict)):
            out[key] = value
    return out


def build_config(modality: str, name: str) -> Any:
    overrides = special(modality, name).sizes
    default = AutoConfig.for_model(name)
    return AutoConfig.for_model(name, **{"num_labels": 3, **_shrunk(default.to_dict(), overrides)})


def build(
    modality: str, name: str, attn_implementation: str | None = None, seed: int = 0, variant: int = 0
) -> torch.nn.Module:
    """A tiny model in eval mode. ``variant`` picks among the classes that a type offers."""
    config = build_config(modality, name)
    class_name = MAPPINGS[modality][name]
    class_name = class_name if isinstance(class_name, str) else class_name[variant]
    module = type(config).__module__
    package = importlib.import_module(module.rsplit(".", 1)[0])
    model_class = getattr(package, class_name, None) or getattr(importlib.import_module("transformers"), class_name)
    torch.manual_seed(seed)
    how = {} if attn_implementation is None else {"attn_implementation": attn_implementation}
    model = model_class._from_config(config, **how).eval()
    with torch.no_grad():  # some initialise whole blocks to zero (a gate, a scale): nothing would flow
        for parameter in model.parameters():
            if parameter.numel() > 3 and parameter.dim() > 1 and not parameter.any():
                parameter.normal_(0, 0.2)
    return model


def build_batch(modality: str, name: str, model: torch.nn.Module) -> dict[str, Any]:
    """Two rows; text is padded in the second."""
    generator = torch.Generator().manual_seed(1)
    config: Any = model.config
    extra = special(modality, name).batch
    if modality == "text":
        length, short = 12, 8
        ids = torch.randint(5, VOCABULARY, (2, length), generator=generator)
        ids[0, -1] = ids[1, short - 1] = 2  # </s>: where BART reads its answer
        ids[1, short:] = 1
        mask = torch.ones(2, length, dtype=torch.long)
        mask[1, short:] = 0
        batch: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
    elif modality == "image":
        size = getattr(config, "image_size", None) or getattr(getattr(config, "vision_config", None), "image_size", 32)
        size = size if isinstance(size, int) else size[0]
        batch = {"pixel_values": torch.randn(2, getattr(config, "num_channels", 3), size, size, generator=generator)}
    elif modality == "audio":
        batch = {"input_values": torch.randn(2, 1600, generator=generator)}
    else:
        batch = {"past_values": torch.randn(2, config.context_length, config.num_input_channels, generator=generator)}
    return {**batch, **extra}
