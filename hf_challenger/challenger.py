"""One challenge: relevance → drop_mask → challenged inputs → mixed batch. Works without Trainer, in any training loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attribution.lrp import LABEL_KEYS
from .attribution.methods import METHODS
from .attribution.targets import named_target
from .checks import check_classes, check_inputs, is_sharded
from .errors import ChallengerError
from .inputs import Tokens
from .keyed_random import keyed_uniform
from .losses import IGNORED, row_losses
from .options import ChallengeOptions
from .perturbation import perturbation_for
from .selection import removed_share, select

# Streams of random numbers: which rows are challenged, and which of their units are hidden.
ROWS, UNITS = 0, 1


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
        drop_mask: ``(mixed rows, units)`` bool, True = removed.
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


class Challenger:
    """Challenges batches for one model.

    Args:
        model: the classifier, unwrapped (not the DDP wrapper).
        options: a :class:`~.options.ChallengeOptions` or a ``ChallengerConfig``; None: all defaults.
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
        self.options = ChallengeOptions.of(options)
        self.seed = seed
        self.sharded = is_sharded(model)
        self.units = Tokens(model, processing_class)
        self.perturb = perturbation_for(self.options.challenge_perturbation, self.units)

    def challenge(
        self, inputs: Mapping[str, Any], labels: Tensor, step: int, first_row: int = 0, model: nn.Module | None = None
    ) -> ChallengedBatch:
        """Challenge about ``challenge_share`` of the rows of a batch.

        Args:
            inputs: the batch as the model takes it.
            labels: ``(rows, …)``; rows whose labels are all -100 stay clean.
            step: number of the optimizer step. With ``first_row`` it keys all random choices.
            first_row: position of this batch's first row among all rows of the step, over micro-batches and processes:
                the same masks then come out however the rows are spread.
            model: called in place of the model given at the start (a wrapper with the same parameters).
        """
        options, units = self.options, self.units
        if units.key not in inputs:
            raise ChallengerError(
                f"The batch holds {', '.join(inputs) or 'nothing'}, but the challenge needs {units.key!r} (token ids)."
            )
        inputs = {k: v for k, v in inputs.items() if k not in LABEL_KEYS}
        check_inputs(inputs, self.model)
        check_classes(labels, self.model)
        ids = inputs[units.key]
        rows, device = len(ids), ids.device
        positions = torch.arange(first_row, first_row + rows)
        # On the CPU, so that the number of chosen rows is known without waiting for the device.
        chosen = (keyed_uniform(self.seed, ROWS, step, positions) < options.challenge_share).nonzero().squeeze(1)
        index = chosen.to(device)
        drop_mask = torch.zeros(rows, self._length(inputs), dtype=torch.bool, device=device)
        removed = torch.zeros(rows, device=device)
        without_units = not_finite = torch.zeros((), device=device)
        if len(chosen):
            part = {k: v[index] if _has_rows(v, rows) else v for k, v in inputs.items()}
            relevance = units.per_unit(self._relevance(model or self.model, part, labels[index]))
            maskable = units.maskable(part)
            finite = relevance.isfinite().all(1)
            labelled = (labels[index] != IGNORED).flatten(1).any(1) if labels.dim() > 1 else labels[index] != IGNORED
            relevance = relevance.masked_fill(~finite.unsqueeze(1), 0)
            noise = keyed_uniform(
                self.seed,
                UNITS,
                step,
                positions[chosen].to(device)[:, None],
                maskable.cumsum(1),  # counted from the row's own start, so that padding on either side changes nothing
            )
            mask = select(relevance, maskable, options.challenge_rate, options.challenge_selection, noise)
            mask &= (finite & labelled).unsqueeze(1)
            drop_mask[index] = mask
            removed[index] = removed_share(relevance, maskable, mask)
            without_units = (maskable.sum(1) < 2).sum()
            not_finite = (~finite).sum()
        elif self.sharded:  # the other processes wait for this one's shards of the parameters
            self._relevance(
                model or self.model, {k: v[:1] if _has_rows(v, rows) else v for k, v in inputs.items()}, labels[:1]
            )

        challenged = drop_mask.any(1)
        mixed = self.perturb(inputs, drop_mask, units) if len(chosen) else inputs
        parents = torch.arange(rows, device=device)
        clean_weight, challenged_weight = options.row_weights()
        if options.challenge_mix == "append" and len(chosen):
            clean_inputs = self.perturb(inputs, torch.zeros_like(drop_mask), units)  # with the keys that a challenge adds
            mixed = {k: torch.cat([clean_inputs[k], v[index]]) if _has_rows(v, rows) else v for k, v in mixed.items()}
            parents = torch.cat([parents, index])
            has_copy = torch.zeros(rows, device=device).index_fill(0, index, 1)
            weights = torch.cat(
                [1 - has_copy * (1 - clean_weight), torch.full((len(index),), challenged_weight, device=device)]
            )
            challenged, removed, drop_mask = (
                torch.cat([torch.zeros_like(x), x[index]]) for x in (challenged, removed, drop_mask)
            )
        elif options.challenge_mix == "append":
            weights = torch.ones(rows, device=device)
        else:
            weights = torch.where(challenged, challenged_weight, clean_weight)
        return ChallengedBatch(
            inputs=dict(mixed),
            parents=parents,
            challenged=challenged,
            weights=weights,
            gives_up=options.challenge_softening * removed,
            removed=removed,
            drop_mask=drop_mask,
            without_units=without_units,
            not_finite=not_finite,
        )

    def _length(self, inputs: Mapping[str, Any]) -> int:
        return int(inputs[self.units.key].shape[1])

    def _relevance(self, model: nn.Module, inputs: Mapping[str, Any], labels: Tensor) -> Tensor:
        labels = labels if labels.is_floating_point() else labels.long()  # int8 labels do not index
        target = named_target(self.options.challenge_target, labels.masked_fill(labels == IGNORED, 0))
        return METHODS[self.options.challenge_attribution](model, inputs, target, self.options.challenge_composite)


def _has_rows(x: Any, rows: int) -> bool:
    return isinstance(x, Tensor) and x.dim() > 0 and len(x) == rows
