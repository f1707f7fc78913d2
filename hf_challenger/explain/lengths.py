"""How many tokens a text classifier takes."""

from __future__ import annotations

from typing import Any

from torch import nn

LONGEST = 2048  # tokens, where neither the model nor the tokenizer tells a limit: attention takes memory by its square


def longest_input(model: nn.Module, tokenizer: Any) -> int:
    """Tokens that both tokenizer and model take; tokenizers without a limit tell a huge number.

    RoBERTa and its kin count positions from the padding id + 1 on, so that their table serves fewer tokens than it has rows.
    Checked against all text classifiers of transformers.
    """
    return int(min(tokenizer.model_max_length, _positions(model) or 10**6))


def _positions(model: nn.Module) -> int | None:
    """Tokens that the model has positions for; None where it tells no limit (T5, XLNet, Bloom)."""
    config: Any = model.config
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(config, "max_position_embeddings", None)
    limits = [positions] if isinstance(positions, int) and positions > 0 else []
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith(".position_embeddings") and padding is not None:
            limits.append(len(module.weight) - padding - 1)
    return min(limits, default=None)


def tokens_read(model: nn.Module, tokenizer: Any) -> int:
    """Tokens of a text that are explained: :func:`longest_input`, or ``LONGEST`` where nothing tells a limit."""
    unlimited = _positions(model) is None and tokenizer.model_max_length > 10**6
    return LONGEST if unlimited else longest_input(model, tokenizer)
