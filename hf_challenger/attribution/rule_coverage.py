"""Which operations of a pass no rule covers: these are reported, as a warning or an error.

Operations that are linear, or that only choose or move values, need no rule: the plain gradient is the ε-rule (:data:`PLAIN`).
Any other operation without a rule is reported if it mixes two data tensors. The interception cannot look inside
``autograd.Function``s and scripted code. They stand in the graph afterwards, and are reported from there.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from ..errors import ChallengerError, ChallengerWarning
from .composites import COMPOSITES, ELEMENTWISE, Operation, forms_of
from .rules import is_data

_LINEAR = """
    add sub subtract rsub __add__ __radd__ __sub__ __rsub__ add_ sub_ __iadd__ __isub__ sum mean
"""
_MOVING = """
    cat concat concatenate stack hstack vstack dstack row_stack column_stack block_diag where __getitem__
    __setitem__ index_put index_put_ index_copy index_copy_ index_add index_add_ index_fill index_select gather take
    take_along_dim scatter scatter_ scatter_add scatter_add_ scatter_reduce masked_scatter masked_scatter_
    masked_fill masked_fill_ copy_ broadcast_tensors meshgrid cartesian_prod pad unflatten fold unfold pad_sequence
    select_scatter slice_scatter diagonal_scatter split chunk complex view_as expand_as reshape_as type_as to set_
"""
_CHOOSING = """
    max min maximum minimum fmax fmin amax amin topk sort softmax log_softmax logsumexp logaddexp prelu
"""
_WITHOUT_VALUES = """
    size dim numel stride backward requires_grad_ detach is_floating_point
"""
PLAIN: frozenset[Operation] = frozenset(
    form for name in (_LINEAR + _MOVING + _CHOOSING + _WITHOUT_VALUES).split() for form in forms_of(name)
)

# autograd.Functions in transformers whose own backward is the rule: an inverse dropout, a softmax (Taylor: plain).
PLAIN_FUNCTIONS = {"XSoftmaxBackward", "XDropoutBackward"}
# Refused with its own error when the gradient is taken, see eager_pass.
REFUSED_LATER = {"CheckpointFunctionBackward"}

_reported: set[str] = set()


def report(message: str, strict: bool) -> None:
    """Raise if ``strict``, else warn, once a process for each message."""
    if strict:
        raise ChallengerError(message)
    if message not in _reported:
        _reported.add(message)
        warnings.warn(message, ChallengerWarning, stacklevel=2)


def check_operation(func: Operation, args: Iterable[Any], kwargs: Mapping[str, Any], output: Any, strict: bool) -> None:
    """Report an operation that has no rule if it mixes several data tensors. ``PLAIN`` ones should not get here."""
    outputs = output if isinstance(output, (tuple, list)) else (output,)
    if not any(map(is_data, outputs)) or sum(map(is_data, _tensors((*args, *kwargs.values())))) < 2:
        return
    name = getattr(func, "__name__", str(func))
    report(
        f"{name} in {_module_on_the_stack()} mixes several tensors that carry relevance, and no rule for it is known: its plain"
        f" gradient is used. Give it a rule with Composite.with_rules({{torch.{name}: ...}}).",
        strict,
    )


def check_graph(score: Tensor, model: nn.Module, table: Mapping[Operation, Any], strict: bool) -> None:
    """Report what the interception cannot have seen: nodes in the graph that no rule and no plain operation leaves there."""
    replaced = _replaced_nodes(_ByIdentity(table))
    for node in _nodes(score):
        name = node.name()
        function = getattr(type(node), "_forward_cls", None)
        if function is not None:
            if function.__module__.startswith("hf_challenger.") or name in PLAIN_FUNCTIONS | REFUSED_LATER:
                continue
            what = f"The autograd.Function {function.__module__}.{function.__name__}{_used_by(model, function.__name__)}"
        elif "jit" in name or (name in replaced and not has_module_rules(model)):
            what = f"Scripted code, or a fused call, in {type(model).__name__} ({name})"
        else:
            continue
        report(
            f"{what} hides its operations from the rules: its own gradient is used. Rewrite it in torch operations.", strict
        )


def has_module_rules(model: nn.Module) -> bool:
    """Whether captum rules are set: they call their modules once more, so that any node may come from there."""
    return any(getattr(module, "rule", None) is not None for module in model.modules())


class _ByIdentity:
    """A table as a key of a cache: by identity, since it cannot change."""

    def __init__(self, table: Mapping[Operation, Any]) -> None:
        self.table = table

    def __hash__(self) -> int:
        return id(self.table)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.table is self.table


@lru_cache(maxsize=16)
def _replaced_nodes(same: _ByIdentity) -> frozenset[str]:
    """Nodes that a rule of ours replaces in the graph; a user's rule for the operation may leave them there."""
    table, usual = same.table, COMPOSITES["attnlrp"].table
    return frozenset(
        node for name, node in _NODES.items() if all(table.get(form) is usual.get(form) for form in forms_of(name))
    )


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_")) + "Backward0"


# Their rules leave other nodes behind, so that these can only come from where the interception cannot look.
_NODES = {name: _camel(name) for name in ELEMENTWISE if not name.startswith("clamp")} | {
    "layer_norm": "NativeLayerNormBackward0",
}


def _nodes(score: Tensor) -> Iterator[Node]:
    waiting, seen = [score.grad_fn], set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting.extend(following for following, _ in node.next_functions)


def _tensors(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, (tuple, list)):
            yield from _tensors(value)
        else:
            yield value


def _module_on_the_stack() -> str:
    """The innermost torch module whose method is being run, read off the Python stack."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return type(owner).__name__
        frame = frame.f_back
    return "the model"


def _used_by(model: nn.Module, name: str) -> str:
    for module in model.modules():
        code = getattr(getattr(type(module), "forward", None), "__code__", None)
        if code is not None and name in code.co_names:
            return f" in {type(module).__name__}"
    return ""
