"""One challenge: relevance → drop_mask → challenged inputs → mixed batch. Works without Trainer, in any training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .attribution.lrp import LABEL_KEYS
from .attribution.methods import METHODS
from .attribution.state import attribution_state
from .attribution.targets import named_target
from .checks import check_classes, check_inputs, is_sharded
from .confidence import ConfidenceGate, NoRowPasses
from .errors import ChallengerError
from .inputs import DEFAULTS, units_for
from .keyed_random import Draw, keyed_uniform
from .logits import logits_of
from .losses import IGNORED, row_losses
from .options import ChallengeOptions
from .perturbation import perturbation_for
from .selection import choose_rows, removed_share, select

# Streams of random numbers: which rows are challenged, which of their units are hidden, and what is put there.
ROWS, UNITS, FILL = 0, 1, 2


@dataclass
class ChallengedBatch:
    """A batch in which some rows are challenged.

    Attributes:
        inputs: the mixed batch, without labels: call the model on it once.
        parents: ``(mixed rows,)``: the row of the original batch that each row comes from; ``labels[parents]`` fits.
        challenged: ``(mixed rows,)`` bool.
        weights: ``(mixed rows,)`` weight of each row's loss.
        gives_up: ``(mixed rows,)`` certainty that each row's target gives up, in [0, 1].
        removed: ``(mixed rows,)`` share of positive relevance removed.
        drop_mask: ``(mixed rows, units)`` bool, True = removed; a grid of units (patches) lies in one line, row by row.
        without_units: how many of the chosen rows had too few maskable units and stayed clean (tensor).
        not_finite: how many of them had NaN or infinite relevance and stayed clean (tensor).
    """

    inputs: dict[str, Any]
    parents: Tensor
    challenged: Tensor
    weights: Tensor
    gives_up: Tensor
    removed: Tensor
    drop_mask: Tensor
    without_units: Tensor
    not_finite: Tensor

    def row_losses(self, logits: Tensor, labels: Tensor, problem_type: str, label_smoothing: float = 0.0) -> Tensor:
        """Summed loss of each mixed row, ``(mixed rows,)``, unweighted, for the *original* batch's ``labels``."""
        labels = labels[self.parents]
        return row_losses(logits, labels, problem_type, self.gives_up, label_smoothing)[0]

    def loss(self, logits: Tensor, labels: Tensor, problem_type: str = "single_label_classification") -> Tensor:
        """The mixed batch's loss: weighted row losses over the number of labels in the original batch."""
        count = (labels != IGNORED).sum().clamp(min=1)
        return (self.weights * self.row_losses(logits, labels, problem_type)).sum() / count


@dataclass
class _Hidden:
    """What was hidden of the original batch's rows: the fields of :class:`ChallengedBatch`, before mixing."""

    drop_mask: Tensor
    removed: Tensor
    without_units: Tensor
    not_finite: Tensor


