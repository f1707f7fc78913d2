"""``Trainer`` that hides the most relevant inputs of some rows, so that the model learns from what is left."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .calibration import CalibrationCallback
from .calibration.evaluation import CalibrationMetrics
from .challenger import ChallengedBatch, Challenger
from .checks import check_arguments, refuse_bad_loss, refuse_unsupported
from .compat import FailedUploads, count_labels, head_takes_the_mean, ignored_outputs, loss_over_the_step, rows_a_micro_batch
from .config import LOWER_IS_BETTER
from .errors import ChallengerError, ChallengerWarning
from .inputs import factory_for
from .logits import logits_of
from .losses import IGNORED, check_labels, problem_type_of
from .model_card import write_model_card
from .options import ChallengeOptions

# What is summed over steps and processes between two logs.
COUNTERS = ("rows", "chosen", "removed", "clean_loss", "clean", "challenged_loss", "without_units", "not_finite")


class ChallengerTrainer(FailedUploads):
    """A drop-in ``Trainer`` for classifiers, after *CHALLENGER* (Tomani & Cremers, arXiv 2205.15094), in our own reading.

    A challenge hides the units of a row (tokens, time steps, patches) on which, by LRP, the model's score for its class rests.
    In training (``challenge_share``) a share of the rows is challenged, and the model learns from the mix of clean and
    challenged rows, in one forward pass. After training, a temperature is fitted and folded into the last layer
    (:class:`~.calibration.CalibrationCallback`, ``calibrate``). Evaluation and prediction are those of ``Trainer``;
    ``evaluate()`` also reports accuracy, ece, nll and brier.

    Args:
        args: a :class:`~hf_challenger.ChallengerConfig`, or plain ``TrainingArguments`` (default challenge).
        Others: as for ``Trainer``. Pass ``processing_class=tokenizer``: it tells the special tokens, which are never hidden.

    Logs, beside Trainer's: ``challenged_share``, ``removed_relevance``, ``clean_loss``, ``challenged_loss``; and, where they
    are not zero, ``rows_without_units`` and ``rows_with_bad_relevance``, which stayed clean. ``calibration_temperature`` and
    ``expected_accuracy`` once at the end, which are also in the metrics that ``train()`` returns.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_arguments(*args, **kwargs)
        super().__init__(*args, **kwargs)
        self.options = ChallengeOptions.of(self.args)
        self._challenger: Challenger | None = None
        self._counters: Tensor | None = None
        self._labels_in_step: Tensor | None = None
        self._micro_step = 0
        self._warned_not_finite = False
        self._told_users_loss = False
        self._told_card: dict[str, Any] = {}
        self.compute_metrics = CalibrationMetrics(
            self.compute_metrics,
            self.preprocess_logits_for_metrics,
            self.args.batch_eval_metrics,
            self.args.eval_do_concat_batches,
        )
        if self.preprocess_logits_for_metrics is not None:
            self.preprocess_logits_for_metrics = self.compute_metrics.with_logits
        # First, so that callbacks that report or save at the end of training see the calibrated model and its log.
        self.callback_handler.callbacks.insert(0, CalibrationCallback(self))
        metric = self.args.metric_for_best_model or ""
        if metric.endswith(LOWER_IS_BETTER) and self.args.greater_is_better:
            warnings.warn(
                f"metric_for_best_model={metric!r} is better when lower, but greater_is_better is True, so the worst model"
                " would be kept. Set greater_is_better=False, or use ChallengerConfig, which does.",
                ChallengerWarning,
                stacklevel=2,
            )

    # --- training -----------------------------------------------------------------------------------------------------

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Trainer.train``. The metrics it returns also hold what :class:`~.calibration.CalibrationCallback` logged."""
        output = super().train(*args, **kwargs)
        last = self.state.log_history[-1] if self.state.log_history else {}
        output.metrics.update({k: last[k] for k in ("calibration_temperature", "expected_accuracy") if k in last})
        return output

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._labels_in_step = count_labels(self, batches, self._label_name, device)
        self._micro_step = 0
        return batches, num_items

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        self.loss_is_scaled_for_ga = None
        if not (model.training and torch.is_grad_enabled()):
            # Trainer would multiply a head's mean by the number of processes, in evaluation too.
            num_items = None if head_takes_the_mean(self, model) else num_items_in_batch
            found = super().compute_loss(model, inputs, return_outputs, num_items)
            if return_outputs and isinstance(found[1], Tensor):  # of which Trainer would cut the first row, for the loss
                return found[0], {"logits": found[1]}
            return found
        first_row = self._first_row()
        options = self._resolved(model)
        if options.challenge_share == 0:
            return self._plain_loss(model, inputs, return_outputs, num_items_in_batch)

        inputs = dict(inputs)
        label_name = self._label_name(inputs)
        labels = inputs.pop(label_name)
        mixed = self._challenger_for(model, options).challenge(inputs, labels, self.state.global_step, first_row)
        outputs = model(**mixed.inputs)
        logits = logits_of(outputs, self.accelerator.unwrap_model(model))
        problem_type = problem_type_of(getattr(self._config(model), "problem_type", None), logits.shape[-1], labels)
        check_labels(logits, labels[mixed.parents], problem_type)
        losses = mixed.row_losses(logits, labels, problem_type, self.args.label_smoothing_factor)
        self._count(mixed, losses.detach())
        if self.compute_loss_func is not None:
            loss = self._users_loss(outputs, labels[mixed.parents], num_items_in_batch)
        else:
            # Over all labels of the step, on all processes and micro-batches; DDP divides by the processes again.
            loss = (mixed.weights * losses).sum() / self._labels_in_this_step(labels) * self.accelerator.num_processes
            self.loss_is_scaled_for_ga = True
        if self.accelerator.scaler is None:  # fp16's gradient scaler skips such steps by itself
            refuse_bad_loss(loss.detach(), losses.detach(), logits, model, self.state.global_step)
        return (loss, outputs) if return_outputs else loss

    def _plain_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool, num_items: Any) -> Any:
        """Trainer's loss, with the true mean over the step where Trainer misses it (compat.py)."""
        alone = self.current_gradient_accumulation_steps == 1 and self.accelerator.num_processes == 1
        if alone or not head_takes_the_mean(self, model):
            return super().compute_loss(model, inputs, return_outputs, num_items)
        labels, outputs = inputs[self._label_name(inputs)], model(**inputs)
        loss = loss_over_the_step(outputs, labels, self._labels_in_this_step(labels), self.accelerator.num_processes)
        self.loss_is_scaled_for_ga = True
        return (loss, outputs) if return_outputs else loss

    def _users_loss(self, outputs: Any, labels: Tensor, num_items: Any) -> Tensor:
        if self.options.challenge_mix == "append":
            raise ChallengerError(
                "challenge_mix='append' weighs clean and challenged rows, which compute_loss_func does not know. Use"
                " challenge_mix='replace'."
            )
        if not self._told_users_loss:
            self._told_users_loss = True
            warnings.warn(
                "compute_loss_func gets the mixed batch: the outputs of clean and challenged rows, without row weights and"
                " soft targets.",
                ChallengerWarning,
                stacklevel=2,
            )
        assert self.compute_loss_func is not None
        loss = self.compute_loss_func(outputs, labels, num_items_in_batch=num_items)
        if self.args.average_tokens_across_devices and num_items is not None:
            loss = loss * self.accelerator.num_processes  # as Trainer does
        return loss

    def _resolved(self, model: nn.Module) -> ChallengeOptions:
        """The options as they are now, with what suits the kind of input."""
        options = ChallengeOptions.of(self.args)
        if options.challenge_share == 0:
            return options  # plain Trainer, whatever the model
        bare = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        return options.resolved(factory_for(bare, options.challenge_units))

    def _challenger_for(self, model: nn.Module, options: ChallengeOptions) -> Challenger:
        """Built at the first challenge, and anew when options change (a search, a callback) or the model does."""
        bare = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        known = self._challenger
        if known is None or known.model is not bare or known.options != options:
            seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
            self.options = options
            refuse_unsupported(model, self.args.n_gpu)
            self._challenger = known = Challenger(bare, options, self._processing_class(), seed)
        return known

    def _processing_class(self) -> Any:
        if self.processing_class is not None:
            return self.processing_class
        return getattr(self.data_collator, "tokenizer", None)

    def _config(self, model: nn.Module) -> Any:
        return getattr(self.accelerator.unwrap_model(model), "config", None)

    # --- which rows, how many labels ----------------------------------------------------------------------------------

    def _first_row(self) -> int:
        """Position of this micro-batch's first row among all rows of the optimizer step."""
        batch = self._micro_step * self.accelerator.num_processes + self.accelerator.process_index
        self._micro_step += 1
        return batch * rows_a_micro_batch(self)

    def _label_name(self, inputs: Any) -> str:
        for name in (*(self.label_names or ()), "labels"):
            if name in inputs:
                return str(name)
        raise ChallengerError(
            f"The batch holds {', '.join(inputs) or 'nothing'}, but no labels; expected one of"
            f" {', '.join(map(repr, dict.fromkeys((*(self.label_names or ()), 'labels'))))}. Name the label column 'labels', or"
            f" set label_names in the arguments; columns that {type(self.model).__name__}.forward does not take are dropped, so"
            " load a model with a classification head."
        )

    def _labels_in_this_step(self, labels: Tensor) -> Tensor:
        total = self._labels_in_step
        if total is None:  # compute_loss called outside of a training loop
            total = (labels != IGNORED).sum()
        return total.clamp(min=1)

    # --- logging ------------------------------------------------------------------------------------------------------

    def _count(self, mixed: ChallengedBatch, losses: Tensor) -> None:
        challenged = mixed.challenged.float()
        values = {
            "rows": torch.full((), float(len(mixed.parents)), device=losses.device),
            "chosen": challenged.sum(),
            "removed": mixed.removed.sum(),
            "clean_loss": ((1 - challenged) * losses).sum(),
            "clean": (1 - challenged).sum(),
            "challenged_loss": (challenged * losses).sum(),
            "without_units": mixed.without_units,
            "not_finite": mixed.not_finite,
        }
        counts = torch.stack([values[name].float() for name in COUNTERS])
        self._counters = counts if self._counters is None else self._counters + counts

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._counters is not None:
            logs.update(self._flush_counters())
        super().log(logs, *args, **kwargs)

    def _flush_counters(self) -> dict[str, float]:
        assert self._counters is not None
        totals = self.accelerator.reduce(self._counters, "sum")
        self._counters = None
        count = dict(zip(COUNTERS, totals.tolist(), strict=True))
        logs = {"challenged_share": count["chosen"] / count["rows"]}
        if count["chosen"]:
            logs["removed_relevance"] = count["removed"] / count["chosen"]
            logs["challenged_loss"] = count["challenged_loss"] / count["chosen"]
        if count["clean"]:
            logs["clean_loss"] = count["clean_loss"] / count["clean"]
        if count["without_units"]:
            logs["rows_without_units"] = count["without_units"]
        if count["not_finite"]:
            logs["rows_with_bad_relevance"] = count["not_finite"]
            if not self._warned_not_finite:
                self._warned_not_finite = True
                warnings.warn(
                    f"Relevance was NaN or infinite in {int(count['not_finite'])} rows, which stayed clean. Lower the learning"
                    " rate, or train in bf16 or fp32 instead of fp16. This is said once; rows_with_bad_relevance counts on.",
                    ChallengerWarning,
                    stacklevel=2,
                )
        return logs

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As ``Trainer.evaluate``. Without metrics of the user's own, only the logits are kept in memory."""
        if not isinstance(self.compute_metrics, CalibrationMetrics):
            return super().evaluate(*args, **kwargs)
        with self.compute_metrics.logits_only():
            return super().evaluate(*args, **kwargs)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        metrics = self.compute_metrics
        if not isinstance(metrics, CalibrationMetrics):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with metrics.watching(model, ignored_outputs(self.model, ignore_keys)):
            loss, predictions, labels = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return loss, metrics.kept(predictions), labels

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        if isinstance(self.compute_metrics, CalibrationMetrics):
            output = output._replace(predictions=self.compute_metrics.processed(output.predictions))
        return output

    # --- sharing ------------------------------------------------------------------------------------------------------

    def create_model_card(
        self,
        *args: Any,
        baseline: dict[str, Any] | None = None,
        reliability_diagram: Any = None,
        heat_maps: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write ``README.md`` into ``output_dir``. What is told is kept for the cards that later saves and pushes write.

        Args:
            baseline: what a plain ``Trainer``'s ``evaluate()`` returned, to stand beside our results.
            reliability_diagram: a matplotlib figure, or the path of a picture.
            heat_maps: a list of such pictures, or a dictionary from captions to them.
            Others: as for ``Trainer``.
        """
        told = inspect.signature(super().create_model_card).bind_partial(*args, **kwargs).arguments
        told |= {"baseline": baseline, "reliability_diagram": reliability_diagram, "heat_maps": heat_maps}
        told = {**self._told_card, **{name: value for name, value in told.items() if value is not None}}
        if self.is_world_process_zero():
            write_model_card(self, told)
        self._told_card = told
