"""The operations of an unmodified model, seen one by one during a single pass.

Entered for one forward pass, an :class:`Interception` hands each torch operation that has a rule to that rule, and makes
the embeddings of the model's own token ids the leaves at which relevance is read. Nothing is patched: on leaving the
``with`` there is nothing to undo.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .composites import Composite
from .rules import pass_unchanged


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
    """

    def __init__(
        self, composite: Composite, token_ids: Tensor | None = None, embedding_weight: Tensor | None = None
    ) -> None:
        super().__init__()
        self.rules = composite.table
        self.token_ids = token_ids
        self.embedding_weight = embedding_weight
        self.leaves: list[Leaf] = []

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
                self.leaves.append(Leaf(leaf, ids))
                return leaf.clone()  # models may go on in place, which a leaf forbids
        rule = self.rules.get(func)
        return func(*args, **kwargs) if rule is None else rule(func, args, kwargs)

    def _looks_up_tokens(self, ids: Tensor, weight: Tensor) -> bool:
        own = self.token_ids
        assert own is not None
        return weight is self.embedding_weight or (ids.data_ptr() == own.data_ptr() and ids.numel() == own.numel())


@contextmanager
def activation_modules(model: nn.Module, composite: Composite) -> Iterator[None]:
    """Within: transformers' activation modules that are written as several operations count as one elementwise function.

    Their classes all live in ``transformers.activations``; hooks on the instances are removed on the way out.
    """
    if not composite.activations:
        yield
        return
    activations = [m for m in model.modules() if type(m).__module__ == "transformers.activations" and not list(m.children())]
    inputs: dict[nn.Module, Tensor] = {}

    def without_graph(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        inputs[module] = args[0]
        return (args[0].detach(), *args[1:])

    def as_one(module: nn.Module, _: tuple[Any, ...], output: Tensor) -> Tensor:
        return pass_unchanged(inputs.pop(module), output, module.forward)

    handles = [m.register_forward_pre_hook(without_graph) for m in activations]
    handles += [m.register_forward_hook(as_one) for m in activations]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
