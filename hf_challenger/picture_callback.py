"""Pictures in the run's logs: a reliability diagram at each evaluation, and training rows before and after the challenge."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.integrations.integration_utils import TensorBoardCallback, TrackioCallback, WandbCallback, rewrite_logs

from .calibration.evaluation import CalibrationMetrics
from .challenge import ChallengeOptions, Challenger
from .challenge.selection import CUES, NAMED
from .checks import is_sharded
from .errors import ChallengerError, ChallengerWarning, NoEffectWarning

if TYPE_CHECKING:
    from .trainer import ChallengerTrainer

# (tag, pixels (height, width, 3) uint8, optimizer step)
Sink = Callable[[str, "np.ndarray[Any, Any]", int], None]


class PictureCallback(TrainerCallback):
    """Logs pictures wherever the run is reported to and images are taken: TensorBoard, wandb, trackio.

    At each evaluation: ``eval/reliability_diagram`` (single-label classification), of the very scores that the evaluation
    computed; and ``eval/before_and_after``, where the training set can be indexed: its first rows, their relevance, and what
    a challenge hides of them. Training is the same with it as without it, bit for bit. Needs matplotlib.

    Args:
        trainer: the one that it is added to, ``trainer.add_callback(PictureCallback(trainer))``.
        rows: training rows in ``before_and_after``; 0 for none.
    """

    def __init__(self, trainer: ChallengerTrainer, rows: int = 3) -> None:
        metrics: Any = getattr(trainer, "compute_metrics", None)
        if not isinstance(metrics, CalibrationMetrics):
            raise ChallengerError(
                f"PictureCallback was given a {type(trainer).__name__}; a ChallengerTrainer is expected. Use"
                " trainer.add_callback(PictureCallback(trainer))."
            )
        self.trainer, self.rows = trainer, rows
        self._batch: Any = None
        self._scores: tuple[Any, Any] | None = None
        self._told: set[str] = set()
        metrics.listener = self._keep

    def _keep(self, logits: Any, labels: Any) -> None:
        self._scores = logits, labels

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        scores, self._scores = self._scores, None
        if not state.is_world_process_zero:
            return
        sinks = _sinks(self.trainer.callback_handler.callbacks)
        if not sinks:
            self._tell_once(
                "reporters",
                f"PictureCallback logs nothing: report_to={args.report_to!r} takes no pictures. Set report_to='tensorboard',"
                " 'wandb' or 'trackio', or remove the callback.",
                NoEffectWarning,
            )
            return
        prefix = next((key.removesuffix("_runtime") for key in metrics or () if key.endswith("_runtime")), "eval")
        for name, draw in (("reliability_diagram", lambda: _diagram(scores)), ("before_and_after", self._before_and_after)):
            try:
                figure = draw()
            except ChallengerError as error:  # a picture is no reason to end a training
                self._tell_once(name, f"The picture {name} cannot be drawn: {error}", ChallengerWarning)
                continue
            if figure is not None:
                tag = next(iter(rewrite_logs({f"{prefix}_{name}": None})))
                for sink in sinks:
                    sink(tag, _pixels(figure), state.global_step)

    def _tell_once(self, about: str, message: str, category: type[Warning]) -> None:
        if about not in self._told:
            self._told.add(about)
            warnings.warn(message, category, stacklevel=3)

    # --- before and after ---------------------------------------------------------------------------------------------

    def _before_and_after(self) -> Any:
        trainer = self.trainer
        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        options, known = ChallengeOptions.of(trainer.args), trainer._challenger
        by_cues = options.challenge_selection == CUES
        if not self.rows or not options.challenge_share or not hasattr(trainer.train_dataset, "__len__"):
            return None
        if options.challenge_selection == NAMED:
            return None  # relevance has no part in it
        if by_cues and (known is None or not known.memory.number):
            return None  # nothing is hidden so far
        if is_sharded(model):  # relevance would need all processes
            return None
        from .visualize import before_and_after

        everything = replace(options, challenge_share=1.0)
        with _random_numbers_as_they_were():
            if self._batch is None:
                self._batch = self._first_rows()
            inputs = trainer._prepare_inputs(dict(self._batch))
            labels = inputs.pop(trainer._label_name(inputs))
            tokenizer = trainer._processing_class()
            memory = known.memory.copy() if by_cues and known is not None else None
            challenger = Challenger(model, everything, tokenizer, trainer.args.seed, memory=memory)
            return before_and_after(challenger, inputs, labels, tokenizer, trainer.state.global_step, self.rows)

    def _first_rows(self) -> Any:
        """A batch of the first training rows, as the training loop would collate them."""
        trainer: Any = self.trainer
        data, collate = trainer.train_dataset, trainer.data_collator
        if isinstance(data, Dataset):
            data = trainer._remove_unused_columns(data, description="pictures")
        else:
            collate = trainer._get_collator_with_removed_columns(collate, description="pictures")
        return collate([data[i] for i in range(min(self.rows, len(data)))])


@contextmanager
def _random_numbers_as_they_were() -> Iterator[None]:
    """Augmentation and collators may draw; training then goes on as if they had not."""
    others = random.getstate(), np.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(others[0])
            np.random.set_state(others[1])


# --- drawing and sending ------------------------------------------------------------------------------------------------


def _diagram(scores: tuple[Any, Any] | None) -> Any:
    if scores is None:
        return None
    from .visualize import reliability_diagram

    logits, labels = (torch.as_tensor(x) for x in scores)
    kept = labels.reshape(-1) != -100
    return reliability_diagram(logits.float()[kept].softmax(1), labels.reshape(-1)[kept])


def _pixels(figure: Any) -> np.ndarray[Any, Any]:
    figure.set_dpi(110)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _sinks(callbacks: list[Any]) -> list[Sink]:
    """One for each reporter of transformers that takes pictures and is ready."""
    sinks: list[Sink] = []
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
            sinks.append(_to_tensorboard(callback.tb_writer))
        elif isinstance(callback, WandbCallback) and getattr(callback._wandb, "run", None) is not None:
            sinks.append(_to_run(callback._wandb))
        elif isinstance(callback, TrackioCallback) and callback._initialized:
            sinks.append(_to_run(callback._trackio))
    return sinks


def _to_tensorboard(writer: Any) -> Sink:
    def send(tag: str, pixels: np.ndarray[Any, Any], step: int) -> None:
        writer.add_image(tag, pixels, step, dataformats="HWC")
        writer.flush()

    return send


def _to_run(module: Any) -> Sink:
    """wandb and trackio, which have the same calls; the step goes as transformers' own callbacks send it."""

    def send(tag: str, pixels: np.ndarray[Any, Any], step: int) -> None:
        module.log({tag: module.Image(pixels), "train/global_step": step})

    return send
