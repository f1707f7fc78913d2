"""What single operations do not tell: modules whose rule covers several operations at once.

Forward hooks on the instances, there for one pass and removed on the way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .composites import forms_of
from .interception import Interception
from .rules import Rule, constant, is_data, pass_unchanged

Parts = dict[tuple[int, ...], tuple[int, ...]]  # the sizes that a tensor is split into → which of the pieces are constant

# Activations written out in several operations, outside transformers.activations.
ACTIVATIONS = {"BloomGelu"}
# Modules whose forward is f(child(x)) with f written out in several operations, by class name: the child.
ACTIVATIONS_AFTER = {"EsmIntermediate": "dense"}


@contextmanager
def composed_module_rules(model: nn.Module, interception: Interception) -> Iterator[None]:
    """Within: composed activations count as one elementwise function, and state-space layers keep their gates constant."""
    if not interception.composite.activations:
        yield
        return
    handles: list[RemovableHandle] = []
    projections: list[nn.Parameter] = []
    parts: Parts = {}
    try:
        for module in model.modules():
            name = type(module).__name__
            if name in ACTIVATIONS or type(module).__module__ == "transformers.activations":
                if not list(module.children()):
                    handles += _as_one_function(module, module)
            elif name in ACTIVATIONS_AFTER:
                handles += _as_one_function(module, module.get_submodule(ACTIVATIONS_AFTER[name]))
            elif hasattr(module, "A_log"):
                handles += _constant_gates(module, projections, parts)
                interception.rules = {**interception.rules, **dict.fromkeys(forms_of("split"), _split(parts))}
        if projections:
            interception.rules = {**interception.rules, **_constant_products_with(projections, interception.rules)}
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_one_function(module: nn.Module, inner: nn.Module) -> list[RemovableHandle]:
    """The module's output is an elementwise function of its input, or of the output of ``inner``: identity rule."""
    inputs: list[Tensor] = []

    def cut(x: Tensor) -> Tensor:
        inputs.append(x)
        return x.detach()

    def before(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (cut(args[0]), *args[1:])

    def after_inner(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return cut(output)

    def function(x: Tensor) -> Tensor:
        return module.forward(x) if inner is module else torch.zeros_like(x)  # those of ACTIVATIONS_AFTER are 0 at 0

    def after(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return pass_unchanged(inputs.pop(), output, function)

    first = inner.register_forward_hook(after_inner) if inner is not module else module.register_forward_pre_hook(before)
    return [first, module.register_forward_hook(after)]


# --- state-space layers -----------------------------------------------------------------------------------------------


def _constant_gates(module: nn.Module, projections: list[nn.Parameter], parts: Parts) -> list[RemovableHandle]:
    """MambaLRP (Jafari et al. 2024, arXiv 2406.07592): what selects (Δ, B, C) is constant, the signal x takes all.

    With the uniform rule a recurrence h_t = a_t h_{t-1} + … would halve relevance at every step. In gated delta nets
    (Qwen3-Next, Qwen3.5) the same holds of queries, keys, decay and β: the values take all, as in CP-LRP. Mixers are known
    by their parts, not by their class; those that are not known keep the rules of their operations.
    """

    def detached(name: str) -> list[RemovableHandle]:
        return [getattr(module, name).register_forward_hook(lambda _, __, output: output.detach())]

    def split_off(own: Parts) -> list[RemovableHandle]:
        return [
            module.register_forward_pre_hook(lambda *_: parts.update(own)),
            module.register_forward_hook(lambda *_: parts.clear()),
        ]

    m: Any = module
    if hasattr(m, "x_proj"):  # Mamba
        return detached("x_proj")
    if hasattr(m, "x_proj_weight"):  # Zamba: a projection per head, without a module of its own
        projections.append(m.x_proj_weight)
        return []
    if hasattr(m, "ssm_state_size") and hasattr(m, "n_groups") and hasattr(m, "conv_dim"):  # Mamba-2
        selecting = m.n_groups * m.ssm_state_size
        return split_off(
            {(m.intermediate_size, m.conv_dim, m.num_heads): (2,), (m.intermediate_size, selecting, selecting): (1, 2)}
        )
    if hasattr(m, "key_dim") and hasattr(m, "value_dim"):  # gated delta nets
        gates = [name for name in ("in_proj_ba", "in_proj_a", "in_proj_b") if hasattr(m, name)]
        handles = [handle for name in gates for handle in detached(name)]
        return handles + split_off({(m.key_dim, m.key_dim, m.value_dim): (0, 1)})
    return []


def _split(parts: Parts) -> Rule:
    """``torch.split`` into sizes that ``parts`` lists: some of the pieces are constant. All else is plain."""

    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        pieces = func(*args, **kwargs)
        sizes = next((x for x in (*args[1:], *kwargs.values()) if isinstance(x, (list, tuple))), ())
        stopped = parts.get(tuple(sizes), ())
        return tuple(piece.detach() if i in stopped else piece for i, piece in enumerate(pieces)) if stopped else pieces

    return rule


def _constant_products_with(
    weights: list[nn.Parameter], table: Mapping[Callable[..., Any], Rule]
) -> dict[Callable[..., Any], Rule]:
    """Matrix products with one of the weights, or with a view of it, are constant; all others keep their rule."""
    storages = {weight.untyped_storage().data_ptr() for weight in weights}

    def watching(rule: Rule) -> Rule:
        def watching_rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            selects = any(
                isinstance(x, Tensor) and not is_data(x) and x.untyped_storage().data_ptr() in storages for x in args
            )
            return (constant if selects else rule)(func, args, kwargs)

        return watching_rule

    return {form: watching(table[form]) for name in ("matmul", "__matmul__") for form in forms_of(name) if form in table}
