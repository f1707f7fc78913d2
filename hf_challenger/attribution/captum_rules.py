"""captum's rule objects, set on modules (``module.rule = GammaRule()``), honoured during our LRP.

captum's rules exchange a layer's weights and propagate through the exchanged layer: with z' the output under the new
weights, R_i = Σ_j x_i · ∂z'_j/∂x_i / (z'_j + s·sign z'_j) · R_j, where s is the rule's ``STABILITY_FACTOR``. With
R_j = z_j · grad_j that is the gradient through z'(x), weighted by z / (z' + s·sign z'). The weights are exchanged by the
rule's own code, on a copy, so that rules of your own (``PropagationRule`` with ``_manipulate_weights``) hold as well.

Two things are better than in captum: ``module.rule`` stays set after the attribution, and a module may be used twice.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from captum.attr._utils.lrp_rules import IdentityRule, PropagationRule
from torch import Tensor, nn

from ..errors import ChallengerError
from .rules import _away_from_zero, _Slope, is_data


def propagate(module: nn.Module, rule: PropagationRule, x: Tensor, y: Tensor) -> Tensor:
    """``y``, the output of ``module`` for ``x``, with the backward pass of ``rule``."""
    value, y = x.detach(), y.detach()
    if isinstance(rule, IdentityRule):  # R_i = R_i, hence ∂y/∂x := y/x; a unit of value 0 has no relevance in this form
        if x.shape != y.shape:
            raise ChallengerError(
                f"IdentityRule passes relevance on unchanged, so that input and output of {type(module).__name__} must have"
                f" one shape; they are {tuple(x.shape)} and {tuple(y.shape)}. Use EpsilonRule there."
            )
        zero = value == 0
        return _Slope.apply(x, y, (y / value.masked_fill(zero, 1)).masked_fill(zero, 0))
    changed = _copy(module)
    rule._manipulate_weights(changed, (value,), y)
    z = changed.forward(x)
    stable = _away_from_zero(z.detach(), rule.STABILITY_FACTOR)
    return _Slope.apply(z, y, torch.where(stable == 0, 0, y / stable.masked_fill(stable == 0, 1)))


def _copy(module: nn.Module) -> nn.Module:
    """The module with parameters of its own, which a rule may then change; all else is shared."""
    twin = copy.copy(module)
    twin._parameters = {
        name: None if p is None else nn.Parameter(p.detach().clone(), requires_grad=False)
        for name, p in module._parameters.items()
    }
    return twin


@contextmanager
def module_rules(model: nn.Module) -> Iterator[None]:
    """Within: modules that carry a captum rule propagate by it, whatever the composite says. Hooks are removed after.

    Raises:
        ChallengerError: for a ``module.rule`` that is neither a captum rule nor None, or one on a module with children.
    """
    ruled: list[nn.Module] = []
    for name, module in model.named_modules():
        rule = getattr(module, "rule", None)
        if rule is None:
            continue
        if not isinstance(rule, PropagationRule):
            raise ChallengerError(
                f"{name or 'The model'}.rule is a {type(rule).__name__}; expected one of captum's propagation rules"
                " (captum.attr._utils.lrp_rules: EpsilonRule, GammaRule, Alpha1_Beta0_Rule, IdentityRule) or None."
            )
        if list(module.children()):
            raise ChallengerError(
                f"{name or 'The model'} has a rule, but it is a {type(module).__name__} made of other modules. Set the rule"
                " on each of those."
            )
        ruled.append(module)
    inputs: dict[nn.Module, Tensor] = {}

    def without_graph(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs[module] = args[0]
        return (args[0].detach(), *args[1:])

    def by_rule(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        x = inputs.pop(module)
        if not is_data(x):
            return output
        with torch._C.DisableTorchFunction():  # the rule's own operations are not the model's
            return propagate(module, module.rule, x, output)

    handles = []
    try:
        for module in ruled:
            handles += [module.register_forward_pre_hook(without_graph), module.register_forward_hook(by_rule)]
        yield
    finally:
        for handle in handles:
            handle.remove()
