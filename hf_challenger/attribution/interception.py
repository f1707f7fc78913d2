"""The operations of an unmodified model, seen one by one during a single pass.

Entered for one forward pass, an :class:`Interception` hands each torch operation that has a rule to that rule, and makes
the embeddings of the model's own token ids the leaves at which relevance is read. Nothing is patched: on leaving the
``with`` there is nothing to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .composites import Composite, forms_of
from .rule_coverage import PLAIN, check_graph, check_operation
from .rules import Rule

# Ids computed from the batch's ids by these still stand for the same tokens: CANINE looks up hashes of them.
HASHING = frozenset(
    form
    for name in (
        "add",
        "__add__",
        "mul",
        "__mul__",
        "remainder",
        "__mod__",
        "__rmod__",
        "sub",
        "__sub__",
        "clone",
        "to",
        "long",
    )
    for form in forms_of(name)
)


@dataclass
class Leaf:
    """An embedding of the model's token ids: where relevance is read.

    Attributes:
        values: ``ids.shape + (hidden,)``, requires grad.
        ids: the ids as the model looked them up, maybe transposed or shifted against the batch's own.
    """

    values: Tensor
    ids: Tensor


class Interception(TorchFunctionMode):
    """Applies a composite to every operation, and opens the embeddings of ``token_ids`` as leaves.

    Args:
        composite: the table operation → rule.
        token_ids: ``(rows, length)`` ids whose embeddings become leaves; None where the inputs are float tensors.
        embedding_weight: the table of the model's input embeddings: lookups in it count even if the model made new ids
            (a decoder that shifts them).
        strict: raise at an operation without a rule that mixes several data tensors, instead of a warning.
    """

    def __init__(
        self,
        composite: Composite,
        token_ids: Tensor | None = None,
        embedding_weight: Tensor | None = None,
        strict: bool = False,
    ) -> None:
        super().__init__()
        self.composite = composite
        self.rules: Mapping[Callable[..., Any], Rule] = composite.table
        self.strict = strict
        self.token_ids = token_ids
        self.embedding_weight = embedding_weight
        self.leaves: list[Leaf] = []
        self.hashes: dict[int, Tensor] = {} if token_ids is None else {id(token_ids): token_ids}  # by identity

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.embedding and self.token_ids is not None:
            ids = args[0] if args else kwargs["input"]
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            if self._looks_up_tokens(ids, weight):
                with torch.no_grad():
                    values = func(*args, **kwargs)
                leaf = values.detach().requires_grad_()
                self.leaves.append(Leaf(leaf, self.token_ids if id(ids) in self.hashes else ids))
                return leaf.clone()  # models may go on in place, which a leaf forbids
        rule = self.rules.get(func)
        if rule is not None:
            output = rule(func, args, kwargs)
        else:
            output = func(*args, **kwargs)
            if func not in PLAIN and self.rules:  # without any rule, plain gradients are what is asked for
                check_operation(func, args, kwargs, output, self.strict)
        if args and func in HASHING and id(args[0]) in self.hashes and isinstance(output, Tensor):
            self.hashes[id(output)] = output
        return output

    def check_graph(self, score: Tensor, model: nn.Module) -> None:
        """Report, or if strict refuse, what this pass could not see: see :mod:`~.rule_coverage`."""
        if self.rules:
            check_graph(score, model, self.rules, self.strict)

    def _looks_up_tokens(self, ids: Tensor, weight: Tensor) -> bool:
        own = self.token_ids
        assert own is not None
        same = ids.data_ptr() == own.data_ptr() and ids.numel() == own.numel()
        return same or weight is self.embedding_weight or id(ids) in self.hashes
