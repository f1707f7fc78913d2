"""LRP for any unmodified torch classifier, with captum's interface."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from captum.attr import GradientAttribution
from torch import Tensor, nn

from ..errors import ChallengerError
from ..logits import logits_of
from .captum_rules import module_rules
from .composites import Composite
from .interception import Interception, Leaf
from .modules import whole_modules
from .state import attribution_state
from .targets import Target, score_of

LABEL_KEYS = ("labels", "label", "label_ids", "target_values")


def main_input(model: nn.Module, batch: Mapping[str, Any]) -> str:
    """The key of ``batch`` that is attributed: the model's ``main_input_name``, or else its only tensor of ids or floats."""
    name = getattr(model, "main_input_name", None)
    if name in batch:
        return str(name)
    candidates = [
        key
        for key, value in batch.items()
        if isinstance(value, Tensor) and key not in LABEL_KEYS and not key.endswith("mask") and value.dim() > 1
    ]
    if len(candidates) == 1:
        return candidates[0]
    for known in ("input_ids", "pixel_values", "input_values", "input_features", "past_values", "inputs", "x"):
        if known in candidates:
            return known
    raise ChallengerError(
        f"Cannot tell which of {', '.join(batch) or 'no inputs'} is to be attributed: {type(model).__name__}.main_input_name"
        f" is {name!r}. Set model.main_input_name to one of the batch's keys."
    )


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
    ) -> Any:
        """Relevance of the inputs for the target's score.

        Args:
            inputs: a batch as the model takes it (a dict: one of its tensors is attributed, see :func:`main_input`; labels
                in it are left out), or, as in captum, an input tensor or a tuple of them.
            target: the explained score, see :func:`~.targets.score_of`. None: the model's only output, or with several
                classes the one each row predicts.
            additional_forward_args: further positional arguments of the model, as in captum; not attributed. Not with a dict.
            return_convergence_delta: also return score minus summed relevance, ``(rows,)``. Rules with halves, constants or
                biases absorb relevance, so that it is not 0 in general; it is for piecewise linear networks without biases.

        Returns:
            For integer inputs relevance at their embeddings, ``(rows, length, hidden)``; for float inputs a tensor of the
            input's own shape. In the unit of the score. For a tuple a tuple.
        """
        relevances, score = self._propagate(inputs, target, additional_forward_args)
        result: Any = relevances if isinstance(inputs, tuple) else relevances[0]
        if return_convergence_delta:
            return result, self.compute_convergence_delta(relevances, score)
        return result

    def _propagate(
        self, inputs: Tensor | tuple[Tensor, ...] | Mapping[str, Any], target: Target, more: Any
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Relevances of the attributed tensors, and the explained score, ``(rows,)``."""
        if isinstance(inputs, Mapping):
            if more is not None:
                raise ChallengerError("additional_forward_args go with tensor inputs; add them to the dict, by their names.")
            key = main_input(self.model, inputs)
            batch = {k: v for k, v in inputs.items() if k not in LABEL_KEYS}
            attributed: tuple[Tensor, ...] = (inputs[key],)
        else:
            attributed = inputs if isinstance(inputs, tuple) else (inputs,)
            more = () if more is None else more if isinstance(more, tuple) else (more,)
        ids = next((x for x in attributed if not x.is_floating_point()), None)
        if ids is not None and len(attributed) > 1:
            raise ChallengerError("Integer inputs are attributed one at a time: pass a dict, or a single tensor of ids.")

        with attribution_state(self.model):
            leaves = tuple(x.detach().requires_grad_() if x.is_floating_point() else x for x in attributed)
            interception = Interception(
                self.composite, ids, embedding_table(self.model) if ids is not None else None, self.strict
            )
            with whole_modules(self.model, interception), module_rules(self.model), self._recording(), interception:
                # A clone each: a model may write into its input, which a leaf forbids.
                given = tuple(x.clone() if x.is_floating_point() else x for x in leaves)
                if isinstance(inputs, Mapping):
                    outputs = self.model(**{**batch, key: given[0]})
                else:
                    outputs = self.model(*given, *more)
            score = score_of(logits_of(outputs, self.model), target)
            interception.check_graph(score, self.model)
            found = interception.leaves if ids is not None else [Leaf(x, x) for x in leaves]
            if not found:
                raise ChallengerError(
                    f"{type(self.model).__name__} never looked its ids up with torch.nn.functional.embedding, so there is no"
                    " place to read relevance at. Pass float inputs instead."
                )
            relevances = self._read(score, found)
        if ids is not None and self._at_inputs:
            relevances = [sum_over_copies(relevances, found, ids)]
        return tuple(relevances), score.detach()

    _at_inputs = True

    def _recording(self) -> AbstractContextManager[None]:
        """Entered for the forward pass: where relevance is read elsewhere than at the inputs."""
        return nullcontext()

    def _read(self, score: Tensor, found: list[Leaf]) -> list[Tensor]:
        """Relevance at each leaf: value times modified gradient."""
        return times_gradient(score, [leaf.values for leaf in found])

    def compute_convergence_delta(self, attributions: Any, output: Tensor) -> Tensor:
        """Score minus summed relevance, ``(rows,)``."""
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


def sum_over_copies(relevances: list[Tensor], leaves: list[Leaf], ids: Tensor) -> Tensor:
    """Relevance aligned with ``ids``: an encoder-decoder looks its ids up twice, the second time shifted by one."""
    total: Tensor | None = None
    for relevance, leaf in zip(relevances, leaves, strict=True):
        own = leaf.ids
        if own.dim() != ids.dim() and own.numel() == ids.numel():
            relevance, own = relevance.reshape(*ids.shape, -1), own.reshape(ids.shape)
        if own.dim() == 2 and own.shape[0] == ids.shape[0] and own.shape[1] > ids.shape[1]:  # Longformer pads to its window
            relevance, own = relevance[:, : ids.shape[1]], own[:, : ids.shape[1]]
        if own.shape == ids.shape and (own.data_ptr() == ids.data_ptr() or torch.equal(own, ids)):
            aligned = relevance
        elif own.dim() == 2 and own.shape == ids.T.shape and torch.equal(own.T, ids):  # XLNet: length first
            aligned = relevance.transpose(0, 1)
        elif own.shape == ids.shape and torch.equal(
            own[:, 1:].clamp(min=0), ids[:, :-1].clamp(min=0)
        ):  # BART, T5: shift_right
            aligned = torch.cat([relevance[:, 1:], torch.zeros_like(relevance[:, :1])], dim=1)
        else:
            continue  # another lookup in the same table, such as a learned prefix: not a token of this batch
        total = aligned if total is None else total + aligned
    if total is None:
        raise ChallengerError(
            f"The model embedded ids of shape {[tuple(x.ids.shape) for x in leaves]}, not {tuple(ids.shape)}."
        )
    return total
