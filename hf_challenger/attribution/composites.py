"""Composites: named tables operation → rule.

    attnlrp        AttnLRP (Achtibat et al. 2024): the default
    cp_lrp         the same with constant attention weights (Ali et al. 2022)
    epsilon        attnlrp with a finite ε = 1e-6 on linear layers and convolutions
    epsilon_gamma  epsilon on linear layers, γ = 0.25 on convolutions (Montavon et al. 2019)
    gradient       no rule at all: Gradient×Input

A rule for an operation of your own takes three lines::

    from hf_challenger.attribution import Composite, rules
    mine = Composite.named("attnlrp").with_rules({torch.special.erfcx: rules.identity})
    LRP(model, composite=mine)

The rules themselves, their equations and sources are in the modules ``rules``, ``attention``, ``norms``, ``recurrent`` and
``composed_modules``; docs/rules.md is an overview.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import check_choice
from . import attention, norms, rules
from .recurrent import UNROLLED
from .rules import Rule

Operation = Callable[..., Any]

# One name stands for every form of an operation that torch offers: torch.f, Tensor.f, F.f, Tensor.f_, Tensor.__f__.
ELEMENTWISE = [
    "gelu",
    "silu",
    "mish",
    "tanh",
    "sigmoid",
    "relu6",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "softplus",
    "softsign",
    "tanhshrink",
    "elu",
    "selu",
    "celu",
    "logsigmoid",
    "softshrink",
    "hardshrink",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "log1p",
    "atan",
    "arctan",
    "asinh",
    "sinh",
    "tan",
    "sin",
    "cos",
    "square",
    "clamp",
    "clamp_min",
    "clamp_max",
]
POWERS = ["pow", "__pow__"]
PRODUCTS = [
    "mul",
    "multiply",
    "__mul__",
    "__rmul__",
    "matmul",
    "__matmul__",
    "__rmatmul__",
    "mm",
    "bmm",
    "mv",
    "dot",
    "einsum",
    "outer",
    "inner",
    "vdot",
    "vecdot",
    "ger",
    "cross",
    "kron",
    "tensordot",
    "multi_dot",
]
FUSED_PRODUCTS = ["addmm", "baddbmm", "addbmm", "addmv", "addr", "addcmul"]  # input + factor · factor
QUOTIENTS = ["div", "divide", "true_divide", "__truediv__", "__div__"]
NORMALISERS = [
    "rsqrt",
    "sqrt",
    "norm",
    "vector_norm",
    "std",
    "std_mean",
    "var_mean",
    "reciprocal",
    "__rdiv__",
    "__rtruediv__",
    "__rpow__",
]
CONVOLUTIONS = ["conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"]
LINEAR = ["linear", *CONVOLUTIONS]
NAMESPACES = (torch, torch.Tensor, F, torch._C._nn, torch.linalg, torch.special)


def forms_of(name: str) -> Iterator[Operation]:
    """Every callable that torch offers under this name."""
    seen: list[Operation] = []
    for space in NAMESPACES:
        form = getattr(space, name, None)
        if callable(form) and not any(form is s for s in seen):
            seen.append(form)
            yield form


def _entries(names: list[str], rule: Rule) -> dict[Operation, Rule]:
    """Every form of every name, in-place forms included."""
    table: dict[Operation, Rule] = {}
    for name in names:
        for form in forms_of(name):
            table[form] = rule
            try:
                parameters = list(inspect.signature(form).parameters)
            except (TypeError, ValueError):  # built-ins have no signature, and no flag either
                parameters = []
            if "inplace" in parameters:
                table[form] = rules.in_place_flag(rule, parameters.index("inplace"))
        bare = name.strip("_")
        out_of_place = getattr(torch.Tensor, bare, None) or getattr(F, bare, None)
        for written in (f"{bare}_", f"__i{bare}__"):
            for form in forms_of(written):
                if out_of_place is not None:
                    table[form] = rules.in_place(rule, out_of_place)
    return table


@dataclass(frozen=True)
class Composite:
    """A table operation → rule; operations that are not in it keep their plain gradient.

    Attributes:
        name: shown in messages.
        table: maps torch operations, as a ``TorchFunctionMode`` sees them, to rules.
        activations: whether activation *modules* made of several operations (``NewGELUActivation``) count as one
            elementwise function.
    """

    name: str
    table: Mapping[Operation, Rule]
    activations: bool = True

    def with_rules(self, extra: Mapping[Operation, Rule], name: str | None = None) -> Composite:
        """A new composite in which ``extra`` overrides this table."""
        return Composite(name or f"{self.name}+", MappingProxyType({**self.table, **extra}), self.activations)

    @staticmethod
    def named(name: str | Composite) -> Composite:
        """The composite of that name; a :class:`Composite` is returned as it is."""
        if isinstance(name, Composite):
            return name
        check_choice("composite", name, COMPOSITES)
        return COMPOSITES[name]


def _attnlrp() -> dict[Operation, Rule]:
    return {
        **_entries(ELEMENTWISE, rules.identity),
        **_entries(POWERS, rules.power),
        **_entries(PRODUCTS, rules.uniform()),
        **_entries(FUSED_PRODUCTS, rules.uniform(1, 2)),
        **_entries(QUOTIENTS, rules.quotient),
        **_entries(NORMALISERS, rules.constant),
        **_entries(LINEAR, rules.linear),
        **_entries(["bilinear"], rules.uniform(0, 1)),
        **_entries(["glu"], rules.glu),
        **_entries(["layer_norm"], norms.layer_norm),
        **_entries(["rms_norm"], norms.rms_norm),
        **_entries(["group_norm"], norms.group_norm),
        **_entries(["normalize"], norms.normalize),
        F.instance_norm: norms.instance_norm,
        F.scaled_dot_product_attention: attention.attention,
        F.multi_head_attention_forward: attention.multi_head_attention,
        **UNROLLED,
    }


_ATTNLRP = Composite("attnlrp", MappingProxyType(_attnlrp()))
_EPSILON = _ATTNLRP.with_rules(_entries([*LINEAR, "addmm"], rules.epsilon()), "epsilon")

COMPOSITES: dict[str, Composite] = {
    "attnlrp": _ATTNLRP,
    "cp_lrp": _ATTNLRP.with_rules(
        {
            F.scaled_dot_product_attention: attention.attention_constant,
            F.multi_head_attention_forward: attention.multi_head_attention_constant,
            **_entries(["softmax"], rules.constant),
        },
        "cp_lrp",
    ),
    "epsilon": _EPSILON,
    "epsilon_gamma": _EPSILON.with_rules(_entries(CONVOLUTIONS, rules.gamma()), "epsilon_gamma"),
    "gradient": Composite("gradient", MappingProxyType({}), activations=False),
}
