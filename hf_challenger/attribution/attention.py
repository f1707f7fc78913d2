"""Attention that arrives whole: the fused kernel, and nn.MultiheadAttention's functional form.

Written out (``matmul``, ``softmax``, ``matmul``), attention needs no rule of its own: the two products are uniform, the
softmax is plain (AttnLRP) or constant (CP-LRP). The rules here give the same relevance for the forms that the interception
sees as one operation. In both, query, key and value enter linearly before the first product, so that a factor on the
gradient of an input is the factor on the gradient of its projection: nothing need be written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .rules import is_data, scale_gradient


def attention(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """AttnLRP for softmax(q·kᵀ + mask)·v: uniform on both products (Eq. 7), Taylor on the softmax (Prop. 3.1).

    The second product halves what reaches v and the weights, the first halves it again for q and k. The kernel stays.
    """

    def call(query: Any, key: Any, value: Any, attn_mask: Any = None, *rest: Any, **more: Any) -> Any:
        by_scores = 0.5 if is_data(query) and is_data(key) else 1.0
        by_output = 0.5 if is_data(value) and any(map(is_data, (query, key, attn_mask))) else 1.0
        query, key = (scale_gradient(x, by_scores * by_output) for x in (query, key))
        return func(query, key, scale_gradient(value, by_output), scale_gradient(attn_mask, by_output), *rest, **more)

    return call(*args, **kwargs)


def attention_constant(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """CP-LRP (Ali et al. 2022): the attention weights are constant; only v carries relevance."""

    def call(query: Any, key: Any, value: Any, attn_mask: Any = None, *rest: Any, **more: Any) -> Any:
        attn_mask = attn_mask.detach() if isinstance(attn_mask, Tensor) else attn_mask
        return func(query.detach(), key.detach(), value, attn_mask, *rest, **more)

    return call(*args, **kwargs)


def multi_head_attention(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """:func:`attention` for ``F.multi_head_attention_forward`` (nn.MultiheadAttention, nn.TransformerEncoderLayer)."""

    def call(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
        by_scores = 0.5 if is_data(query) and is_data(key) else 1.0
        by_output = 0.5 if is_data(value) and (is_data(query) or is_data(key)) else 1.0
        query, key = (scale_gradient(x, by_scores * by_output) for x in (query, key))
        return func(query, key, scale_gradient(value, by_output), *rest, **more)

    return call(*args, **kwargs)


def multi_head_attention_constant(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """:func:`attention_constant` for ``F.multi_head_attention_forward``."""

    def call(query: Any, key: Any, value: Any, *rest: Any, **more: Any) -> Any:
        return func(query.detach(), key.detach(), value, *rest, **more)

    return call(*args, **kwargs)
