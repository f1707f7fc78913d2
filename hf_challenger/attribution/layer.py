"""Relevance at any module of a model: at the input of a block, the output of a layer, a head's features."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import ChallengerError
from .composites import Composite
from .interception import Leaf
from .lrp import LRP, times_gradient
from .targets import Target


class LayerLRP(LRP):
    """As :class:`~.lrp.LRP`, with relevance read at a module in place of the inputs (captum's ``LayerLRP``).

    Args:
        model: any torch classifier.
        layer: one of its modules, or the name of one, as in ``model.named_modules()``.
        composite, strict: as for :class:`~.lrp.LRP`.

    Example::

        >>> LayerLRP(model, "bert.encoder.layer.3").attribute(batch, target=labels).shape    # (rows, length, hidden)
    """

    def __init__(
        self, model: nn.Module, layer: nn.Module | str, composite: str | Composite = "attnlrp", strict: bool = False
    ) -> None:
        super().__init__(model, composite, strict)
        modules = dict(self.model.named_modules())
        name = layer if isinstance(layer, str) else next((n for n, m in modules.items() if m is layer), None)
        if name is None:
            raise ChallengerError(f"The layer, a {type(layer).__name__}, is not a module of this {type(model).__name__}.")
        if name not in modules:
            alike = [n for n in modules if n.split(".")[-1] == name.split(".")[-1]] or [n for n in modules if n]
            raise ChallengerError(
                f"{type(model).__name__} has no module {name!r}. Among its modules: {', '.join(alike[:8])}."
            )
        self.layer, self.layer_name = modules[name], name
        self._of_input = False
        self._seen: list[Tensor] = []

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        *,
        main_input: str | None = None,
    ) -> Any:
        """Relevance of the layer's first output tensor (or first input tensor), in its shape.

        Args:
            inputs, target, additional_forward_args, return_convergence_delta, main_input: as in :meth:`.lrp.LRP.attribute`.
            attribute_to_layer_input: read at what goes into the layer, not at what comes out.

        Returns:
            A tensor; for a layer that is called several times a tuple of them, in the order of the calls.

        Raises:
            ChallengerError: as in :meth:`.lrp.LRP.attribute`, and where nothing that depends on the inputs reaches the layer.
        """
        self._of_input, self._seen = attribute_to_layer_input, []
        try:
            relevances, score = self._propagate(inputs, target, additional_forward_args, main_input)
        finally:
            self._seen = []
        result: Any = relevances[0] if len(relevances) == 1 else relevances
        return (result, self.compute_convergence_delta(relevances, score)) if return_convergence_delta else result

    @contextmanager
    def _recording_hooks(self) -> Iterator[None]:
        def keep(x: Any) -> Any:
            if isinstance(x, (tuple, list)) and x:
                return type(x)((keep(x[0]), *x[1:]))
            if isinstance(x, Tensor) and x.requires_grad:
                self._seen.append(x)
                return x.clone()  # what follows may write into it
            return x

        def before(module: nn.Module, args: tuple[Any, ...]) -> Any:
            return keep(args)

        def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            return keep(output)

        # Rules hook modules too, and give them detached inputs: be the first at the input, the last at the output.
        handle = (
            self.layer.register_forward_pre_hook(before, prepend=True)
            if self._of_input
            else self.layer.register_forward_hook(after)
        )
        try:
            yield
        finally:
            handle.remove()

    _at_inputs = False

    def _read_relevance(self, score: Tensor, leaves: list[Leaf]) -> list[Tensor]:
        if not self._seen:
            raise ChallengerError(
                f"The forward pass never gave {self.layer_name or type(self.layer).__name__} a tensor that depends on the"
                " inputs, so there is no relevance to read there. Choose another layer."
            )
        return times_gradient(score, self._seen)
