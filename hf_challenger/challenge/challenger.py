"""One challenge: which units of a batch to hide, and the batch without them. Works without Trainer, in any training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate.utils.memory import should_reduce_batch_size
from torch import Tensor, nn

from ..attribution.methods import METHODS
from ..attribution.state import attribution_state
from ..attribution.targets import named_target
from ..checks import (
    check_classes,
    check_inputs,
    harmless_ids,
    is_sharded,
    refuse_other_tasks,
    refuse_several_classes,
)
from ..errors import ChallengerError, NotChallengeable
from ..inputs import units_for
from ..inputs.main_input import LABEL_KEYS, rows_at, taken_by
from ..keyed_random import Draw, keyed_uniform
from ..logits import logits_of
from ..losses import IGNORED, check_labels
from ..value_checks import DeferredChecks, on_host
from .confidence import ConfidenceGate, NoRowPasses
from .cue_units import PlaceCues, TokenCues
from .cues import CueMemory
from .named_cues import NamedCues
from .options import ChallengeOptions
from .perturbation import perturbation_for
from .places import PlaceMemory
from .selection import CUES, NAMED, SELECTIONS, WITHOUT_RELEVANCE, choose_rows

# Streams of random numbers: which rows are challenged, which of their units are hidden, what is put there, which steps are
# attributed, and what a known leak is exchanged for.
ROWS, UNITS, FILL, STEPS, EXCHANGE = 0, 1, 2, 3, 4

SURE = 0.5  # probability of the gold class from which a row's relevance tells what the class rests on
# Share of the steps that feed the cue memory: until it is settled, and from then on. An attribution costs about two thirds of a step.
ATTRIBUTED, ATTRIBUTED_SETTLED = 1 / 4, 1 / 12

Gather = Callable[[Tensor], Tensor]


@dataclass
class ChallengedBatch:
    """A batch in which units of some rows are hidden.

    Attributes:
        inputs: as the model takes them, without labels. The rows and their order are those of the original batch.
        challenged: ``(rows,)`` bool.
        drop_mask: ``(rows, units)`` bool, True = removed; a grid of units (patches) lies in one line, row by row. A row whose level
            was exchanged is challenged, and may have no unit removed.
        not_finite: how many rows had NaN or infinite relevance, and stayed whole for it (tensor).
        leaked: ``(rows,)`` bool: rows that held a cue of ``challenge_hide``, which was removed.
    """

    inputs: dict[str, Any]
    challenged: Tensor
    drop_mask: Tensor
    not_finite: Tensor
    leaked: Tensor


class Challenger:
    """Challenges batches for one model.

    Args:
        model: the classifier, unwrapped (not the DDP wrapper).
        options: a :class:`~.options.ChallengeOptions` or a ``ChallengerConfig``; None: all defaults.
        processing_class: the tokenizer, which tells the special tokens and the mask token.
        seed: of all random choices.
        gather: collects the rows of all processes, ``(rows, …)`` → ``(all rows, …)``, so that all remember the same cues.
        memory: cues that are known from before.

    Raises:
        ChallengerError: for options that are wrong, or that do not fit the model's input.

    Example, in a plain loop::

        challenger = Challenger(model, processing_class=tokenizer)
        for step, batch in enumerate(loader):
            labels = batch.pop("labels")
            challenged = challenger.challenge(batch, labels, step)
            loss = model(**challenged.inputs, labels=labels).loss
            loss.backward()
        print(challenger.cues)
    """

    def __init__(
        self,
        model: nn.Module,
        options: Any = None,
        processing_class: Any = None,
        seed: int = 0,
        gather: Gather | None = None,
        memory: CueMemory | PlaceMemory | None = None,
    ) -> None:
        self.model, self.seed, self.gather = model, seed, gather
        self.options = ChallengeOptions.of(options)
        refuse_other_tasks(model)
        self.units = units_for(model, processing_class, self.options.challenge_units, self.options.challenge_unit_size)
        self.rate = self.options.rate_for(self.units)
        by_chance = self.options.challenge_selection in WITHOUT_RELEVANCE
        self.attribution = "none" if by_chance else self.options.challenge_attribution
        self.sharded = is_sharded(model)
        self.perturb = perturbation_for(self.options.challenge_perturbation, self.units)
        self.keep = NamedCues(self.units, self.options.challenge_keep, "challenge_keep")
        self.leaks = NamedCues(self.units, self.options.challenge_hide, "challenge_hide")
        self.places = getattr(self.units, "places", None)  # None: a unit is the same wherever it stands
        threshold = self.options.threshold_for(self.units)
        self._cues = (PlaceCues if self.places else TokenCues)(self.units, threshold, memory)
        self.checks = DeferredChecks()
        self._observed: list[Tensor] = []
        self._step = -1

    @property
    def memory(self) -> CueMemory | PlaceMemory:
        """What is remembered of the rows so far."""
        return self._cues.memory

    def forget_named(self) -> None:
        """To be called where the memory was filled under other ``challenge_keep`` or ``challenge_hide``."""
        named = [*self.keep.sequences, *self.leaks.sequences]
        self.memory.forget_named({i for variants in named for sequence in variants for i in sequence})

    @property
    def cues(self) -> list[Any]:
        """The cues found so far, named, the strongest first."""
        self.update()
        found = self.memory.cues
        id2label = getattr(getattr(self.model, "config", None), "id2label", None) or {}
        for cue in found:
            cue.text = self._cues.text_of(cue.identities)
            cue.class_name = str(id2label.get(cue.label, cue.label))
        return found

    def challenge(
        self, inputs: Mapping[str, Any], labels: Tensor, step: int, first_row: int = 0, model: nn.Module | None = None
    ) -> ChallengedBatch:
        """Take what ``challenge_hide`` names out of all rows; hide cues, or what a row-level selection chooses, in some.

        Args:
            inputs: the batch as the model takes it.
            labels: ``(rows, …)``; rows whose labels are all -100 stay whole.
            step: number of the optimizer step. With ``first_row`` it keys all random choices.
            first_row: position of this batch's first row among all rows of the step, over micro-batches and processes:
                the same masks then come out however the rows are spread.
            model: called in place of the model given at the start (a wrapper with the same parameters).

        Raises:
            ChallengerError: for inputs or labels that do not fit the model, NaN or infinite inputs, and an adapter whose
                units are not those that relevance came for. What is wrong with values that lie on an accelerator is told by
                the next call, or by ``checks.read(wait=True)``, so that no step waits for the device.
        """
        self.checks.read()
        if step != self._step:
            self.update()
            self._step = step
        units, inputs, model = self.units, self._checked(inputs, labels), model or self.model
        device = inputs[units.key].device
        # Made on the device: a copy to it would wait.
        positions = torch.arange(first_row, first_row + len(labels), device=device)
        leaked = torch.zeros(len(labels), dtype=torch.bool, device=device)
        given = inputs
        if self.leaks:
            inputs, leaked = self.without_leaks(inputs, step, first_row)
        may_hide = units.maskable(inputs)
        maskable, grid = may_hide.flatten(1), may_hide.shape[1:]
        offset, draw = keyed_uniform(self.seed, ROWS, step), Draw(self.seed, FILL, step, positions)
        if self.options.challenge_selection == NAMED:
            drop_mask, not_finite = torch.zeros_like(maskable), torch.zeros((), device=device)
        elif self.options.challenge_selection == CUES:
            chosen = choose_rows(positions, self.options.challenge_share, offset)
            drop_mask, not_finite = self._cue_mask(model, given, inputs, labels, step, maskable, chosen)
            if self.memory.number and len(labels):
                inputs = self._without(inputs, drop_mask, grid, draw)
        else:
            # On the CPU, so that the number of chosen rows is known without waiting for the device.
            chosen = choose_rows(torch.arange(first_row, first_row + len(labels)), self.options.challenge_share, offset)
            drop_mask, not_finite = self._row_mask(model, inputs, labels, step, maskable, grid, positions, chosen)
            if len(labels):
                inputs = self.perturb(dict(inputs), drop_mask.unflatten(1, grid), units, draw)
        challenged = drop_mask.any(1)
        drop_mask = drop_mask[:, drop_mask.shape[1] - maskable.shape[1] :]  # places have levels before the units
        self.checks.send()
        return ChallengedBatch(taken_by(self.model, inputs), challenged, drop_mask, not_finite, leaked)

    def without_leaks(self, inputs: dict[str, Any], step: int, first_row: int = 0) -> tuple[dict[str, Any], Tensor]:
        """The batch without what ``challenge_hide`` names, and ``(rows,)`` bool: which rows held it."""
        x = inputs[self.units.key]
        positions = torch.arange(first_row, first_row + len(x), device=x.device)
        return self.leaks.removed(inputs, Draw(self.seed, EXCHANGE, step, positions), self.perturb)

    def _without(self, inputs: dict[str, Any], drop_mask: Tensor, grid: tuple[int, ...], draw: Draw) -> dict[str, Any]:
        """The batch with these units, or places, hidden."""
        if self.places is None:
            return self.perturb(dict(inputs), drop_mask.unflatten(1, grid), self.units, draw)
        if self.options.challenge_perturbation == "auto":
            # What fills a place must tell the class no better than chance, and look like what stands there in other rows.
            return self.places.swapped(inputs, drop_mask, draw)
        levels = self.places.levels(inputs)
        of_levels = drop_mask.clone()
        of_levels[:, levels:] = False
        inputs = self.places.swapped(inputs, of_levels, draw)
        return self.perturb(dict(inputs), drop_mask[:, levels:].unflatten(1, grid), self.units, draw)

    def update(self) -> None:
        """Let the memory take in the rows that were attributed since the last call; all processes call it together."""
        observed, self._observed = self._observed, []
        if not observed:
            return
        gather = self.gather or (lambda rows: rows)
        # All micro-batches at once: a memory that looked in between could find what the joined batch does not show.
        found = [gather(rows) for rows in observed]
        widest = max(rows.shape[1] for rows in found)
        rows = torch.cat([torch.nn.functional.pad(rows, (0, widest - rows.shape[1]), value=-1) for rows in found]).cpu()
        if len(rows):
            self._cues.remember(rows)

    def _cue_mask(
        self,
        model: nn.Module,
        given: Mapping[str, Any],
        inputs: dict[str, Any],
        labels: Tensor,
        step: int,
        maskable: Tensor,
        chosen: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """The cues that the memory knows, ``(rows, units)`` or ``(rows, places)``; in a share of the steps the rows are attributed
        too, to feed it. ``given``: the batch with the leaks.
        """
        classes = labels.reshape(-1).long()
        maskable = self._cues.maskable(inputs, maskable)
        if self.keep:
            maskable = maskable & ~self.keep.places(inputs).flatten(1)
        not_finite = torch.zeros((), device=maskable.device)
        share = ATTRIBUTED_SETTLED if self.memory.settled else ATTRIBUTED
        if float(keyed_uniform(self.seed, STEPS, step)) < share:
            per_unit = partial(self._cues.relevance, inputs=inputs)
            relevance, sure = self._relevance(model, inputs, classes, maskable.shape[1:], SURE, per_unit)
            relevance, finite = _finite(relevance)
            not_finite = (~finite).sum()
            told = finite if sure is None else finite & sure
            self._observed.append(self._cues.seen(inputs, self._cues.keys(given), classes, told, relevance, maskable))
        return self._cues.drop_mask(inputs, maskable, classes, chosen), not_finite

    def _row_mask(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        labels: Tensor,
        step: int,
        maskable: Tensor,
        grid: tuple[int, ...],
        positions: Tensor,
        chosen: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """What a row-level selection chooses, in the chosen rows."""
        drop_mask = torch.zeros_like(maskable)
        index = chosen.nonzero().squeeze(1).to(maskable.device)
        if not len(index):
            if self.sharded:  # the other processes wait for this one's shards of the parameters
                first = torch.zeros(1, dtype=torch.long, device=maskable.device)
                self._relevance(model, rows_at(inputs, first, len(labels)), labels[:1], grid, 0.0)
            return drop_mask, torch.zeros((), device=maskable.device)
        rows = rows_at(inputs, index, len(labels))
        relevance, sure = self._relevance(model, rows, labels[index], grid, SURE)
        relevance, finite = _finite(relevance)
        may_hide = maskable[index]
        # Units are counted from the row's own start, so that padding on either side changes nothing.
        place = may_hide.cumsum(1)
        noise = keyed_uniform(self.seed, UNITS, step, positions[index, None], place)
        mask = SELECTIONS[self.options.challenge_selection](relevance, may_hide, self.rate, noise)
        mask = mask & (finite & (labels[index] != IGNORED).reshape(len(index), -1).any(1)).unsqueeze(1)
        drop_mask[index] = mask if sure is None else mask & sure.unsqueeze(1)
        return drop_mask, (~finite).sum()

    def _checked(self, inputs: Mapping[str, Any], labels: Tensor) -> dict[str, Any]:
        """The inputs without labels, or a :class:`ChallengerError` that says what is wrong with them."""
        if self.units.key not in inputs:
            raise ChallengerError(
                f"The batch holds {', '.join(inputs) or 'nothing'}, but the challenge needs {self.units.key!r}, the main input of"
                f" {type(self.model).__name__}. Rename the column, or set the model's main_input_name."
            )
        # With what the model does not take: the adapter may read it.
        inputs = {k: v for k, v in inputs.items() if k not in LABEL_KEYS}
        check_inputs(taken_by(self.model, inputs), self.model, self.checks.expect)
        check_classes(labels, self.model, self.checks.expect)
        if self.options.challenge_selection == CUES:
            refuse_several_classes(labels, self.model)
        return inputs if on_host(inputs[self.units.key]) else harmless_ids(inputs, self.model)

    def _relevance(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        labels: Tensor,
        grid: tuple[int, ...],
        least: float,
        per_unit: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """``(rows, *grid)``, and which rows have their class with that probability at least; None: no single class a row."""
        per_unit, inputs = per_unit or self.units.per_unit, taken_by(self.model, inputs)
        labels = labels if labels.is_floating_point() else labels.long()  # int8 labels do not index
        target = named_target("gold", labels.masked_fill(labels == IGNORED, 0))
        method = METHODS[self.attribution]
        gate: ConfidenceGate | None = None
        try:
            if not labels.is_floating_point():
                gate = ConfidenceGate(labels, least, goes_on=self.sharded)
                if self.attribution == "lrp":
                    target = gate.watching(target)
                else:
                    with attribution_state(model), torch.no_grad():
                        gate.look_at(logits_of(model(**inputs), model))
            relevance = per_unit(method(model, inputs, target, self.options.challenge_composite, main_input=self.units.key))
        except NoRowPasses:
            relevance = torch.zeros(len(labels), *grid, device=labels.device)
        except Exception as error:
            if should_reduce_batch_size(error):  # memory: auto_find_batch_size waits for it
                raise
            if gate is not None and gate.logits is not None:
                check_labels(gate.logits, labels, "single_label_classification")
            # The labels fit, so that it is the model from which no relevance comes.
            why = str(error) if isinstance(error, ChallengerError) else f"{type(error).__name__}: {error}"
            raise NotChallengeable(f"No relevance could be computed for {type(self.model).__name__}: {why}") from error
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
