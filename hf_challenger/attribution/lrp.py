"""LRP for any unmodified torch classifier, with captum's interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from captum.attr import GradientAttribution
from torch import Tensor, nn

from ..errors import ChallengerError
from ..inputs.main_input import LABEL_KEYS as LABEL_KEYS
from ..inputs.main_input import main_input_in
from ..logits import logits_of
from .captum_rules import module_rules
from .composed_modules import composed_module_rules
from .composites import Composite
from .eager_pass import outside_inference
from .interception import Interception, Leaf
from .state import attribution_state
from .targets import Target, score_of


class LRP(GradientAttribution):
    """Layer-wise relevance propagation by rules on operations.

    One forward pass and one backward pass to the inputs; the model is not patched and keeps its state. captum's rule objects
    are honoured where they are set on modules (``module.rule = GammaRule()``), see :mod:`.captum_rules`; for relevance at a
    module see :class:`~.layer.LayerLRP`.

    Args:
        model: any torch module that returns scores: a tensor, or an output with ``logits``.
        composite: which rule for which operation: ``"attnlrp"`` (Achtibat et al. 2024), ``"cp_lrp"`` (Ali et al. 2022),
            ``"epsilon"``, ``"gradient"`` (Gradient×Input), or a :class:`~.composites.Composite`.
        strict: raise where relevance would pass through an operation that no rule covers, instead of warning once.

    Example::

        >>> relevance = LRP(model).attribute(tokenizer(texts, padding=True, return_tensors="pt"), target=labels)
        >>> relevance.shape                       # (rows, length, hidden); .sum(-1) is relevance per token
    """

    def __init__(self, model: nn.Module, composite: str | Composite = "attnlrp", strict: bool = False) -> None:
        model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper: rules need the operations one by one
        super().__init__(model)
        self.model = model
        self.composite = Composite.named(composite)
        self.strict = strict

    @property
    def multiplies_by_inputs(self) -> bool:
        return True

    def has_convergence_delta(self) -> bool:
        return True

    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Target = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        *,
        main_input: str | None = None,
    ) -> Any:
        """Relevance of the inputs for the target's score.

        Args:
            inputs: a batch as the model takes it, a dict. One of its tensors is attributed, and labels in it are left out.
                Or, as in captum, an input tensor or a tuple of them, each with one entry a row on its first axis.
            target: the explained score, see :func:`~.targets.score_of`. None: the model's only output, or with several
                classes the one each row predicts.
            additional_forward_args: further positional arguments of the model, as in captum; not attributed. Not with a dict.
            return_convergence_delta: also return score minus summed relevance, ``(rows,)``. Rules with halves, constants or
                biases absorb relevance, so that it is not 0 in general; it is for piecewise linear networks without biases.
            main_input: the key of the dict that is attributed, such as an adapter's ``key``. None: the model's main input,
                see :func:`~hf_challenger.inputs.main_input.main_input_in`.

        Returns:
            For integer inputs relevance at their embeddings, ``(rows, length, hidden)``; for float inputs a tensor of the
            input's own shape. In the unit of the score. For a tuple a tuple. Where a model looks its ids up in several
            tables, ``hidden`` is the width of its main one and the sum over ``hidden`` counts all of them.

        Raises:
            ChallengerError: where the attributed input is not known; for a target that does not fit the scores; for ids that
                the model never embeds; for a model that calls ``torch.utils.checkpoint`` in eval mode; with ``strict`` for
                operations without a rule.
        """
        relevances, score = self._propagate(inputs, target, additional_forward_args, main_input)
        result: Any = relevances if isinstance(inputs, tuple) else relevances[0]
        if return_convergence_delta:
            return result, self.compute_convergence_delta(relevances, score)
        return result

    def attribute_future(self) -> None:
        """Not implemented, as in captum's LRP."""
        raise NotImplementedError("attribute_future is not implemented for LRP. Use attribute.")

    def _propagate(
        self,
        inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any],
        target: Target,
        forward_args: Any,
        main_input: str | None = None,
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Relevances of the attributed tensors, and the explained score, ``(rows,)``."""
        with attribution_state(self.model):
            attributed, call = self._prepared(inputs, forward_args, main_input)
            ids = next((x for x in attributed if not x.is_floating_point()), None)
            if ids is not None and len(attributed) > 1:
                raise ChallengerError("Integer inputs are attributed one at a time: pass a dict, or a single tensor of ids.")
            values = tuple(x.detach().requires_grad_() if x.is_floating_point() else x for x in attributed)
            table = embedding_table(self.model) if ids is not None else None
            interception = Interception(self.composite, ids, table, self.strict)
            with (
                composed_module_rules(self.model, interception),
                module_rules(self.model),
                self._recording_hooks(),
                interception,
            ):
                # A clone each: a model may write into its input, which a leaf forbids.
                outputs = call(tuple(x.clone() if x.is_floating_point() else x for x in values))
            score = score_of(logits_of(outputs, self.model), target)
            interception.check_graph(score, self.model)
            leaves = interception.leaves if ids is not None else [Leaf(x, x) for x in values]
            if not leaves:
                raise ChallengerError(
                    f"{type(self.model).__name__} never looked its ids up with torch.nn.functional.embedding, so there is no"
                    " place to read relevance at. Pass float inputs instead."
                )
            relevances = self._read_relevance(score, leaves)
        if ids is not None and self._at_inputs:
            width = table.shape[-1] if table is not None else relevances[0].shape[-1]
            relevances = [sum_over_lookups(relevances, leaves, ids, width)]
        return tuple(relevances), score.detach()

    def _prepared(
        self, inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any], forward_args: Any, main_input: str | None
    ) -> tuple[tuple[Tensor, ...], Callable[[tuple[Tensor, ...]], Any]]:
        """The attributed tensors, and how to call the model with others in their place."""
        if isinstance(inputs, Mapping):
            if forward_args is not None:
                raise ChallengerError("additional_forward_args go with tensor inputs; add them to the dict, by their names.")
            key = main_input_in(self.model, inputs, main_input)
            batch = outside_inference({k: v for k, v in inputs.items() if k not in LABEL_KEYS})
            return (batch[key],), lambda values: self.model(**{**batch, key: values[0]})
        if main_input is not None:
            raise ChallengerError(
                f"main_input={main_input!r} names a key of a dict, but the inputs are tensors. Leave it out."
            )
        forward_args = () if forward_args is None else forward_args if isinstance(forward_args, tuple) else (forward_args,)
        forward_args = outside_inference(forward_args)
        tensors = outside_inference(inputs if isinstance(inputs, tuple) else (inputs,))
        return tensors, lambda values: self.model(*values, *forward_args)

    _at_inputs = True

    def _recording_hooks(self) -> AbstractContextManager[None]:
        """Entered for the forward pass: where relevance is read elsewhere than at the inputs."""
        return nullcontext()

    def _read_relevance(self, score: Tensor, leaves: list[Leaf]) -> list[Tensor]:
        """Relevance at each leaf: value times modified gradient."""
        return times_gradient(score, [leaf.values for leaf in leaves])

    def compute_convergence_delta(self, attributions: Any, output: Tensor) -> Tensor:
        """Score minus summed relevance, ``(rows,)``.

        Args:
            attributions: relevance, a tensor or a tuple of them, rows on the first axis.
            output: the explained score, ``(rows,)``.
        """
        attributions = attributions if isinstance(attributions, tuple) else (attributions,)
        return output.flatten() - sum(relevance.flatten(1).sum(1) for relevance in attributions)


def times_gradient(score: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
    """x ⊙ ∂(summed score)/∂x for each x; zeros where the score does not depend on x."""
    gradients = torch.autograd.grad(score.sum(), values, allow_unused=True)
    return [
        torch.zeros_like(x) if gradient is None else x.detach() * gradient
        for x, gradient in zip(values, gradients, strict=True)
    ]


def embedding_table(model: nn.Module) -> Tensor | None:
    """The weight of ``model.get_input_embeddings()``, None where a model has no such thing."""
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return getattr(table, "weight", None)


def sum_over_lookups(relevances: list[Tensor], leaves: list[Leaf], ids: Tensor, width: int) -> Tensor:
    """Relevance aligned with ``ids``, summed over all lookups of them, ``(rows, length, hidden)``.

    An encoder-decoder looks its ids up twice, the second time shifted by one. LoRA on an embedding looks them up in a second
    table of another width (its rank). Relevance there is spread evenly over the main table's width, so that the sum over
    ``hidden`` is right.

    Args:
        relevances: at each leaf, of the leaf's own shape.
        leaves: the lookups, in the order of the forward pass.
        ids: ``(rows, length)``, the batch's own.
        width: ``hidden`` of the result, where one of the lookups has it; else that of the first one.
    """
    aligned = [_aligned(relevance, leaf.ids, ids) for relevance, leaf in zip(relevances, leaves, strict=True)]
    found = [relevance for relevance in aligned if relevance is not None]
    if not found:
        raise ChallengerError(
            f"The model embedded ids of shape {[tuple(x.ids.shape) for x in leaves]}, not {tuple(ids.shape)}."
        )
    widths = [relevance.shape[-1] for relevance in found]
    width = width if width in widths else widths[0]
    total = torch.zeros_like(next(relevance for relevance in found if relevance.shape[-1] == width))
    for relevance in found:
        same = relevance.shape[-1] == width
        total = total + (relevance if same else relevance.sum(-1, keepdim=True) / width)
    return total


def _aligned(relevance: Tensor, own: Tensor, ids: Tensor) -> Tensor | None:
    """Relevance of the tokens that were looked up as ``own``, at their places in ``ids``; None if they are others."""
    if own.dim() != ids.dim() and own.numel() == ids.numel():
        relevance, own = relevance.reshape(*ids.shape, -1), own.reshape(ids.shape)
    if own.dim() == 2 and own.shape[0] == ids.shape[0] and own.shape[1] > ids.shape[1]:  # Longformer pads to its window
        relevance, own = relevance[:, : ids.shape[1]], own[:, : ids.shape[1]]
    if own.shape == ids.shape and (own.data_ptr() == ids.data_ptr() or torch.equal(own, ids)):
        return relevance
    if own.dim() == 2 and own.shape == ids.T.shape and torch.equal(own.T, ids):  # XLNet: length first
        return relevance.transpose(0, 1)
    if own.shape == ids.shape and torch.equal(own[:, 1:].clamp(min=0), ids[:, :-1].clamp(min=0)):  # BART, T5: shift_right
        return torch.cat([relevance[:, 1:], torch.zeros_like(relevance[:, :1])], dim=1)
    return None  # another lookup in the same table, such as a learned prefix: not a token of this batch
