"""PA-LRP: a unit is a token at its place, so that what positions take counts for the tokens that stand there.

Bakish et al. 2025, "Revisiting LRP: Positional Attribution as the Missing Ingredient for Transformer Explainability"
(arXiv 2506.02138). :class:`~.lrp.LRP` takes positions as weights. Here they are inputs, which carry relevance:

    looked-up embeddings (learned or sinusoidal), e + p   ε-rule: p keeps the share p / (e + p), e keeps its own
    rotary embeddings, q·cos + rotate(q)·sin, and k       uniform on each product: q and its cos (sin) get half each

Rotary embeddings serve every layer, so that theirs is the sum over layers. Unlike the authors' own code we take no absolute
values and normalise nothing on the way: relevance stays in the unit of the score, and may be negative.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import ChallengerError
from ..inputs.main_input import main_input_in
from .interception import Leaf
from .lrp import LRP, times_gradient
from .rules import is_data
from .targets import Target

# Modules that look absolute positions up, by their names in transformers: position_embeddings, embed_positions, wpe, ...
# Not relative ones (rel_pos_bias): what these give belongs to a pair of places.
LOOKUP = re.compile(r"(^|_)(positions?|pos|wpe)(_|$)")
RELATIVE = re.compile(r"(^|_)rel(ative)?(_|$)")


class PositionalLRP(LRP):
    """As :class:`~.lrp.LRP`, with the relevance of each place's position added to that of the token there.

    Relevance has the shape that LRP gives, ``(rows, length, hidden)``. Rotary relevance has no hidden axis of its own and is
    spread evenly over it: read tokens by ``.sum(-1)``. Under ``"cp_lrp"`` rotary positions get nothing, since attention
    weights are constant there.

    Raises:
        ChallengerError: where positions are not embeddings of single places (ALiBi, relative biases), where the ids are
            looked up more than once (encoder-decoders), and for inputs that are not ids. Where a model has relative biases
            *beside* absolute positions (MPNet), the biases stay weights.

    Example::

        >>> PositionalLRP(model).attribute(batch, target=labels).sum(-1)    # (rows, length)
    """

    def _propagate(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Target,
        forward_args: Any,
        main_input: str | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        ids = inputs[main_input_in(self.model, inputs, main_input)] if isinstance(inputs, Mapping) else inputs
        if not isinstance(ids, Tensor) or ids.is_floating_point():
            raise ChallengerError("PositionalLRP attributes token ids, (rows, length); use LRP for float inputs.")
        self._rows = len(ids)
        self._positions: list[Tensor] = []
        try:
            return super()._propagate(inputs, target, forward_args, main_input)
        finally:
            self._positions = []

    @contextmanager
    def _recording_hooks(self) -> Iterator[None]:
        def opened(x: Tensor) -> Tensor:
            """A leaf for each row: positions are often looked up once for the whole batch."""
            leaf = x.detach().expand(self._rows, -1, -1).clone().requires_grad_()
            self._positions.append(leaf)
            return leaf.clone()

        def of_places(x: Any) -> bool:
            is_floats = isinstance(x, Tensor) and x.is_floating_point() and not is_data(x)
            return is_floats and x.dim() == 3 and len(x) in (1, self._rows)

        def after_lookup(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            computed = any(isinstance(x, Tensor) and x.is_floating_point() for x in (*args, *kwargs.values()))
            return opened(output) if of_places(output) and not computed else output

        def after_rotary(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            is_pair = isinstance(output, tuple) and len(output) == 2 and all(map(of_places, output))
            return tuple(map(opened, output)) if is_pair else output

        handles = []
        try:
            for name, module in self.model.named_modules():
                own = name.rpartition(".")[2]
                if "Rotary" in type(module).__name__:
                    handles.append(module.register_forward_hook(after_rotary, with_kwargs=True))
                elif LOOKUP.search(own) and not RELATIVE.search(own):
                    handles.append(module.register_forward_hook(after_lookup, with_kwargs=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _read_relevance(self, score: Tensor, leaves: list[Leaf]) -> list[Tensor]:
        name = type(self.model).__name__
        if any(leaf.ids is not leaves[0].ids for leaf in leaves):  # LoRA looks the same ids up in two tables
            raise ChallengerError(
                f"{name} looks its ids up {len(leaves)} times (as encoder-decoders do): which position belongs to which of them"
                " is not known. Use LRP."
            )
        tokens, *others = times_gradient(score, [*(leaf.values for leaf in leaves), *self._positions])
        other_tables, positions = others[: len(leaves) - 1], others[len(leaves) - 1 :]
        if not positions or any(x.shape[:2] != tokens.shape[:2] for x in positions):
            seen = ", ".join(str(tuple(x.shape)) for x in positions) or "none"
            raise ChallengerError(
                f"PositionalLRP needs an embedding for each of the {tuple(tokens.shape[:2])} places (rows, length), looked up"
                f" by a module with 'position' in its name, or rotary cos and sin; found in {name}: {seen}. ALiBi and relative"
                " position biases belong to pairs of places and cannot be given to one. Use LRP."
            )
        for relevance in positions:
            same = relevance.shape == tokens.shape
            tokens = tokens + (relevance if same else relevance.sum(-1, keepdim=True) / tokens.shape[-1])
        return [tokens, *other_tables]
