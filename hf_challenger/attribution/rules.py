r"""LRP rules on operations, in Gradient×Input form.

Propagating relevance through an operation by a rule is the same as running the ordinary backward pass with one gradient
exchanged, since relevance is R = x ⊙ ∂z_t/∂x at every tensor x (Achtibat et al., AttnLRP, ICML 2024, arXiv 2402.05602).
A rule is therefore a function ``rule(func, args, kwargs) -> output`` that returns the very values of
``func(*args, **kwargs)`` and leaves a modified backward behind. "Data" below means: a tensor that carries gradient.
During attribution no parameter does, so that weights, and whatever is derived from them alone, are never data.
Rules run outside the interception: the operations inside a rule are ordinary torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

Rule = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def is_data(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


# --- gradients, exchanged ---------------------------------------------------------------------------------------------


class _ScaledGradient(torch.autograd.Function):
    """y = x; ∂y/∂x := factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


class _Slope(torch.autograd.Function):
    """Value y, ∂y/∂x := slope, elementwise; both are computed outside."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
        ctx.save_for_backward(slope)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad * slope, None, None


class _ValueOf(torch.autograd.Function):
    """Value y with the backward pass of a surrogate: what a rule computes may differ from y in the last digits."""

    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class _LayerNorm(torch.autograd.Function):
    """y = (x - mean) / std · weight + bias with std held constant in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
        y, _, rstd = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.save_for_backward(rstd, weight)
        ctx.dims = tuple(range(-len(shape), 0))
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        rstd, weight = ctx.saved_tensors
        grad = grad * rstd if weight is None else grad * weight * rstd
        return grad - grad.mean(ctx.dims, keepdim=True), None, None, None, None


def scale_gradient(x: Any, factor: float) -> Any:
    return _ScaledGradient.apply(x, factor) if is_data(x) else x


# --- linear operations ------------------------------------------------------------------------------------------------


