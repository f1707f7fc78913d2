"""Texts in TensorBoard, which the console and trainer_state.json do without."""

from __future__ import annotations

from transformers import Trainer
from transformers.integrations.integration_utils import TensorBoardCallback


def log_text(trainer: Trainer, name: str, text: str) -> None:
    """Show markdown in TensorBoard's tab for texts, if the run is reported there; ``eval_name`` as ``eval/name``."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback):
            callback.on_log(trainer.args, trainer.state, trainer.control, logs={name: text})
