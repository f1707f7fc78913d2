"""Attention rollout (Abnar & Zuidema, ACL 2020): how much of each token reaches the place where the classifier reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..errors import ChallengerError
from ..inputs.main_input import LABEL_KEYS, main_input_in
from ..logits import logits_of
from .eager_pass import outside_inference
from .targets import Target, score_of


class _Attentions(TorchFunctionMode):
    """Records the attention weights of every layer, ``(rows, queries, keys)``, the mean over heads.

    Fused attention does not return its weights, so that they are computed beside it; eager attention shows them as the
    result of a 4-dimensional softmax. What attention returns becomes a leaf, at which ``last`` can be read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weights: list[Tensor] = []
        self.last: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._record(_fused_weights(*args, **kwargs), result)
        if getattr(func, "__name__", "") == "softmax" and result.dim() == 4:
            return self._record(result, result)
        return result

    def _record(self, weights: Tensor, result: Tensor) -> Tensor:
        self.weights.append(weights.detach().float().mean(1))
        self.last = result.detach().requires_grad_()
        return self.last.clone()


@torch.no_grad()
def _fused_weights(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], dim=-3)
    logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).tril()
    if attn_mask is not None:
        logits = logits.masked_fill(~attn_mask, float("-inf")) if attn_mask.dtype is torch.bool else logits + attn_mask
    return logits.softmax(-1).nan_to_num()  # a padded query may see nothing at all


def attention_rollout(
    model: nn.Module, batch: Mapping[str, Any], target: Target, *, main_input: str | None = None
) -> Tensor:
    """``(rows, length, 1)``, not negative, each row's sum is 1: the product over layers of (A + I) / 2 (their Eq. 1).

    Read at the places the classifier reads, which is not said in a model's config: the last layer's places weigh as much
    as the target's score depends on them (one-hot at [CLS], or at the last token of a decoder). The rest of the map does
    not know the target. Encoder-decoders and models without attention over the batch's own units are refused.
    """
    inputs = outside_inference({k: v for k, v in batch.items() if k not in LABEL_KEYS})
    own = inputs[main_input_in(model, inputs, main_input)]
    attentions = _Attentions()
    with attentions:
        logits = logits_of(model(**inputs), model)
    rows, length = own.shape[:2]
    shapes = {tuple(weights.shape) for weights in attentions.weights}
    two_stacks = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    if shapes != {(rows, length, length)} or own.is_floating_point() or two_stacks:
        found = f"attention of shape {', '.join(map(str, sorted(shapes)))}" if shapes else "no softmax attention"
        found += ", in an encoder and a decoder" if two_stacks else ""
        raise ChallengerError(
            f"attention_rollout needs self-attention among the batch's {length} token ids in every layer, (rows, length,"
            f" length) = {(rows, length, length)}; {type(model).__name__} has {found}. Use another attribution, such as 'lrp'."
        )
    assert attentions.last is not None
    (gradient,) = torch.autograd.grad(score_of(logits, target).sum(), attentions.last)
    read = gradient.abs().float().transpose(1, -2).flatten(2).sum(-1)  # (rows, queries)
    rollout = read / read.sum(1, keepdim=True).clamp(min=torch.finfo(read.dtype).tiny)
    for weights in reversed(attentions.weights):
        rollout = (rollout + torch.bmm(rollout.unsqueeze(1), weights).squeeze(1)) / 2
    return rollout.unsqueeze(-1)
