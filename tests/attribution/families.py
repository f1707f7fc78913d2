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
        no_padding: why padded positions carry relevance: the logits depend on them.
        broken: why it does not work.
        error: what then shows, a regular expression.
    """

    sizes: dict[str, Any] = field(default_factory=dict)
    batch: dict[str, Any] = field(default_factory=dict)
    no_padding: str = ""
    broken: str = ""
    error: str = ""


_LATENT = {
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "head_dim"), 8),
    "num_key_value_heads": 4,
}
_STAGES = {"depths": [1, 1, 1, 1], "image_size": 64}
_SWIN = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 4}
_DELTA = {
    "layer_types": ["linear_attention", "full_attention"],
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim"), 8),
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_PERCEIVER = {
    "d_latents": 32,
    "num_latents": 8,
    "num_self_attends_per_block": 2,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 4,
    "initializer_range": 0.05,
}
_WAV = {
    "conv_dim": [16, 16, 16],
    "conv_stride": [5, 2, 2],
    "conv_kernel": [10, 3, 3],
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 16,
}
_BOXES = {"bbox": torch.tensor([[[10, 12, 30, 20]]]).repeat(2, 12, 1)}

SPECIAL: dict[tuple[str, str], Family] = {
    ("text", "axk1"): Family({**_LATENT, "mlp_layer_types": ["dense", "sparse"], "n_group": 1, "topk_group": 1}),
    ("text", "axk2"): Family(
        {**_LATENT, "mlp_layer_types": ["dense", "sparse"], "layer_types": ["indexed_attention"] * 2, "index_head_dim": 8}
        | {"index_n_heads": 2, "index_topk": 64, "gated_norm_rank": 4}
    ),
    ("text", "big_bird"): Family({"attention_type": "original_full"}),
    ("text", "canine"): Family({"num_hash_buckets": 64, "num_hash_functions": 4, "upsampling_kernel_size": 3}),
    ("text", "cohere_compass_text"): Family(
        {
            "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 8,
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": 1e4} for kind in ("sliding_attention", "full_attention")
            },
        }
    ),
    ("text", "ctrl"): Family({"dff": 48}),
    ("text", "deepseek_v2"): Family({**_LATENT, "first_k_dense_replace": 1, "num_experts_per_tok": 2}),
    ("text", "deepseek_v3"): Family({**_LATENT, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1}),
    ("text", "esmc"): Family({"num_key_value_heads": 4}),
    ("text", "funnel"): Family({"block_sizes": [1, 1], "block_repeats": [1, 1], "d_head": 8, "d_inner": 48}),
    ("text", "gpt_neo"): Family({"attention_types": [[["global", "local"], 1]], "attention_layers": ["global", "local"]}),
    ("text", "gptj"): Family({"rotary_dim": 4}),
    ("text", "jamba"): Family(
        {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4, "mamba_d_state": 8, "layer_types": None}
    ),
    ("text", "jetmoe"): Family({"kv_channels": 8}),
    ("text", "layoutlm"): Family({"max_2d_position_embeddings": 64}, batch=_BOXES),
    ("text", "layoutlmv3"): Family(
        {"coordinate_size": 6, "shape_size": 4, "input_size": 16, "max_2d_position_embeddings": 64}, batch=_BOXES
    ),
    ("text", "layoutlmv2"): Family(broken="needs detectron2, which is not on PyPI", error="detectron2"),
    ("text", "lilt"): Family({"hidden_size": 48, "max_2d_position_embeddings": 64}, batch=_BOXES),
    ("text", "longformer"): Family({"attention_window": [8, 8]}),
    ("text", "luke"): Family({"entity_vocab_size": 50, "entity_emb_size": 16}),
    ("text", "minicpm3"): Family(_LATENT),
    ("text", "mistral4"): Family({**_LATENT, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "head_dim": 16}),
    ("text", "mobilebert"): Family(
        {"intra_bottleneck_size": 32, "initializer_range": 0.1},
        no_padding="each token is joined by its two neighbours, and the last one's neighbour is padding",
    ),
    ("text", "perceiver"): Family({**_PERCEIVER, "d_model": 32}),
    ("text", "qwen3_5"): Family({"text_config": {**_DELTA, "head_dim": 16}}),
    ("text", "qwen3_5_text"): Family({**_DELTA, "head_dim": 16}),
    ("text", "qwen3_next"): Family({**_DELTA, "head_dim": 16}),
    ("text", "reformer"): Family(
        {
            "attn_layers": ["local", "lsh"],
            "axial_pos_embds_dim": [16, 16],
            "axial_pos_shape": [4, 4],
            "local_attn_chunk_length": 4,
            "lsh_attn_chunk_length": 4,
            "num_buckets": 4,
            "hash_seed": 0,
            "attention_head_size": 8,
            "feed_forward_size": 48,
        },
        broken="its reversible layers refuse a backward pass outside training mode",
        error="model.train",
    ),
    ("text", "roc_bert"): Family({"pronunciation_vocab_size": 20, "shape_vocab_size": 20}),
    ("text", "t5"): Family({"decoder_start_token_id": 1}),
    ("text", "xlnet"): Family({"d_inner": 48}),
    ("text", "xmod"): Family({"default_language": "en_XX"}),
    ("text", "zamba"): Family(
        {
            "num_hidden_layers": 4,
            "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
            "attention_hidden_size": 64,
            "attention_head_dim": 16,
            "num_key_value_heads": 4,
            "mamba_dt_rank": 4,
            "mamba_d_state": 8,
        }
    ),
    ("text", "zamba2"): Family(
        {
            "num_hidden_layers": 3,
            "layers_block_type": ["linear_attention", "hybrid", "linear_attention"],
            "hybrid_layer_ids": [1],
            "attention_hidden_size": 64,
            "attention_head_dim": 16,
            "num_key_value_heads": 4,
            "n_mamba_heads": 4,
            "mamba_headdim": 16,
            "mamba_d_state": 8,
            "mamba_ngroups": 2,
            "chunk_size": 4,
            "adapter_rank": 4,
        }
    ),
    ("text", "convbert"): Family(no_padding="its convolutions reach over the end of a row into the padding"),
    ("text", "nystromformer"): Family(no_padding="its landmarks are means over all positions, padding included"),
    ("text", "mra"): Family(
        broken="its attention needs a CUDA kernel: without one, transformers returns zeros for it", error="no rule of kind"
    ),
    ("text", "yoso"): Family(
        broken="its attention is an autograd.Function, which no rule can see (a warning says so)",
        error="padding is relevant",
    ),
    ("series", "patchtst"): Family({"num_targets": 3}),
    ("series", "patchtsmixer"): Family({"num_targets": 3}),
    ("text", "fnet"): Family(no_padding="FNet takes no attention mask: padding is input like any other"),
    ("image", "bit"): Family({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_groups": 4}),
    ("image", "convnext"): Family(
        {**_STAGES, "hidden_sizes": [8, 8, 16, 16], "layer_scale_init_value": 0.5, "patch_size": 4}
    ),
    ("image", "convnextv2"): Family({**_STAGES, "hidden_sizes": [8, 8, 16, 16], "patch_size": 4}),
    ("image", "cvt"): Family({"embed_dim": [8, 8, 16], "num_heads": [1, 2, 2], "depth": [1, 2, 3]}),
    ("image", "dinat"): Family(broken="needs natten, which has no CPU build", error="natten"),
    ("image", "donut-swin"): Family({**_SWIN, "num_layers": 2, "hidden_size": 32}),
    ("image", "efficientnet"): Family(
        {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320, "image_size": 64, "num_hidden_layers": None}
    ),
    ("image", "focalnet"): Family(
        {"embed_dim": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "focal_levels": [2, 2], "focal_windows": [3, 3]}
        | {"patch_size": 4}
    ),
    ("image", "hgnet_v2"): Family(
        {
            "embedding_size": 8,
            "depths": [1, 1],
            "hidden_sizes": [16, 16],
            "stem_channels": [3, 8, 8],
            "stage_in_channels": [8, 16],
            "stage_mid_channels": [8, 8],
            "stage_out_channels": [16, 16],
            "stage_num_blocks": [1, 1],
            "stage_downsample": [False, True],
            "stage_downsample_strides": [2, 2],
            "stage_light_block": [False, True],
            "stage_kernel_size": [3, 3],
            "stage_numb_of_layers": [2, 2],
        }
    ),
    ("image", "hiera"): Family(
        {"image_size": [32, 32], "patch_size": [7, 7], "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2]}
        | {"num_query_pool": 1, "masked_unit_size": [4, 4], "masked_unit_attention": [True, False]}
    ),
    ("image", "imagegpt"): Family(batch={"pixel_values": None, "input_ids": torch.arange(24).reshape(2, 12)}),
    ("image", "levit"): Family(
        {"hidden_sizes": [16, 16, 16], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1], "key_dim": [8, 8, 8]}
        | {"image_size": 64, "patch_size": 16, "down_ops": [["Subsample", 8, 2, 4, 2, 2], ["Subsample", 8, 2, 4, 2, 2]]}
    ),
    ("image", "mobilenet_v1"): Family({"depth_multiplier": 0.1}),
    ("image", "mobilenet_v2"): Family({"depth_multiplier": 0.1, "finegrained_output": False}),
    ("image", "mobilevit"): Family(
        {"hidden_sizes": [16, 16, 16], "neck_hidden_sizes": [8, 8, 8, 8, 8, 8, 16], "image_size": 64, "patch_size": 2}
    ),
    ("image", "mobilevitv2"): Family(
        {"width_multiplier": 0.1, "image_size": 64, "patch_size": 2, "n_attn_blocks": [1, 1, 1]}
    ),
    ("image", "perceiver"): Family({**_PERCEIVER, "d_model": 32}),
    ("image", "poolformer"): Family({"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "layer_scale_init_value": 0.5}),
    ("image", "pp_lcnet"): Family({"class_expand": 32}),
    ("image", "pvt"): Family(
        {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 2, 2, 2], "depths": [1] * 4, "image_size": 64}
    ),
    ("image", "pvt_v2"): Family(
        {"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 2, 2, 2], "depths": [1] * 4, "image_size": [64, 64]}
    ),
    ("image", "regnet"): Family({"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8}),
    ("image", "resnet"): Family({"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 1]}),
    ("image", "segformer"): Family({"hidden_sizes": [8, 8, 16, 16], "num_attention_heads": [1, 2, 2, 2], "depths": [1] * 4}),
    ("image", "shieldgemma2"): Family(
        broken="a judge that is prompted in text and answers yes or no, not a classifier of labels", error="input_ids"
    ),
    ("image", "siglip2"): Family(
        {"vision_config": {"num_patches": 16, "patch_size": 8}},
        batch={
            "pixel_values": torch.randn(2, 16, 192, generator=torch.Generator().manual_seed(1)),
            "pixel_attention_mask": torch.ones(2, 16, dtype=torch.long),
            "spatial_shapes": torch.tensor([[4, 4], [4, 4]]),
        },
    ),
    ("image", "swiftformer"): Family(
        {"depths": [1, 1, 1, 1], "embed_dims": [8, 8, 16, 16], "layer_scale_init_value": 0.5, "image_size": 64}
    ),
    ("image", "swin"): Family(_SWIN),
    ("image", "swinv2"): Family(_SWIN),
    ("image", "textnet"): Family(
        {
            "stem_out_channels": 8,
            "image_size": [64, 64],
            "hidden_sizes": [8, 8, 8],
            "conv_layer_kernel_sizes": [[[3, 3]], [[1, 3], [3, 1]]],
            "conv_layer_strides": [[2], [2, 1]],
            "depths": [1, 2],
            "stage_names": None,
            "out_features": None,
            "out_indices": None,
            "initializer_range": 0.1,
        }
    ),
    ("image", "timm_wrapper"): Family(broken="needs timm, and with it torchvision", error="timm"),
    ("audio", "audio-spectrogram-transformer"): Family(
        {"max_length": 32, "num_mel_bins": 16, "frequency_stride": 8, "time_stride": 8},
        batch={"input_values": torch.randn(2, 32, 16, generator=torch.Generator().manual_seed(1))},
    ),
    ("audio", "wav2vec2-bert"): Family(
        {"feature_projection_input_dim": 16, "classifier_proj_size": 16, "conv_depthwise_kernel_size": 7},
        batch={"input_values": None, "input_features": torch.randn(2, 24, 16, generator=torch.Generator().manual_seed(1))},
    ),
    ("audio", "whisper"): Family(
        {"num_mel_bins": 16, "max_source_positions": 16, "classifier_proj_size": 16, "decoder_start_token_id": 1},
        batch={"input_values": None, "input_features": torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(1))},
    ),
    ("audio", "sew"): Family({**_WAV, "squeeze_factor": 2}),
    ("audio", "sew-d"): Family({**_WAV, "squeeze_factor": 2}),
    **{
        ("audio", name): Family(_WAV)
        for name in ("data2vec-audio", "hubert", "unispeech", "unispeech-sat", "wav2vec2", "wav2vec2-conformer", "wavlm")
    },
}
for _name in ("data2vec-audio",):
    SPECIAL[("audio", _name)] = Family({**_WAV, "num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 7})


def families(modality: str) -> list[str]:
    return list(MAPPINGS[modality])


def special(modality: str, name: str) -> Family:
    return SPECIAL.get((modality, name), Family())


def _shrunk(config: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    out = {k: v for k, v in SIZES.items() if k in config and not isinstance(config[k], (list, tuple))}
    for key, value in config.items():
        if isinstance(value, dict) and "model_type" in value:
            out[key] = {**_shrunk(value, overrides.get(key, {})), "model_type": value["model_type"]}
    for key, value in overrides.items():
        if not (isinstance(value, dict) and isinstance(out.get(key), dict)):
            out[key] = value
    return {key: value for key, value in out.items() if value is not None}


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
    with torch.no_grad():
        for module in model.modules():  # deep stacks of narrow convolutions fade out otherwise
            if isinstance(module, torch.nn.Conv2d):
                torch.nn.init.kaiming_normal_(module.weight)
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx].normal_(0, 0.2)  # it is 0: padding would be irrelevant whatever is done
        # some initialise whole blocks to zero (a gate, a scale): nothing would flow
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
        sizes = [getattr(c, "image_size", None) for c in (config, getattr(config, "vision_config", None))]
        size = next((size for size in sizes if size), 64)
        size = size if isinstance(size, int) else size[0]
        batch = {"pixel_values": torch.randn(2, getattr(config, "num_channels", 3), size, size, generator=generator)}
    elif modality == "audio":
        batch = {"input_values": torch.randn(2, 1600, generator=generator)}
    else:
        batch = {"past_values": torch.randn(2, config.context_length, config.num_input_channels, generator=generator)}
    if name == "xlnet":  # reads its last position: padding comes first
        batch = {key: value.flip(1) for key, value in batch.items()}
    return {key: value for key, value in {**batch, **extra}.items() if value is not None}
