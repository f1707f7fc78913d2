"""captum's rule objects, set on modules (``module.rule = GammaRule()``), honoured during our LRP.

captum's rules exchange a layer's weights and propagate through the exchanged layer: with z' the output under the new
weights, R_i = Σ_j x_i · ∂z'_j/∂x_i / (z'_j + s·sign z'_j) · R_j, where s is the rule's ``STABILITY_FACTOR``. With
R_j = z_j · grad_j that is the gradient through z'(x), weighted by z / (z' + s·sign z'). The weights are exchanged by the
rule's own code, on a copy, so that rules of your own (``PropagationRule`` with ``_manipulate_weights``) hold as well.

Unlike in captum, ``module.rule`` stays set after the attribution, and a module may be used twice. A module with several inputs
hands relevance to each by its contribution, and one that writes into its input (``nn.ReLU(inplace=True)``) may have a rule too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from captum.attr._utils.lrp_rules import IdentityRule, PropagationRule
from torch import Tensor, nn

from ..errors import ChallengerError
from .rules import is_data, stable_ratio, with_slope


def propagate(
    module: nn.Module, rule: PropagationRule, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Tensor
) -> Tensor:
    """The output of ``module`` with the backward pass of ``rule`` to every data tensor among its inputs.

    Args:
        module: called as ``module(*args, **kwargs)``; several inputs share relevance as their contributions do.
        rule: one of captum's rules, or one of your own.
        args, kwargs: its inputs, with their graphs.
        output: what it returned.

    Raises:
        ChallengerError: for an IdentityRule where input and output have different shapes, or with several inputs.
    """
    y = output.detach()
    if isinstance(rule, IdentityRule):  # R_i = R_i, hence ∂y/∂x := y/x; a unit of value 0 has no relevance in this form
        x = _only_input(module, (*args, *kwargs.values()), y)
        value = x.detach()
        return with_slope(x, y, stable_ratio(y, value, 0).masked_fill(value == 0, 0))
    changed = _copy(module)
    rule._manipulate_weights(changed, tuple(_each(torch.Tensor.detach, args)), y)
    z = changed.forward(*_each(torch.Tensor.clone, args), **_each(torch.Tensor.clone, kwargs))  # it may write into them
    return with_slope(z, y, stable_ratio(y, z.detach(), rule.STABILITY_FACTOR))


def _each(function: Callable[[Tensor], Tensor], values: Any) -> Any:
    """The inputs of a module with ``function`` applied to each tensor, also inside of lists and tuples."""
    if isinstance(values, Tensor):
        return function(values)
    if type(values) is dict:
        return {key: _each(function, value) for key, value in values.items()}
    return type(values)(_each(function, value) for value in values) if type(values) in (list, tuple) else values


def _only_input(module: nn.Module, inputs: tuple[Any, ...], y: Tensor) -> Tensor:
    """The one data tensor that an IdentityRule hands relevance to."""
    data = [x for x in inputs if is_data(x)]
    name = type(module).__name__
    if len(data) != 1:
        raise ChallengerError(
            f"IdentityRule passes relevance on unchanged to a single input, but {name} has {len(data)} that carry relevance."
            " Use EpsilonRule there."
        )
    if data[0].shape != y.shape:
        raise ChallengerError(
            f"IdentityRule passes relevance on unchanged, so that input and output of {name} must have one shape; they are"
            f" {tuple(data[0].shape)} and {tuple(y.shape)}. Use EpsilonRule there."
        )
    return data[0]


def _copy(module: nn.Module) -> nn.Module:
    """The module with parameters of its own, which a rule may then change; all else is shared."""
    twin = copy.copy(module)
    twin._parameters = {
        name: None if p is None else nn.Parameter(p.detach().clone(), requires_grad=False)
        for name, p in module._parameters.items()
    }
    return twin


@dataclass
class _Call:
    """One call of a module with a rule.

    Attributes:
        args, kwargs: its inputs, with their graphs.
        copies: what the module got in their place.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    copies: tuple[Any, Any]

    def input_behind(self, output: Tensor) -> Tensor | None:
        """The input that the module wrote its output into (``nn.ReLU(inplace=True)``), None for the usual module."""
        for x, copied in zip(_tensors((self.args, self.kwargs)), _tensors(self.copies), strict=True):
            if copied.data_ptr() == output.data_ptr() and copied.shape == output.shape and copied._version > 0:
                return x
        return None


def _copy_without_graph(x: Tensor) -> Tensor:
    """Ids stay as they are: the interception knows them by their place in memory."""
    return x.detach().clone() if x.is_floating_point() else x


def _tensors(values: Any) -> Iterator[Tensor]:
    """The tensors among the inputs of a module, in order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (Mapping, list, tuple)):
        for value in values.values() if isinstance(values, Mapping) else values:
            yield from _tensors(value)


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
    calls: list[_Call] = []  # the innermost last

    def without_graph(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        with torch._C.DisableTorchFunction():  # neither these operations nor the rule's own are the model's
            copies = _each(_copy_without_graph, args), _each(_copy_without_graph, kwargs)
        calls.append(_Call(args, kwargs, copies))
        return copies

    def by_rule(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        call = calls.pop()
        if not any(map(is_data, _tensors((call.args, call.kwargs)))):
            return output
        if not isinstance(output, Tensor):
            raise ChallengerError(
                f"{type(module).__name__} has a rule, but it returned a {type(output).__name__}; captum's rules are for modules that"
                " return one tensor. Remove its rule: its operations have rules of their own."
            )
        with torch._C.DisableTorchFunction():
            written = call.input_behind(output)
            result = propagate(module, module.rule, call.args, call.kwargs, output)
            return result if written is None else written.copy_(result)

    handles = []
    try:
        for module in ruled:
            handles += [
                module.register_forward_pre_hook(without_graph, with_kwargs=True),
                module.register_forward_hook(by_rule, with_kwargs=True),
            ]
        yield
    finally:
        for handle in handles:
            handle.remove()
