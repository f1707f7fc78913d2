"""``Trainer`` that knows where a micro-batch lies in its optimizer step, and whose loss is the mean over the step's labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .compat import count_labels, head_takes_the_mean, loss_over_the_step, rows_a_micro_batch
from .errors import NotChallengeable
from .inputs.main_input import label_names_of
from .losses import IGNORED
from .scored_trainer import ScoredTrainer


class StepTrainer(ScoredTrainer):
    """The gradients of a step do not depend on how its rows are cut into micro-batches or spread over processes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._labels_in_step: Tensor | None = None
        self._micro_step = 0

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._labels_in_step = count_labels(self, batches, self._label_name, device)
        self._micro_step = 0
        return batches, num_items

    def _trainers_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool, num_items: Any) -> Any:
        """Trainer's loss, with the true mean over the step where Trainer misses it (compat.py)."""
        micro_batches = getattr(self, "current_gradient_accumulation_steps", 1)  # absent outside of a training loop
        alone = micro_batches == 1 and self.accelerator.num_processes == 1
        if alone or not head_takes_the_mean(self, model):
            return super().compute_loss(model, inputs, return_outputs, num_items)
        labels, outputs = inputs[self._label_name(inputs)], model(**inputs)
        loss = loss_over_the_step(outputs, labels, self._labels_in_this_step(labels), self.accelerator.num_processes)
        self.loss_is_scaled_for_ga = True
        return (loss, outputs) if return_outputs else loss

    def _first_row(self) -> int:
        """Position of this micro-batch's first row among all rows of the optimizer step."""
        batch = self._micro_step * self.accelerator.num_processes + self.accelerator.process_index
        self._micro_step += 1
        return batch * rows_a_micro_batch(self)

    def _label_name(self, inputs: Any) -> str:
        names = label_names_of(self)
        for name in names:
            if name in inputs:
                return name
        raise NotChallengeable(
            f"The batch holds {', '.join(inputs) or 'nothing'}, but no labels; expected one of"
            f" {', '.join(map(repr, names))}. Name the label column 'labels', or"
            f" set label_names in the arguments; columns that {type(self.model).__name__}.forward does not take are dropped, so"
            " load a model with a classification head."
        )

    def _labels_in_this_step(self, labels: Tensor) -> Tensor:
        total = self._labels_in_step
        if total is None:  # compute_loss called outside of a training loop
            total = (labels != IGNORED).sum()
        return total.clamp(min=1)
