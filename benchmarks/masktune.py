"""MaskTune (Asgari et al., NeurIPS 2022, arXiv 2210.00055) as a method of the benchmark."""

from __future__ import annotations

import copy
from typing import Any

import torch
from hiding import Hiding
from torch import Tensor
from transformers import Trainer
from transformers.trainer_utils import TrainOutput

from hf_challenger.logits import logits_of


class MaskTuneTrainer(Trainer):
    """Trains as usual, then for one epoch more on inputs without the units that the trained model relied on most.

    A unit is masked where its relevance for the predicted class exceeds mean + 2 standard deviations of the row's positive relevance,
    the rule of the authors' code. Of fewer than six positive values none can. Relevance is LRP where the paper has xGradCAM, which
    needs convolutions. It is computed by a frozen copy of the trained model, batch by batch, in place of a masked data set on disk.

    Args:
        settings: "rate_factor", learning rate of the last epoch, constant, as a share of ``learning_rate``.
    """

    def __init__(self, *args: Any, settings: dict[str, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings
        self.hiding = Hiding(self.model, self.processing_class)
        self.trained: Any = None  # the frozen copy; None in the first phase

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        super().train(*args, **kwargs)
        steps = self.state.global_step
        self.trained = copy.deepcopy(self.model).eval()
        self.optimizer = self.lr_scheduler = None
        last_epoch = {
            "max_steps": -1,
            "num_train_epochs": 1,
            "learning_rate": self.args.learning_rate * self.settings["rate_factor"],
            "lr_scheduler_type": "constant",
            "warmup_steps": 0,
        }
        before = {name: getattr(self.args, name) for name in last_epoch}
        _set(self.args, last_epoch)
        output = super().train(*args, **kwargs)
        _set(self.args, before)
        self.trained = None
        self.state.global_step += steps
        return output

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if model.training and self.trained is not None:
            inputs = self._masked(dict(inputs))
        return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def _masked(self, inputs: dict[str, Any]) -> dict[str, Any]:
        names = self.label_names or ["labels"]
        labels = {name: inputs.pop(name) for name in names if name in inputs}
        with torch.no_grad():
            predicted = logits_of(self.trained(**inputs), self.trained).argmax(-1)
        relevance, maskable = self.hiding.relevance(self.trained, inputs, predicted)
        return {**self.hiding.hide(inputs, above_two_deviations(relevance, maskable)), **labels}


def above_two_deviations(relevance: Tensor, maskable: Tensor) -> Tensor:
    """``(rows, units)`` bool: units above mean + 2 standard deviations of their row's positive relevance.

    Args:
        relevance: ``(rows, units)``.
        maskable: ``(rows, units)`` bool; other units neither count nor are hidden.
    """
    positive = maskable & (relevance > 0)
    count = positive.sum(1, keepdim=True).clamp(min=1)
    mean = (relevance * positive).sum(1, keepdim=True) / count
    variance = ((relevance - mean).square() * positive).sum(1, keepdim=True) / count
    return positive & (relevance > mean + 2 * variance.sqrt())


def _set(args: Any, values: dict[str, Any]) -> None:
    for name, value in values.items():
        setattr(args, name, value)
