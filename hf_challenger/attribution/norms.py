"""Normalisation: the standard deviation is a constant (LN-rule, Ali et al. 2022; AttnLRP Prop. 3.4).

Half precision has no room for a squared deviation, nor for eps = 1e-12. Both are therefore taken in float32, and a deviation is
no smaller than what the format can divide a gradient by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .rules import is_data, largest_factor, value_of


def _wide(x: Tensor) -> Tensor:
    """x without its graph, in float32 at least."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def _divisor(deviation: Tensor, x: Tensor) -> Tensor:
    """The deviation in the format of x, kept away from 0."""
    return deviation.clamp_min(1 / largest_factor(x.dtype)).to(x.dtype)


class _LayerNorm(torch.autograd.Function):
    """y = (x - mean) / std · weight + bias with std held constant in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        y, _, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(rstd.clamp(max=largest_factor(x.dtype)), weight)
        ctx.dims = tuple(range(-len(shape), 0))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        rstd, weight = ctx.saved_tensors
        grad = grad * rstd if weight is None else grad * weight * rstd
        return grad - grad.mean(ctx.dims, keepdim=True), None, None, None, None


def layer_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """y = (x - mean) / std · w + b with std constant."""

    def call(input: Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Any:
        if not is_data(input) or is_data(weight):
            return func(*args, **kwargs)
        return _LayerNorm.apply(input, list(normalized_shape), weight, bias, eps)

    return call(*args, **{k: v for k, v in kwargs.items() if k != "cudnn_enable"})


def rms_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """y = x / rms(x) · w with the root mean square constant."""
    y = func(*args, **kwargs)
    if not is_data(y):
        return y

    def surrogate(input: Tensor, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
        dims = tuple(range(-len(tuple(normalized_shape)), 0))
        eps = torch.finfo(input.dtype).eps if eps is None else eps
        scaled = input / _divisor((_wide(input).pow(2).mean(dims, keepdim=True) + eps).sqrt(), input)
        return scaled if weight is None else scaled * weight

    return value_of(surrogate(*args, **kwargs), y.detach())


def group_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """y = (x - mean) / std · w + b per group of channels, with std constant. Instance norm is one group a channel."""
    y = func(*args, **kwargs)
    if not is_data(y):
        return y

    def surrogate(
        input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
    ) -> Tensor:
        grouped = input.reshape(input.shape[0], num_groups, -1)
        std = _divisor((_wide(grouped).var(-1, keepdim=True, unbiased=False) + eps).sqrt(), input)
        scaled = ((grouped - grouped.mean(-1, keepdim=True)) / std).reshape(input.shape)
        return scaled if weight is None else scaled * weight.reshape(1, -1, *(1 for _ in input.shape[2:]))

    return value_of(surrogate(*args, **{k: v for k, v in kwargs.items() if k != "cudnn_enabled"}), y.detach())


def instance_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """As :func:`group_norm`, one group a channel. With running statistics (eval) it is linear, hence plain."""

    def call(
        input: Tensor,
        running_mean: Any = None,
        running_var: Any = None,
        weight: Any = None,
        bias: Any = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Any:
        if not use_input_stats:
            return func(*args, **kwargs)
        return group_norm(F.group_norm, (input, input.shape[1], weight, bias, eps), {})

    return call(*args, **kwargs)


def normalize(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """F.normalize: x / ‖x‖ with the norm constant."""
    y = func(*args, **kwargs)
    if not is_data(y):
        return y

    def surrogate(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Tensor:
        return input / _divisor(_wide(input).norm(p, dim, keepdim=True).clamp_min(eps), input)

    return value_of(surrogate(*args, **kwargs), y.detach())
