"""``Trainer`` that hides the most relevant inputs, to train on what is left and to learn how sure a model should be."""

from __future__ import annotations

import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from .attribution.state import attribution_state
from .challenge.challenger import ChallengedBatch, Challenger, has_rows
from .challenge.cues import Cue
from .challenge.options import ChallengeOptions
from .checks import check_classes, is_sharded, refuse_bad_loss, refuse_unsupported
from .config import LOWER_IS_BETTER
from .cue_callback import CueCallback, memory_file, write_cues
from .errors import ChallengerError, ChallengerWarning, NoEffectWarning, NotChallengeable
from .expected_accuracy import expected_accuracy
from .hub import explain_failed_upload, warn_of_failed_uploads
from .inputs import units_for
from .losses import IGNORED, problem_type_of
from .metrics import CalibrationMetrics, Kept, with_logits
from .model_card import write_model_card
from .outputs import logits_of
from .temperature import apply_temperature

# Heads whose own loss is a plain mean over the batch's labels, whatever num_items_in_batch says.
MEAN_LOSS_HEADS = ("ForSequenceClassification", "ForImageClassification", "ForAudioClassification", "ForClassification")

# Training rows at most: a probe gets better with more, and each costs a forward pass; one number, the temperature, needs fewer.
EXPECTATION_ROWS, CALIBRATION_ROWS = 2000, 500


