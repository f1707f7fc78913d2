"""``Trainer`` that finds the cues a classifier leans on, and trains without them."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from .calibration import CalibrationCallback
from .challenge import ChallengeOptions, Challenger, Cue
from .challenge.selection import CUES, NAMED
from .checks import (
    bad_loss,
    check_arguments,
    harmless_labels,
    name_bad_label,
    refuse_unsupported,
)
from .compat import head_takes_the_mean
from .counts import Counts, RowCounter
from .cue_callback import CueCallback, memory_file, write_cues
from .data_checks import check_data, check_evaluation_labels
from .errors import ChallengerError, ChallengerWarning, NoEffectWarning, NotChallengeable
from .inputs import units_for
from .inputs.main_input import LABEL_KEYS, label_names_of
from .logits import logits_of
from .losses import IGNORED
from .step_trainer import StepTrainer
from .value_checks import on_host


class ChallengerTrainer(StepTrainer):
    """A drop-in ``Trainer`` for classifiers that finds the cues they lean on and trains without them.

    After *CHALLENGER* (Tomani & Cremers, arXiv 2205.15094), in our own reading. A cue holds most of the relevance, by LRP, of
    many rows of a class. It is hidden in a part of the rows that hold it (``challenge_share``), so that the model must find
    further evidence. Until a cue is found, training is Trainer's. :attr:`cues` tells what was found.

    After training, a temperature is fitted and folded into the last layer (:class:`~.calibration.CalibrationCallback`,
    ``calibrate``). Evaluation and prediction are those of ``Trainer``; ``evaluate()`` also reports accuracy, ece, nll, brier.

    Args:
        args: a :class:`~hf_challenger.ChallengerConfig`, or plain ``TrainingArguments`` (default challenge).
        Others: as for ``Trainer``. Pass ``processing_class=tokenizer``: it tells the special tokens.

    Logs, beside Trainer's: ``challenged_share``, ``cues_found``, and where it is not zero ``rows_with_bad_relevance``, which
    stayed whole. ``calibration_temperature`` and ``expected_accuracy`` come once at the end, and are also in the metrics that
    ``train()`` returns.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        check_arguments(*args, **kwargs)
        super().__init__(*args, **kwargs)
        ChallengeOptions.of(self.args)  # an option that is wrong is told before anything is built
        self._challenger: Challenger | None = None
        self._challenged_model: nn.Module | None = None  # what it was built for, as it came, maybe wrapped
        self._trains_as_trainer = False  # since this model or task cannot be challenged
        self._computed_losses = False  # in this training, by compute_loss of this class
        self._saved_memory: str | None = None  # of the checkpoint that training resumes from
        self._memory_file: str | None = None  # the same, until it is loaded
        self._counter = self._new_counter()
        self._cue_report: Any = None
        # First, so that callbacks that report or save at the end of training see the calibrated model and its log.
        self.callback_handler.callbacks[:0] = [CueCallback(self), CalibrationCallback(self)]

    # --- training -----------------------------------------------------------------------------------------------------

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As ``Trainer.train``. The metrics it returns also hold what :class:`~.calibration.CalibrationCallback` logged."""
        resumed = kwargs.get("resume_from_checkpoint", args[0] if args else None)
        self._saved_memory = memory_file(resumed, self.args.output_dir)
        self._check_data()
        output = super().train(*args, **kwargs)
        for logs in self.state.log_history:  # a callback of the user's may have logged since
            output.metrics.update({k: logs[k] for k in ("calibration_temperature", "expected_accuracy") if k in logs})
        return output

    def _check_data(self) -> None:
        """A wrong label would end the first evaluation, hours from here; without one in training it is only told."""
        if self.model is None or ChallengeOptions.of(self.args).challenge_share == 0:
            return
        columns = *(self.label_names or ()), "labels", "label"
        main_input = getattr(self.model, "main_input_name", None)
        check_data(self.train_dataset, "train_dataset", columns, self.data_collator, main_input)
        try:
            check_data(self.eval_dataset, "eval_dataset", columns, self.data_collator, main_input)
            check_evaluation_labels(self.eval_dataset, self.model, columns)
        except ChallengerError as error:
            if self.args.eval_strategy != "no":
                raise
            warnings.warn(str(error), ChallengerWarning, stacklevel=3)

    def _start_afresh(self) -> None:
        """When training begins; with auto_find_batch_size once more for each size that is tried."""
        self._challenger, self._memory_file = None, self._saved_memory
        self._trains_as_trainer = self._computed_losses = False
        self._counter, self._cue_report = self._new_counter(), None
        options = ChallengeOptions.of(self.args)
        for idle in options.without_effect():
            warnings.warn(idle, NoEffectWarning, stacklevel=2)
        # A memory tells the cues, even if no step is left; a name that is wrong is told before anything is computed.
        if (
            (self._memory_file or options.challenge_hide or options.challenge_keep)
            and self.model is not None
            and options.challenge_share
        ):
            with contextlib.suppress(NotChallengeable):  # which the first step tells
                self._challenger_for(self.model, options)

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
            given = dict(inputs)  # Trainer takes out the labels
            try:
                found = super().compute_loss(model, inputs, return_outputs, num_items)
            except IndexError as error:
                bare = self.accelerator.unwrap_model(model, keep_torch_compile=False)
                name_bad_label(given, label_names_of(self), bare, error)
                raise
            if return_outputs and isinstance(found[1], Tensor):  # of which Trainer would cut the first row, for the loss
                return found[0], {"logits": found[1]}
            return found
        first_row, self._computed_losses = self._first_row(), True
        if ChallengeOptions.of(self.args).challenge_share == 0:
            return self._trainers_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = self._challenged(model, inputs, first_row)
        if self._trains_as_trainer:
            return self._trainers_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs[self._label_name(inputs)]  # a loss of the user's may take them out
        loss, outputs = self._trainers_loss(model, inputs, True, num_items_in_batch)
        if self.accelerator.scaler is None:  # fp16's gradient scaler skips bad steps by itself
            loss = self._checked(loss, outputs, labels, model)
        return (loss, outputs) if return_outputs else loss

    def _checked(self, loss: Tensor, outputs: Any, labels: Tensor, model: nn.Module) -> Tensor:
        """The loss, or 0 for the NaN that is the mean over no label. Other NaN is told before it reaches the weights."""
        assert self._challenger is not None
        checks, step, value, finite = (
            self._challenger.checks,
            self.state.global_step,
            loss.detach(),
            loss.detach().isfinite(),
        )
        checks.expect(finite | (labels == IGNORED).all(), lambda: bad_loss(value, model, step, self.state.global_step))
        checks.send()
        if not on_host(loss):
            return torch.where(finite, loss, torch.zeros_like(loss))
        return loss if finite else logits_of(outputs if isinstance(outputs, dict) else outputs[1:]).sum() * 0

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
                raise NotChallengeable(
                    f"{str(error).rstrip('.')}. Or set challenge_share=0, which trains as Trainer does."
                ) from error
            self._trains_as_trainer = True
            warnings.warn(f"Training goes on as with Trainer, without a challenge: {error}", ChallengerWarning, stacklevel=2)
            return inputs
        self._counter.count(batch)
        if not on_host(labels):
            inputs = {**inputs, self._label_name(inputs): harmless_labels(labels, challenger.model)}
        return {**inputs, **batch.inputs}

    def _challenger_for(self, model: nn.Module, options: ChallengeOptions) -> Challenger:
        """Built at the first challenge, and anew when options change (a search, a callback) or the model does."""
        known = self._challenger
        if known is not None and model is self._challenged_model and known.options == options:
            return known  # without unwrapping the model in each step, which looks at all its modules
        bare = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        self._challenged_model = model
        if known is None or known.model is not bare or known.options != options:
            refuse_unsupported(model, self.args.n_gpu, relevance=options.challenge_selection != NAMED)
            before = None if known is None else known.options.names
            self._challenger = known = Challenger(
                bare,
                options,
                self._processing_class(),
                seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
                gather=self._gather_rows if self.accelerator.num_processes > 1 else None,
                memory=None if known is None or known.options.challenge_units != options.challenge_units else known.memory,
            )
            if self._memory_file is not None:
                saved = torch.load(self._memory_file)
                known.memory.load_state_dict(saved, counts=self.is_world_process_zero())
                self._counter = self._new_counter(Counts(**saved.get("counts", {})))
                self._memory_file = None
                before = saved.get("names", options.names)
            if before not in (None, options.names):
                known.forget_named()
        return known

    def _without_leaks(self, inputs: dict[str, Any], step: int) -> dict[str, Any]:
        """A batch in which what ``challenge_hide`` names tells nothing, as training takes it out; for the calibration."""
        options = ChallengeOptions.of(self.args)
        if not options.challenge_hide or not options.challenge_share or self._trains_as_trainer or self.model is None:
            return inputs
        known = self._challenger_for(self.model, options)
        return known.without_leaks(inputs, step)[0]

    def _gather_rows(self, rows: Tensor) -> Tensor:
        rows = self.accelerator.pad_across_processes(rows, dim=1, pad_index=-1)  # series of another length
        return self.accelerator.gather(self.accelerator.pad_across_processes(rows, pad_index=-1))

    @property
    def cues(self) -> list[Cue]:
        """What the classifier was found to lean on in the last training, the strongest first; see :class:`~.Cue`."""
        return [] if self._challenger is None else self._challenger.cues

    def cue_report(self, dataset: Any = None, **options: Any) -> Any:
        """What the model leans on in ``dataset`` (default: the evaluation or else the training data), and does without it.

        TensorBoard and cards that are written from then on show the report's short form.

        Returns:
            A :class:`~.report.cue_results.CueReport`; print it. ``options`` are those of :func:`~.report.cue_report.cue_report`.
        """
        from .report.card_text import cue_report_text
        from .report.cue_report import cue_report
        from .report.text_log import log_text

        data = next((d for d in (dataset, self.eval_dataset, self.train_dataset) if d is not None), None)
        if data is None:
            raise ChallengerError("There is no data set to report on: give cue_report() one.")
        check_data(data, "the data set", (*(self.label_names or ()), *LABEL_KEYS), self.data_collator)
        asked = ChallengeOptions.of(self.args)
        collate = self._get_collator_with_removed_columns(self.data_collator, description="cue report")
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        units = units_for(model, self._processing_class(), asked.challenge_units, asked.challenge_unit_size)
        options = {"units": units, "label_names": (*(self.label_names or ()), *LABEL_KEYS), **options}
        report = cue_report(model, data, self._processing_class(), collator=collate, **options)
        log_text(self, "eval_cue_report", cue_report_text(report))
        self._cue_report = report
        return report

    def _processing_class(self) -> Any:
        if self.processing_class is not None:
            return self.processing_class
        return getattr(self.data_collator, "tokenizer", None)

    # --- logging ------------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._counter.news:
            logs.update(self._counted())
        super().log(logs, *args, **kwargs)

    def _new_counter(self, total: Counts | None = None) -> RowCounter:
        return RowCounter(lambda counts: self.accelerator.reduce(counts, "sum"), total)

    def _counted(self) -> dict[str, float]:
        found, known = self._counter.read(), self._challenger
        logs = {"challenged_share": found.challenged / found.rows}
        if known is not None and known.leaks:
            logs["leak_share"] = found.leaked / found.rows
        if known is not None and known.options.challenge_selection == CUES:
            logs["cues_found"] = known.memory.number
        if found.not_finite:
            logs["rows_with_bad_relevance"] = found.not_finite
            if found.not_finite == self._counter.total.not_finite:  # the first of this training
                warnings.warn(
                    f"Relevance was NaN or infinite in {found.not_finite} rows, which stayed whole. Lower the learning rate, or"
                    " train in bf16 or fp32 instead of fp16. This is said once; rows_with_bad_relevance counts on.",
                    ChallengerWarning,
                    stacklevel=2,
                )
        return logs

    # --- saving and sharing ------------------------------------------------------------------------------------------------------

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As ``Trainer.save_model``, and ``cues.json`` beside the model."""
        super().save_model(output_dir, _internal_call)
        known = self._challenger
        by_cues = known is not None and known.options.challenge_selection == CUES and not self._trains_as_trainer
        if self.args.should_save:
            write_cues(self.cues if by_cues else None, output_dir or self.args.output_dir)