class Challenger:
    """Challenges batches for one model.

    Args:
        model: the classifier, unwrapped (not the DDP wrapper).
        options: a :class:`~.options.ChallengeOptions` or a ``ChallengerConfig``; None: all defaults, but half of the rows for
            any kind of input.
        processing_class: the tokenizer, which tells the special tokens and the mask token.
        seed: of all random choices.

    Example, in a plain loop::

        challenger = Challenger(model, processing_class=tokenizer)
        for step, batch in enumerate(loader):
            labels = batch.pop("labels")
            mixed = challenger.challenge(batch, labels, step=step)
            loss = mixed.loss(model(**mixed.inputs).logits, labels)
            loss.backward()
    """

    def __init__(self, model: nn.Module, options: Any = None, processing_class: Any = None, seed: int = 0) -> None:
        self.model = model
        requested = ChallengeOptions.of(options)
        self.units = units_for(model, processing_class, requested.challenge_units, requested.challenge_unit_size)
        if requested.challenge_share is None:  # whoever calls challenge() wants rows challenged, texts too
            requested = replace(requested, challenge_share=DEFAULTS["share"])
        self.options = requested.resolved(self.units)
        share, rate, softening = (getattr(self.options, f"challenge_{name}") for name in ("share", "rate", "softening"))
        self.share, self.rate, self.softening = float(share), float(rate), float(softening)
        self.span = self.units.span if self.options.challenge_span is None else self.options.challenge_span
        self.seed = seed
        self.sharded = is_sharded(model)
        self.perturb = perturbation_for(self.options.challenge_perturbation, self.units)

    def challenge(
        self, inputs: Mapping[str, Any], labels: Tensor, step: int, first_row: int = 0, model: nn.Module | None = None
    ) -> ChallengedBatch:
        """Challenge ``challenge_share`` of the rows of a batch.

        Args:
            inputs: the batch as the model takes it.
            labels: ``(rows, …)``; rows whose labels are all -100 stay clean.
            step: number of the optimizer step. With ``first_row`` it keys all random choices.
            first_row: position of this batch's first row among all rows of the step, over micro-batches and processes:
                the same masks then come out however the rows are spread.
            model: called in place of the model given at the start (a wrapper with the same parameters).
        """
        units, inputs = self.units, self._checked(inputs, labels)
        rows, device = len(inputs[units.key]), inputs[units.key].device
        positions = torch.arange(first_row, first_row + rows)
        # On the CPU, so that the number of chosen rows is known without waiting for the device.
        offset = keyed_uniform(self.seed, ROWS, step)
        chosen = choose_rows(positions, self.share, offset).nonzero().squeeze(1)
        index = chosen.to(device)
        may_hide = units.maskable(inputs)
        hidden = _Hidden(
            drop_mask=torch.zeros_like(may_hide).flatten(1),
            removed=torch.zeros(rows, device=device),
            without_units=torch.zeros((), device=device),
            not_finite=torch.zeros((), device=device),
        )
        if len(chosen):
            self._hide(hidden, model or self.model, inputs, labels, index, may_hide, (step, positions[chosen].to(device)))
        elif self.sharded:  # the other processes wait for this one's shards of the parameters
            first = torch.zeros(1, dtype=torch.long, device=device)
            self._relevance(model or self.model, _rows(inputs, first, rows), labels[:1], may_hide.shape[1:])

        def perturb(drop_mask: Tensor) -> dict[str, Any]:
            draw = Draw(self.seed, FILL, step, positions.to(device))
            return self.perturb(inputs, drop_mask.unflatten(1, may_hide.shape[1:]), units, draw)

        return self._mix(dict(inputs), hidden, index, perturb)

    def doses(self, inputs: Mapping[str, Any], labels: Tensor, first_row: int = 0) -> Callable[[float], dict[str, Any]]:
        """Relevance once, and then as much hidden as is asked for: share of the maskable units → challenged inputs.

        A larger share hides the units of a smaller one and more; 0 hides none. A row's number of units is rounded up or down by
        chance, so that little can be hidden of short rows too, and one unit is left. Every row takes part, whatever
        ``challenge_share``, ``challenge_threshold`` and ``challenge_budget`` are, but those whose relevance is not finite.
        """
        units, inputs = self.units, self._checked(inputs, labels)
        positions = torch.arange(first_row, first_row + len(labels), device=inputs[units.key].device)
        may_hide = units.maskable(inputs)
        maskable, grid = may_hide.flatten(1), may_hide.shape[1:]
        relevance, finite = _finite(self._relevance(self.model, inputs, labels, grid)[0])
        noise = self._noise(0, positions, maskable)
        selection = self.options.challenge_selection
        count, rounding = maskable.sum(1), keyed_uniform(self.seed, ROWS, 0, positions)

        def hidden(share: float) -> dict[str, Any]:
            wanted = torch.floor(count * share + rounding).long().minimum((count - 1).clamp(min=0)) * (share > 0)
            mask = select(relevance, maskable, wanted, selection, noise, self.span, grid) & finite.unsqueeze(1)
            draw = Draw(self.seed, FILL, 0, positions)
            return self.perturb(dict(inputs), mask.unflatten(1, grid), units, draw)

        return hidden

    def _hide(
        self,
        hidden: _Hidden,
        model: nn.Module,
        inputs: Mapping[str, Any],
        labels: Tensor,
        index: Tensor,
        may_hide: Tensor,
        keys: tuple[int, Tensor],
    ) -> None:
        """Relevance of the rows in ``index`` and what is hidden of them, written into ``hidden``."""
        grid = may_hide.shape[1:]
        relevance, sure = self._relevance(model, _rows(inputs, index, len(may_hide)), labels[index], grid)
        relevance, finite = _finite(relevance)
        maskable = may_hide[index].flatten(1)
        mask = self._select(relevance, maskable, self._noise(*keys, maskable), self.span, grid)
        labelled = (labels[index] != IGNORED).reshape(len(index), -1).any(1)
        mask &= (finite & labelled).unsqueeze(1)
        if sure is not None:
            mask &= sure.unsqueeze(1)
        hidden.drop_mask[index] = mask
        hidden.removed[index] = removed_share(relevance, maskable, mask)
        hidden.without_units = (maskable.sum(1) < 2).sum()
        hidden.not_finite = (~finite).sum()

    def _checked(self, inputs: Mapping[str, Any], labels: Tensor) -> dict[str, Any]:
        """The inputs without labels, or a :class:`ChallengerError` that says what is wrong with them."""
        if self.units.key not in inputs:
            raise ChallengerError(
                f"The batch holds {', '.join(inputs) or 'nothing'}, but the challenge needs {self.units.key!r}, the main input of"
                f" {type(self.model).__name__}. Rename the column, or set the model's main_input_name."
            )
        inputs = {k: v for k, v in inputs.items() if k not in LABEL_KEYS}
        check_inputs(inputs, self.model)
        check_classes(labels, self.model)
        return inputs

    def _noise(self, step: int, positions: Tensor, maskable: Tensor) -> Tensor:
        """Units are counted from the row's own start, so that padding on either side changes nothing."""
        return keyed_uniform(self.seed, UNITS, step, positions[:, None], maskable.cumsum(1))

    def _select(self, relevance: Tensor, maskable: Tensor, noise: Tensor, span: int, grid: tuple[int, ...]) -> Tensor:
        options = self.options
        return select(
            relevance,
            maskable,
            self.rate,
            options.challenge_selection,
            noise,
            span,
            grid,
            options.challenge_budget,
        )

    def _mix(
        self, inputs: dict[str, Any], hidden: _Hidden, index: Tensor, perturb: Callable[[Tensor], dict[str, Any]]
    ) -> ChallengedBatch:
        """Challenged rows in place of their clean ones, or after them, with the weights of :meth:`row_weights`."""
        drop_mask, removed = hidden.drop_mask, hidden.removed
        rows, device = drop_mask.shape[0], drop_mask.device
        parents = torch.arange(rows, device=device)
        clean_weight, challenged_weight = self.options.row_weights()
        challenged = drop_mask.any(1)
        mixed = perturb(drop_mask) if len(index) else inputs
        if self.options.challenge_mix == "replace":
            weights = torch.where(challenged, challenged_weight, clean_weight)
        else:
            weights = torch.ones(rows, device=device).index_fill(0, index, clean_weight)
            if len(index):
                clean = perturb(torch.zeros_like(drop_mask))  # with the keys that a challenge adds
                mixed = {k: torch.cat([clean[k], v[index]]) if has_rows(v, rows) else v for k, v in mixed.items()}
                parents = torch.cat([parents, index])
                weights = torch.cat([weights, torch.full((len(index),), challenged_weight, device=device)])
                challenged, removed, drop_mask = (
                    torch.cat([torch.zeros_like(x), x[index]]) for x in (challenged, removed, drop_mask)
                )
        return ChallengedBatch(
            inputs=dict(mixed),
            parents=parents,
            challenged=challenged,
            weights=weights,
            gives_up=self.softening * removed,
            removed=removed,
            drop_mask=drop_mask,
            without_units=hidden.without_units,
            not_finite=hidden.not_finite,
        )

    def _relevance(
        self, model: nn.Module, inputs: Mapping[str, Any], labels: Tensor, grid: tuple[int, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """``(rows, *grid)``, and with ``challenge_threshold`` which rows the model is sure of."""
        labels = labels if labels.is_floating_point() else labels.long()  # int8 labels do not index
        target = named_target(self.options.challenge_target, labels.masked_fill(labels == IGNORED, 0))
        method = METHODS[self.options.challenge_attribution]
        gate: ConfidenceGate | None = None
        try:
            if self.options.challenge_threshold > 0 and not labels.is_floating_point():
                gate = ConfidenceGate(labels, self.options.challenge_threshold, goes_on=self.sharded)
                if self.options.challenge_attribution == "lrp":
                    target = gate.watching(target)
                else:
                    with attribution_state(model), torch.no_grad():
                        gate.look_at(logits_of(model(**inputs), model))
            relevance = self.units.per_unit(method(model, inputs, target, self.options.challenge_composite))
        except NoRowPasses:
            relevance = torch.zeros(len(labels), *grid, device=labels.device)
        if relevance.shape[1:] != grid:
            raise ChallengerError(
                f"Relevance came for {tuple(relevance.shape[1:])} units, but {type(self.units).__name__} says that"
                f" {self.units.key!r} has {tuple(grid)}. If another input was attributed, set the model's main_input_name to"
                f" {self.units.key!r}; if not, per_unit and maskable of the adapter do not agree."
            )
        return relevance, None if gate is None else gate.passes


def _finite(relevance: Tensor) -> tuple[Tensor, Tensor]:
    """``(rows, units)`` with zeros in rows that hold NaN or infinity, and ``(rows,)`` which rows hold none."""
    relevance = relevance.flatten(1)
    finite = relevance.isfinite().all(1)
    return relevance.masked_fill(~finite.unsqueeze(1), 0), finite


def _rows(inputs: Mapping[str, Any], index: Tensor, rows: int) -> dict[str, Any]:
    """Those rows of a batch; what has no rows stays."""
    return {k: v[index] if has_rows(v, rows) else v for k, v in inputs.items()}


def has_rows(x: Any, rows: int) -> bool:
    """Whether that value of a batch has one entry for each row."""
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == rows