def spread(rows: int, most: int) -> range:
    """Positions of at most ``most`` of ``rows`` rows, evenly spaced."""
    return range(0, rows, -(-rows // most))


class _SeveralClasses(Exception):
    """Rows of several classes, or of numbers: a temperature is for one class a row."""


class _BadLabels(ChallengerError):
    """Labels that no training could take either."""


class ChallengerTrainer(Trainer):
    """A drop-in ``Trainer`` for classifiers, after *CHALLENGER* (Tomani & Cremers, arXiv 2205.15094), in our own reading.

    A challenge hides the units of a row (tokens, time steps, patches) on which, by LRP, the model's score for its class rests.
    In training (``challenge_share``) a share of the rows is challenged, and the model learns from the mix of clean and
    challenged rows, in one forward pass. After training (``challenge_temperature``) challenged training rows tell how sure
    the model should be, and a temperature is folded into its last layer. By default texts, series and audio get the second,
    all else both. Evaluation and prediction are those of ``Trainer``; ``evaluate()`` also reports accuracy, ece, nll and brier.

    Args:
        args: a :class:`~hf_challenger.ChallengerConfig`, or plain ``TrainingArguments`` (default challenge).
        Others: as for ``Trainer``. Pass ``processing_class=tokenizer``: it tells the special tokens, which are never hidden.

    Logs, beside Trainer's: ``challenged_share``, ``removed_relevance``, ``clean_loss``, ``challenged_loss``; and, where they
    are not zero, ``rows_without_units`` and ``rows_with_bad_relevance``, which stayed clean.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._check_arguments(*args, **kwargs)
        super().__init__(*args, **kwargs)
        ChallengeOptions.of(self.args)  # an option that is wrong is told before anything is built
        self._challenger: Challenger | None = None
        self._trains_as_trainer = False  # since this model or task cannot be challenged
        self._memory_file: str | None = None  # of the checkpoint that training resumes from
        self.add_callback(CueCallback(self))
        self._counters: Tensor | None = None
        self._labels_in_step: Tensor | None = None
        self._micro_step = 0
        self._warned_not_finite = False
        self._told_card: dict[str, Any] = {}
        self._temperature: tuple[nn.Module, float, Any] | None = None  # what takes back the one that was folded in
        # The training set, and how often the model may be expected to be right on new rows once it is trained on it.
        self._expected: tuple[Any, float | None] | None = None
        preprocess = self.preprocess_logits_for_metrics
        kept = preprocess is not None
        if preprocess is not None:
            self.preprocess_logits_for_metrics = with_logits(preprocess)
        self.compute_metrics = CalibrationMetrics(self.compute_metrics, kept, self.args.batch_eval_metrics)
        metric = self.args.metric_for_best_model or ""
        if metric.endswith(LOWER_IS_BETTER) and self.args.greater_is_better:
            warnings.warn(
                f"metric_for_best_model={metric!r} is better when lower, but greater_is_better is True, so the worst model"
                " would be kept. Set greater_is_better=False, or use ChallengerConfig, which does.",
                ChallengerWarning,
                stacklevel=2,
            )

    @staticmethod
    def _check_arguments(model: Any = None, args: Any = None, *rest: Any, **kwargs: Any) -> None:
        """What can be told before Trainer starts to build things."""
        train_dataset = kwargs.get("train_dataset", rest[1] if len(rest) > 1 else None)
        if isinstance(train_dataset, dict):
            raise ChallengerError(
                f"train_dataset is a {type(train_dataset).__name__} with the splits {', '.join(map(repr, train_dataset))}; one"
                " split is expected. Did you mean train_dataset=dataset['train']?"
            )
        if isinstance(args, TrainingArguments) and args.should_save and args.output_dir is not None:
            try:
                os.makedirs(args.output_dir, exist_ok=True)
                with tempfile.TemporaryFile(dir=args.output_dir):
                    pass
            except OSError as error:
                raise ChallengerError(
                    f"output_dir={args.output_dir!r} cannot be written ({error}). Choose a folder that can be."
                ) from error

    # --- training -----------------------------------------------------------------------------------------------------

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Trainer.train``; then, with ``challenge_temperature``, confidences are calibrated on challenged training rows.

        Checkpoints hold the model as it was trained. What is saved or pushed after this call is calibrated.
        """
        if self._temperature is not None:  # training goes on from the model as it was trained
            apply_temperature(*self._temperature)
            self._temperature = None
        self._challenger, self._trains_as_trainer = None, False
        resumed = kwargs.get("resume_from_checkpoint", args[0] if args else None)
        self._memory_file = memory_file(resumed, self.args.output_dir)
        config: Any = None if self.model is None else self._config(self.model)
        if hasattr(config, "calibration_temperature"):  # of the model that training starts from
            del config.calibration_temperature
        calibrates = False
        accuracy = None
        if calibrates:
            if self._expected is None or self._expected[0] is not self.train_dataset:
                self._expected = (self.train_dataset, self._or_a_warning(self._expect))
            accuracy = self._expected[1]
        output = super().train(*args, **kwargs)
        if accuracy is not None:
            temperature = self._or_a_warning(lambda: self._calibrate(accuracy))
            if temperature is not None:
                output.metrics.update(challenge_temperature=temperature, expected_accuracy=accuracy)
        return output

    def _expect(self) -> float:
        """Of the model before it is trained. A model that was trained on these rows already would expect too much."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        refuse_unsupported(model, self.args.n_gpu)
        if is_sharded(model) or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ChallengerError("Its parameters are spread over processes.")
        if (self.args.fp16_full_eval or self.args.bf16_full_eval) and not self.is_model_parallel:
            self._move_model_to_device(model, self.args.device)  # as Trainer would a little later
        units: Any = units_for(model, self._processing_class(), ChallengeOptions.of(self.args).challenge_units)
        with attribution_state(model), self.compute_loss_context_manager():  # a stream may draw
            rows = self._some_rows(EXPECTATION_ROWS)
            return expected_accuracy(
                model, self._batches(rows), getattr(units, "attended", None), self.accelerator.gather, len(rows)
            )

    def _calibrate(self, accuracy: float) -> float:
        """Fit a temperature on challenged training rows and fold it into the model."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        rows = self._some_rows(CALIBRATION_ROWS)
        first: dict[str, Any] = {}
        with self.compute_loss_context_manager():
            temperature = challenged_temperature(
                model,
                self._batches(rows, first),
                accuracy,
                self.args,
                self._processing_class(),
                seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
                process=(self.accelerator.process_index, self.accelerator.num_processes),
                gather=self.accelerator.gather,  # not gather_for_metrics, which cuts as the last loader told it to
                rows=len(rows),
            )
        if temperature != 1:
            apply_temperature(model, temperature, first)
            self._temperature = (model, 1 / temperature, first)
        return temperature

    def _batches(self, rows: Any, first: dict[str, Any] | None = None) -> Iterator[dict[str, Any]]:
        """Training rows as the model takes them; ``first`` gets the inputs of the first batch."""
        args = self.args
        kept = args.dataloader_drop_last, args.per_device_eval_batch_size
        args.dataloader_drop_last = False  # it holds for any loader
        # An attribution keeps what a training step keeps, and batches that are evaluated may be too large for that.
        args.per_device_eval_batch_size = min(args.per_device_train_batch_size, args.per_device_eval_batch_size)
        try:
            loader = self.get_test_dataloader(rows)
        finally:
            args.dataloader_drop_last, args.per_device_eval_batch_size = kept
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        config: Any = getattr(model, "config", None)
        declared, outputs = getattr(config, "problem_type", None), getattr(config, "num_labels", None)
        for batch in loader:
            inputs = dict(batch)
            labels = inputs.pop(self._label_name(inputs))
            if problem_type_of(declared, outputs, labels) != "single_label_classification":
                raise _SeveralClasses
            try:
                check_classes(labels, model)
            except ChallengerError as error:
                raise _BadLabels(str(error)) from error
            if first is not None and not first:
                first.update({k: v[:1] if has_rows(v, len(labels)) else v for k, v in inputs.items()})
            yield {**inputs, "labels": labels.reshape(-1).long()}

    @staticmethod
    def _or_a_warning(what: Callable[[], float]) -> float | None:
        """Hours of training may be at stake: whatever is wrong with a calibration ends in a warning."""
        try:
            return what()
        except _SeveralClasses:
            return None
        except _BadLabels:
            raise
        except Exception as error:
            told = str(error) if isinstance(error, ChallengerError) else f"{type(error).__name__}: {error}"
            warnings.warn(
                f"The model stays as it is trained, without a temperature from challenged training rows: {told.rstrip('.')}. Set"
                " challenge_temperature=False to do without it.",
                ChallengerWarning,
                stacklevel=4,
            )
            return None

    def _some_rows(self, most: int) -> Any:
        """Training rows, spread over the data set; of a stream the first ones."""
        data: Any = self.train_dataset
        if data is None:
            raise ChallengerError("There is no train_dataset to take rows from.")
        if isinstance(data, torch.utils.data.IterableDataset) or not hasattr(data, "__len__"):
            return list(islice(data, most))
        rows = spread(len(data), most)
        return data.select(rows) if hasattr(data, "select") else torch.utils.data.Subset(data, rows)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._labels_in_step = self._count_labels(batches, device)
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
            num_items = None if self._head_takes_the_mean(model) else num_items_in_batch
            return super().compute_loss(model, inputs, return_outputs, num_items)
        first_row = self._first_row()
        if ChallengeOptions.of(self.args).challenge_share == 0:
            return self._true_mean_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = self._challenged(model, inputs, first_row)
        loss, outputs = self._true_mean_loss(model, inputs, True, num_items_in_batch)
        if self.accelerator.scaler is None:  # fp16's gradient scaler skips such steps by itself
            refuse_bad_loss(loss.detach(), model, self.state.global_step)
        return (loss, outputs) if return_outputs else loss

    def _challenged(self, model: nn.Module, inputs: dict[str, Any], first_row: int) -> dict[str, Any]:
        """The batch with units hidden; as it is where this model or task cannot be challenged and nothing asks for it."""
        options = ChallengeOptions.of(self.args)
        if self._trains_as_trainer:
            return inputs
        try:
            challenger = self._challenger_for(model, options)
            labels = inputs[self._label_name(inputs)]
            batch = challenger.challenge(inputs, labels, self.state.global_step, first_row)
        except NotChallengeable as error:
            if options != ChallengeOptions():
                raise
            self._trains_as_trainer = True
            warnings.warn(f"Training goes on as with Trainer, without a challenge: {error}", ChallengerWarning, stacklevel=2)
            return inputs
        self._count(batch)
        return {**inputs, **batch.inputs}

    def _true_mean_loss(self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool, num_items: Any) -> Any:
        """Trainer's loss, with the true mean where Trainer misses it (transformers issue 47688).

        Classification heads take ``num_items_in_batch`` and ignore it, so that Trainer's gradients come out too large by
        the number of micro-batches and of processes.
        """
        alone = self.current_gradient_accumulation_steps == 1 and self.accelerator.num_processes == 1
        if alone or not self._head_takes_the_mean(model):
            return super().compute_loss(model, inputs, return_outputs, num_items)
        labels = inputs[self._label_name(inputs)]
        outputs = model(**inputs)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
        labelled = (labels != IGNORED).sum()
        if labelled:
            loss = loss * labelled / self._labels_in_this_step(labels) * self.accelerator.num_processes
        else:  # the head's mean over no label is NaN
            loss = logits_of(outputs if isinstance(outputs, dict) else outputs[1:]).sum() * 0
        self.loss_is_scaled_for_ga = True
        return (loss, outputs) if return_outputs else loss

    def _head_takes_the_mean(self, model: nn.Module) -> bool:
        """Whether the loss is the head's own, and a plain mean over the labels of whatever batch it is given."""
        if self.label_smoother is not None or self.compute_loss_func is not None:
            return False
        return type(self.accelerator.unwrap_model(model, keep_torch_compile=False)).__name__.endswith(MEAN_LOSS_HEADS)

    def _challenger_for(self, model: nn.Module, options: ChallengeOptions) -> Challenger:
        """Built at the first challenge, and anew when options change (a search, a callback) or the model does."""
        bare = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        known = self._challenger
        if known is None or known.model is not bare or known.options != options:
            refuse_unsupported(model, self.args.n_gpu)
            for idle in options.without_effect():
                warnings.warn(idle, NoEffectWarning, stacklevel=2)
            memory = None
            if known is not None and known.options.challenge_threshold == options.challenge_threshold:
                memory = known.memory
            self._challenger = known = Challenger(
                bare,
                options,
                self._processing_class(),
                seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
                gather=self._gather_rows if self.accelerator.num_processes > 1 else None,
                memory=memory,
            )
            if self._memory_file is not None:
                known.memory.load_state_dict(torch.load(self._memory_file), counts=self.is_world_process_zero())
                self._memory_file = None
        return known

    def _gather_rows(self, rows: Tensor) -> Tensor:
        return self.accelerator.gather(self.accelerator.pad_across_processes(rows, pad_index=-1))

    @property
    def cues(self) -> list[Cue]:
        """What the classifier was found to lean on in the last training, the strongest first; see :class:`~.Cue`."""
        return [] if self._challenger is None else self._challenger.cues

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
        return int(batch * self._train_batch_size)

    def _label_name(self, inputs: Any) -> str:
        for name in (*(self.label_names or ()), "labels"):
            if name in inputs:
                return str(name)
        raise NotChallengeable(
            f"The batch holds {', '.join(inputs) or 'nothing'}, but no labels; expected one of"
            f" {', '.join(map(repr, dict.fromkeys((*(self.label_names or ()), 'labels'))))}. Name the label column 'labels', or"
            f" set label_names in the arguments; columns that {type(self.model).__name__}.forward does not take are dropped, so"
            " load a model with a classification head."
        )

    def _count_labels(self, batches: list[Any], device: torch.device) -> Tensor | None:
        """Labels in all micro-batches of the step, on all processes."""
        try:
            counts = [(batch[self._label_name(batch)] != IGNORED).sum() for batch in batches]
        except (ChallengerError, TypeError, AttributeError, KeyError):
            return None  # the step itself says what is missing
        if not counts:
            return None
        total = torch.stack(counts).sum().to(device)
        return self.accelerator.reduce(total, "sum") if self.accelerator.num_processes > 1 else total

    def _labels_in_this_step(self, labels: Tensor) -> Tensor:
        total = self._labels_in_step
        if total is None:  # compute_loss called outside of a training loop
            total = (labels != IGNORED).sum()
        return total.clamp(min=1)

    # --- logging ------------------------------------------------------------------------------------------------------

    def _count(self, batch: ChallengedBatch) -> None:
        rows = torch.full((), float(len(batch.challenged)), device=batch.challenged.device)
        counts = torch.stack([rows, batch.challenged.sum().float(), batch.not_finite.float()])
        self._counters = counts if self._counters is None else self._counters + counts

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._counters is not None:
            logs.update(self._flush_counters())
        super().log(logs, *args, **kwargs)

    def _flush_counters(self) -> dict[str, float]:
        assert self._counters is not None
        rows, challenged, not_finite = self.accelerator.reduce(self._counters, "sum").tolist()
        self._counters = None
        logs = {"challenged_share": challenged / rows}
        if self.args.challenge_selection == "cues" if hasattr(self.args, "challenge_selection") else True:
            logs["cues_found"] = len(self.cues)
        if not_finite:
            logs["rows_with_bad_relevance"] = not_finite
            if not self._warned_not_finite:
                self._warned_not_finite = True
                warnings.warn(
                    f"Relevance was NaN or infinite in {int(not_finite)} rows, which stayed whole. Lower the learning rate, or"
                    " train in bf16 or fp32 instead of fp16. This is said once; rows_with_bad_relevance counts on.",
                    ChallengerWarning,
                    stacklevel=2,
                )
        return logs

    # --- evaluation ---------------------------------------------------------------------------------------------------

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        if (
            isinstance(self.compute_metrics, CalibrationMetrics)
            and self.compute_metrics.kept
            and output.predictions is not None
        ):
            output = output._replace(predictions=Kept(*output.predictions).processed)
        return output

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if self.args.should_save and self._challenger is not None and not self._trains_as_trainer:
            write_cues(self.cues, output_dir or self.args.output_dir)

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

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().push_to_hub(*args, **kwargs)
        except Exception as error:
            explain_failed_upload(self, error)
            raise

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        warn_of_failed_uploads(self)
        super()._push_from_checkpoint(checkpoint_folder)

    def _finish_current_push(self) -> None:
        super()._finish_current_push()
        warn_of_failed_uploads(self)
