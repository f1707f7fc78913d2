"""The callback that calibrates a model after training, without held-out labels."""

from __future__ import annotations

import copy
import random
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset, Subset
from transformers import Trainer, TrainerCallback

from ..attribution.state import attribution_state
from ..checks import is_sharded, on_all_processes
from ..errors import ChallengerError, ChallengerWarning
from ..inputs.main_input import label_names_of, taken_by
from ..last_layer import last_layer_of
from ..logits import logits_of
from ..losses import IGNORED, problem_type_of
from .accuracy import expected_accuracy
from .temperature import apply_temperature, temperature_for_accuracy

ROWS = 1000  # training rows at most, evenly spaced: more cost a forward pass each and move both estimates by under a percent


# Where trainer_state.json keeps the estimate, for a training that resumes from a checkpoint: its weights have seen the rows.
ESTIMATE = "expected_accuracy"


class _NotSingleLabel(Exception):
    """The task is no single-label classification, which alone has a temperature."""


class CalibrationCallback(TrainerCallback):
    """Fits a temperature when training ends and folds it into the model's last layer. No held-out labels are needed.

    Before training it estimates the accuracy on new rows (:func:`expected_accuracy`). After training, and after
    ``load_best_model_at_end``, it takes the temperature at which the mean confidence on training rows equals that accuracy.
    Both are logged as ``calibration_temperature`` and ``expected_accuracy``, so that they are in ``state.log_history``.
    Training itself is unchanged, bit for bit. Checkpoints hold the model as trained; what is saved after training is
    calibrated. A further ``train()`` starts from the weights as trained.

    ``ChallengerTrainer`` adds it, and ``calibrate=False`` or ``challenge_share=0`` turns it off. Multi-label, regression and
    other tasks are left alone without a message. If anything fails, a warning says so and the model stays as trained.

    Args:
        trainer: the one that it is added to: ``trainer.add_callback(CalibrationCallback(trainer))``. A plain ``Trainer`` is
            fine.
    """

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._rows: Any = None
        self._accuracy: float | None = None
        self._failed: Exception | None = None
        # The last layer's parameters, each with its values as trained and as calibrated.
        self._changed: list[tuple[Tensor, Tensor, Tensor]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._undo()
        self._accuracy = None
        self._failed = None
        if getattr(args, "calibrate", True) and getattr(args, "challenge_share", None) != 0:
            self._failed = self._error_of(lambda: self._estimate(state))
            # Other errors are the data's most likely, and the first step ends with them.
            if isinstance(self._failed, ChallengerError):
                self._warn()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._accuracy is not None:
            self._failed = self._error_of(self._calibrate)
        self._warn()
        self._rows = None

    def _estimate(self, state: Any) -> None:
        trainer, model = self.trainer, self._model()
        if is_sharded(model) or trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ChallengerError("The model's parameters are spread over processes.")
        with attribution_state(model), trainer.compute_loss_context_manager():  # reading rows may draw random numbers
            self._rows = self._some_rows()
            if ESTIMATE not in state.stateful_callbacks:
                if state.global_step:
                    raise ChallengerError("The checkpoint that training resumes from holds no estimate of the accuracy.")
                found = expected_accuracy(model, self._batches(), trainer.accelerator.gather, len(self._rows))
                state.stateful_callbacks[ESTIMATE] = {"attributes": {"value": found}}
        self._accuracy = state.stateful_callbacks[ESTIMATE]["attributes"]["value"]

    def _calibrate(self) -> None:
        trainer, model, gather = self.trainer, self._model(), self.trainer.accelerator.gather
        batches: list[dict[str, Any]] = []

        def read() -> list[tuple[Tensor, Tensor]]:
            found = []
            for batch in self._batches():
                labels = batch.pop("labels")
                batches[:] = batches or [batch]
                found.append((logits_of(model(**batch), model).float(), labels))
            return found

        with attribution_state(model), torch.no_grad(), trainer.compute_loss_context_manager():
            found = on_all_processes(read, gather, next(model.parameters()).device)
            parameters = [*last_layer_of(model, batches[0]).layer.parameters()]
        rows = len(self._rows)
        logits, labels = (torch.cat([gather(part).cpu() for part in parts])[:rows] for parts in zip(*found, strict=True))
        known = labels != IGNORED
        right = float((logits.argmax(1) == labels)[known].double().mean())
        if right * logits.shape[1] <= 1:
            raise ChallengerError(
                f"The model is right about {right:.0%} of the training rows, no better than chance. Train longer."
            )
        # New rows are no easier than training rows, and n rows cannot show that a model is never wrong.
        accuracy = min(self._accuracy or 0, right, 1 - 1 / int(known.sum()))
        temperature = temperature_for_accuracy(logits[known], accuracy)
        trained = [parameter.detach().clone() for parameter in parameters]
        temperature = apply_temperature(model, temperature, batches[0])
        self._changed = [(p, before, p.detach().clone()) for p, before in zip(parameters, trained, strict=True)]
        trainer.log({"calibration_temperature": temperature, "expected_accuracy": accuracy})

    def _undo(self) -> None:
        """Take back the temperature of an earlier ``train()``, unless other weights have been loaded since."""
        changed, self._changed = self._changed, []
        if all(torch.equal(parameter, calibrated) for parameter, _, calibrated in changed):
            with torch.no_grad():
                for parameter, trained, _ in changed:
                    parameter.copy_(trained)
        config: Any = getattr(self._model(), "config", None)
        if hasattr(config, "calibration_temperature"):  # of the model that training starts from
            del config.calibration_temperature

    def _model(self) -> nn.Module:
        return self.trainer.accelerator.unwrap_model(self.trainer.model, keep_torch_compile=False)

    def _some_rows(self) -> Any:
        """Training rows, drawn at random: evenly spaced ones could all be of one class. Of a stream the first ones, read from a copy, so
        that the stream is not advanced.
        """
        data: Any = self.trainer.train_dataset
        if data is None:
            raise ChallengerError("There is no train_dataset to take rows from.")
        if isinstance(data, IterableDataset) or not hasattr(data, "__len__"):
            return list(islice(copy.deepcopy(data), ROWS))
        rows = sorted(random.Random(0).sample(range(len(data)), min(ROWS, len(data))))
        return data.select(rows) if hasattr(data, "select") else Subset(data, rows)

    def _batches(self) -> Iterator[dict[str, Any]]:
        """The chosen rows as the model takes them, with their classes as ``labels``."""
        trainer, args = self.trainer, self.trainer.args
        drop_last, args.dataloader_drop_last = args.dataloader_drop_last, False  # it holds for any loader
        try:
            loader = trainer.get_test_dataloader(self._rows)
        finally:
            args.dataloader_drop_last = drop_last
        config: Any = getattr(self._model(), "config", None)
        without_leaks = getattr(trainer, "_without_leaks", None)  # new rows will not have them
        for number, batch in enumerate(loader):
            inputs = dict(batch)
            names = [name for name in label_names_of(trainer) if name in inputs]
            labels = inputs.pop(*names) if len(names) == 1 else None
            if not isinstance(labels, Tensor) or labels.numel() != len(labels):
                raise _NotSingleLabel
            declared, outputs = getattr(config, "problem_type", None), getattr(config, "num_labels", None)
            if problem_type_of(declared, outputs, labels) != "single_label_classification":
                raise _NotSingleLabel
            if without_leaks is not None:
                inputs = without_leaks(inputs, number)
            yield {**taken_by(self._model(), inputs), "labels": labels.reshape(-1).long()}

    @staticmethod
    def _error_of(step: Callable[[], None]) -> Exception | None:
        """Hours of training may be at stake: whatever goes wrong in a calibration ends in a warning."""
        try:
            step()
        except _NotSingleLabel:
            return None
        except Exception as error:
            return error
        return None

    def _warn(self) -> None:
        """Of what went wrong, once."""
        error, self._failed = self._failed, None
        if error is None:
            return
        reason = str(error) if isinstance(error, ChallengerError) else f"{type(error).__name__}: {error}"
        warnings.warn(
            f"The model is not calibrated and stays as trained: {reason.rstrip('.')}. Set calibrate=False to do without.",
            ChallengerWarning,
            stacklevel=3,
        )