def plain(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """ε-rule with ε → 0 (Bach et al. 2015; AttnLRP Eq. 8): R_i = Σ_j x_i w_ij / z_j · R_j, which is the plain gradient."""
    return func(*args, **kwargs)


def epsilon(value: float = 1e-6) -> Rule:
    """ε-rule with a finite ε (Bach et al. 2015, Eq. 58): R_i = Σ_j x_i w_ij / (z_j + ε·sign z_j) · R_j."""

    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        z = func(*args, **kwargs)
        if not is_data(z):
            return z
        y = z.detach()
        return _Slope.apply(z, y, y / (y + torch.where(y < 0, -value, value).to(y.dtype)))

    return rule


def constant(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result carries no relevance: rsqrt of a variance (LN-rule, Ali et al. 2022), attention weights in CP-LRP."""
    with torch.no_grad():
        return func(*args, **kwargs)


# --- elementwise functions --------------------------------------------------------------------------------------------


def pass_unchanged(x: Tensor, y: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Identity rule for y = f(x), elementwise (AttnLRP Eq. 9): relevance passes unchanged, ∂y/∂x := f(x)/x (0 at x = 0).

    Where f(0) ≠ 0 (sigmoid, softplus, exp), f(0) acts as a bias and keeps its share: ∂y/∂x := (f(x) - f(0))/x, since
    f(x)/x has a pole there. Around 0 that quotient is ill-conditioned, so |x| is kept above the format's resolution.
    """
    if not is_data(x):
        return y
    value, y = x.detach(), y.detach()
    y_at_zero = float(function(torch.zeros(())))  # on the CPU, so that the device need not be waited for
    if y_at_zero == 0:
        zero = value == 0
        slope = (y / value.masked_fill(zero, 1)).masked_fill(zero, 0)
    else:
        floor = math.sqrt(torch.finfo(value.dtype).eps)
        slope = (y - y_at_zero) / torch.where(value < 0, value.clamp(max=-floor), value.clamp(min=floor))
    return cast(Tensor, _Slope.apply(x, y, slope))


def identity(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Elementwise functions: see :func:`pass_unchanged`."""
    if not args:
        args, kwargs = (kwargs["input"],), {k: v for k, v in kwargs.items() if k != "input"}
    if not is_data(args[0]):
        return func(*args, **kwargs)

    def function(x: Tensor) -> Any:
        return func(x, *args[1:], **kwargs)

    return pass_unchanged(args[0], function(args[0].detach()), function)


def power(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x ** n: elementwise, hence identity; a negative exponent makes it a normaliser, hence constant."""
    exponent = args[1] if len(args) > 1 else kwargs["exponent"]
    if not isinstance(exponent, (int, float)):
        return func(*args, **kwargs)
    return (constant if exponent < 0 else identity)(func, args, kwargs)


# --- products of data -------------------------------------------------------------------------------------------------


def uniform(*factors: int) -> Rule:
    """Products of data tensors (AttnLRP Eq. 7): each of n data factors gets 1/n. One data factor: linear, hence plain.

    Args:
        factors: positions of the factors among the arguments; none given: all of them (lists are looked into).
    """

    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if kwargs and any(map(is_data, kwargs.values())):  # torch.mul(x, other=y)
            return scale_gradient(func(*args, **kwargs), 1 / max(1, sum(map(is_data, (*args, *kwargs.values())))))
        among = [args[i] for i in factors if i < len(args)] if factors else list(_flat(args))
        count = sum(map(is_data, among))
        if count < 2:
            return func(*args, **kwargs)

        def share(position: int, x: Any) -> Any:
            if factors and position not in factors:
                return x
            return (
                type(x)(scale_gradient(i, 1 / count) for i in x)
                if isinstance(x, (list, tuple))
                else scale_gradient(x, 1 / count)
            )

        return func(*(share(i, x) for i, x in enumerate(args)), **kwargs)

    return rule


def _flat(args: Iterable[Any]) -> Iterable[Any]:
    for x in args:
        if isinstance(x, (list, tuple)):
            yield from _flat(x)
        else:
            yield x


def quotient(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x / y: a data divisor is a normaliser and is held constant, as in the LN-rule."""
    return func(args[0], *(x.detach() if isinstance(x, Tensor) else x for x in args[1:]), **kwargs)


def attention(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """AttnLRP for fused attention softmax(q·kᵀ)·v: uniform on both products, Taylor on the softmax (Prop. 3.1).

    The second product halves what reaches v and the weights, the first halves it again for q and k. The fused kernel stays.
    """
    names = ("query", "key", "value", "attn_mask")
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    rest = args[len(names) :]
    for name, factor in zip(names, (0.25, 0.25, 0.5, 0.5), strict=True):
        bound[name] = scale_gradient(bound.get(name), factor)
    first = [bound.pop(name) for name in names]
    return func(*first, *rest, **bound)


def attention_constant(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """CP-LRP for fused attention (Ali et al. 2022): the attention weights are constant; only v carries relevance."""
    names = ("query", "key", "value", "attn_mask")
    bound = {**dict(zip(names, args, strict=False)), **kwargs}
    rest = args[len(names) :]
    for name in ("query", "key", "attn_mask"):
        bound[name] = bound[name].detach() if isinstance(bound.get(name), Tensor) else bound.get(name)
    first = [bound.pop(name) for name in names]
    return func(*first, *rest, **bound)


# --- normalisation: the standard deviation is a constant (LN-rule, Ali et al. 2022; AttnLRP Prop. 3.4) ----------------


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
        scaled = input * (input.detach().pow(2).mean(dims, keepdim=True) + eps).rsqrt()
        return scaled if weight is None else scaled * weight

    return _ValueOf.apply(surrogate(*args, **kwargs), y.detach())


def group_norm(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """y = (x - mean) / std · w + b per group of channels, with std constant. Instance norm is one group a channel."""
    y = func(*args, **kwargs)
    if not is_data(y):
        return y

    def surrogate(
        input: Tensor, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
    ) -> Tensor:
        grouped = input.reshape(input.shape[0], num_groups, -1)
        std = (grouped.detach().var(-1, keepdim=True, unbiased=False) + eps).sqrt()
        scaled = ((grouped - grouped.mean(-1, keepdim=True)) / std).reshape(input.shape)
        return scaled if weight is None else scaled * weight.reshape(1, -1, *(1 for _ in input.shape[2:]))

    return _ValueOf.apply(surrogate(*args, **{k: v for k, v in kwargs.items() if k != "cudnn_enabled"}), y.detach())


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
        return input / input.detach().norm(p, dim, keepdim=True).clamp_min(eps)

    return _ValueOf.apply(surrogate(*args, **kwargs), y.detach())


# --- in-place forms ---------------------------------------------------------------------------------------------------


def in_place(rule: Rule, func: Callable[..., Any]) -> Rule:
    """``x.mul_(y)``: the rule of the out-of-place ``func`` on a copy, then written back into x."""

    def in_place_rule(_: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return args[0].copy_(rule(func, (args[0].clone(), *args[1:]), kwargs))

    return in_place_rule


def in_place_flag(rule: Rule, position: int) -> Rule:
    """``F.silu(x, inplace=True)``: the same for functions that take a flag, as argument number ``position``."""

    def flag_rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        wanted = args[position] if len(args) > position else kwargs.get("inplace", False)
        args = args[:position] + args[position + 1 :]
        kwargs = {k: v for k, v in kwargs.items() if k != "inplace"}
        if wanted:
            return in_place(rule, func)(func, args, kwargs)
        return rule(func, args, kwargs)

    return flag_rule
