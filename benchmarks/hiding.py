"""Relevance by unit, and hiding of units, for rivals that mask inputs: the library's LRP and input adapters, without its challenge."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hf_challenger.attribution import LRP
from hf_challenger.challenge.perturbation import perturbation_for
from hf_challenger.inputs import units_for
from hf_challenger.keyed_random import Draw


class Hiding:
    """The adapter of a model's main input, with its default perturbation."""

    def __init__(self, model: nn.Module, processing_class: Any = None) -> None:
        self.units = units_for(model, processing_class)
        self.perturb = perturbation_for("auto", self.units)

    def relevance(self, model: nn.Module, inputs: dict[str, Any], target: Tensor) -> tuple[Tensor, Tensor]:
        """``(rows, units)`` LRP relevance for the class ``target`` of each row, and ``(rows, units)`` which of them may be hidden."""
        relevance = self.units.per_unit(LRP(model).attribute(inputs, target=target)).detach()
        return relevance.flatten(1), self.units.maskable(inputs).flatten(1)

    def hide(self, inputs: dict[str, Any], drop_mask: Tensor) -> dict[str, Any]:
        """The inputs without the units where ``drop_mask``, ``(rows, units)`` bool, is True."""
        grid = self.units.maskable(inputs).shape[1:]
        draw = Draw(0, 0, 0, torch.arange(len(drop_mask), device=drop_mask.device))
        return self.perturb(dict(inputs), drop_mask.unflatten(1, grid), self.units, draw)
