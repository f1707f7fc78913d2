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
from torch import Tensor

Rule = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]


def is_data(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


# --- gradients, exchanged ---------------------------------------------------------------------------------------------
#
# A model may write into what it gets (``y += x``, ``nn.ReLU(inplace=True)``). Autograd refuses that for an input of a custom
# Function that is returned as it is, since it becomes a view. Values therefore travel in a tuple, which it does not look into.


class _ScaledGradient(torch.autograd.Function):
    """y = x; ∂y/∂x := factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


class _ValueWithSlope(torch.autograd.Function):
    """Value y, ∂y/∂x := slope, elementwise; with slope None the gradient is that of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: tuple[Tensor], slope: Tensor | None) -> Tensor:
        ctx.save_for_backward(slope)
        return y[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return grad if slope is None else grad * slope, None, None


def with_slope(x: Tensor, y: Tensor, slope: Tensor) -> Tensor:
    """The value ``y`` (detached, not a view) with ∂y/∂x := ``slope``, all of one shape."""
    return cast(Tensor, _ValueWithSlope.apply(x, (_not_a_view(y),), slope))


def value_of(surrogate: Tensor, y: Tensor) -> Tensor:
    """The value ``y`` (detached) with the backward pass of ``surrogate``; just ``y`` where that carries no gradient.

    What a rule computes may differ from the operation's own value in the last digits.
    """
    return cast(Tensor, _ValueWithSlope.apply(surrogate, (_not_a_view(y),), None)) if surrogate.requires_grad else y


def _not_a_view(y: Tensor) -> Tensor:
    return y.clone() if y._is_view() else y


def scale_gradient(x: Any, factor: float) -> Any:
    """``x`` with its gradient times ``factor``; what is no data is returned as it is."""
    return _ScaledGradient.apply(x, factor) if is_data(x) else x


# --- linear operations ------------------------------------------------------------------------------------------------


def plain(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """ε-rule with ε → 0 (Bach et al. 2015; AttnLRP Eq. 8): R_i = Σ_j x_i w_ij / z_j · R_j, which is the plain gradient."""
    return func(*args, **kwargs)


def epsilon(value: float = 1e-6) -> Rule:
    """ε-rule with a finite ε (Bach et al. 2015, Eq. 58): R_i = Σ_j x_i w_ij / (z_j + ε·sign z_j) · R_j."""

    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        z = linear(func, args, kwargs)
        if not is_data(z):
            return z
        y = z.detach()
        return with_slope(z, y, stable_ratio(y, y, value))

    return rule


def linear(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """ε → 0: plain, unless the weight is data too (dynamic convolutions): then it is a product, hence uniform."""
    return uniform(*_factors(func))(func, args, kwargs)


def _factors(func: Callable[..., Any]) -> tuple[int, int]:
    """The positions of input and weight: linear(x, w, b), conv(x, w, b), addmm(b, x, w)."""
    return (1, 2) if getattr(func, "__name__", "") == "addmm" else (0, 1)


def gamma(value: float = 0.25, stabiliser: float = 1e-9) -> Rule:
    r"""γ-rule (Montavon et al. 2019, Table 10.1; captum's GammaRule): positive weights count more.

    R_i = Σ_j x_i w'_ij / (z'_j + ε·sign z'_j) · R_j with w' = w + γ·max(w, 0) and z'_j = Σ_i x_i w'_ij + b_j.
    """
    return _modified_weights(lambda weight: weight + value * weight.clamp(min=0), stabiliser)


def _modified_weights(modify: Callable[[Tensor], Tensor], stabiliser: float) -> Rule:
    """z' = the operation with modified weights; value z, gradient that of z' · constant(z / z')."""

    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        z = linear(func, args, kwargs)
        position = _factors(func)[1]
        by_name = len(args) <= position
        weight = kwargs["weight"] if by_name else args[position]
        if not is_data(z) or is_data(weight):
            return z
        if by_name:
            modified = func(*args, **{**kwargs, "weight": modify(weight)})
        else:
            modified = func(*args[:position], modify(weight), *args[position + 1 :], **kwargs)
        return with_slope(modified, z.detach(), stable_ratio(z.detach(), modified.detach(), stabiliser))

    return rule


#: α1β0-rule (Bach et al. 2015, Eq. 60 with α = 1; captum's Alpha1_Beta0_Rule): as :func:`gamma`, with w' = max(w, 0).
alpha1_beta0: Rule = _modified_weights(lambda weight: weight.clamp(min=0), 1e-9)


def largest_factor(dtype: torch.dtype) -> float:
    """What a rule multiplies a gradient by at most: the root of the format's largest number, which leaves room for the gradient.

    It is 256 in float16, and 1e19 or more in the other formats, where it never matters.
    """
    return math.sqrt(torch.finfo(dtype).max)


def stable_ratio(y: Tensor, z: Tensor, stabiliser: float) -> Tensor:
    """y / (z + ε·sign z), with sign 0 = 1: finite in any format, also where the format has no such ε.

    Half precision rounds ε = 1e-9 to 0, so that the sum is made in float32. The ratio is bounded by :func:`largest_factor`.

    Args:
        y, z: of one shape, detached.
        stabiliser: ε, not negative.
    """
    wide = torch.promote_types(z.dtype, torch.float32)
    by, bound = max(stabiliser, torch.finfo(wide).tiny), largest_factor(y.dtype)
    z = z.to(wide)
    z = torch.where(z < 0, z - by, z + by)
    return (y / z).clamp(-bound, bound).to(y.dtype)


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
        slope = (y / value).masked_fill_(value == 0, 0)  # 0 / 0 there
    else:
        floor = math.sqrt(torch.finfo(value.dtype).eps)
        slope = (y - y_at_zero) / torch.where(value < 0, value.clamp(max=-floor), value.clamp(min=floor))
    return with_slope(x, y, slope)


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
        if factors:
            count = sum(is_data(args[i]) for i in factors if i < len(args)) + sum(map(is_data, kwargs.values()))
        else:
            count = sum(map(is_data, (*_flat(args), *_flat(kwargs.values()))))
        if count < 2:
            return func(*args, **kwargs)

        def share(x: Any) -> Any:
            return type(x)(map(share, x)) if isinstance(x, (list, tuple)) else scale_gradient(x, 1 / count)

        args = tuple(share(x) if not factors or i in factors else x for i, x in enumerate(args))
        return func(*args, **{name: share(x) for name, x in kwargs.items()})

    return rule


def _flat(args: Iterable[Any]) -> Iterable[Any]:
    for x in args:
        if isinstance(x, (list, tuple)):
            yield from _flat(x)
        else:
            yield x


def glu(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """F.glu: a ⊙ σ(b) for the halves a, b of x: identity on σ, uniform on the product."""

    def call(input: Tensor, dim: int = -1) -> Tensor:
        a, b = scale_gradient(input, 0.5).chunk(2, dim)
        gate = pass_unchanged(b, torch.sigmoid(b.detach()), torch.sigmoid)
        return value_of(a * gate, func(input.detach(), dim))

    return call(*args, **kwargs) if any(map(is_data, (*args, *kwargs.values()))) else func(*args, **kwargs)


def quotient(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x / y: a data divisor is a normaliser and is held constant, as in the LN-rule."""
    held = [x.detach() if isinstance(x, Tensor) else x for x in args[1:]]
    named = {k: x.detach() if isinstance(x, Tensor) and k != "input" else x for k, x in kwargs.items()}
    return func(*args[:1], *held, **named)


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
