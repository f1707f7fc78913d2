"""What transformers' ``Trainer`` gets wrong or keeps private: one function each, with the version that ends it.

Checked against transformers 5.23. ``tests/test_compat.py`` tells when the installed version no longer needs one of them.

Private names of transformers that this library touches, all of them:

- ``Trainer._push_from_checkpoint`` and ``Trainer._finish_current_push`` (:class:`FailedUploads`)
- ``Trainer._prepare_inputs``, ``Trainer._remove_unused_columns`` and ``Trainer._get_collator_with_removed_columns``
  (``picture_callback.py`` and ``cue_report()``: a batch of chosen rows, without a data loader)
- the reporters' writers that ``picture_callback.py`` sends pictures to
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from .errors import ChallengerError
from .hub import explain_failed_upload, warn_of_failed_uploads
from .losses import IGNORED
from .peft_base import without_peft

# Heads whose own loss is a plain mean over the batch's labels, whatever num_items_in_batch says. They share no base class.
MEAN_LOSS_HEADS = ("ForSequenceClassification", "ForImageClassification", "ForAudioClassification", "ForClassification")


def head_takes_the_mean(trainer: Trainer, model: nn.Module) -> bool:
    """Whether the loss is the head's own, and a plain mean over the labels of whatever batch it is given.

    transformers issue 47688: such heads take ``num_items_in_batch`` and ignore it. Trainer believes that they divide by it,
    so that gradients come out too large by the number of micro-batches and of processes. Open in 5.23.
    """
    if trainer.label_smoother is not None or trainer.compute_loss_func is not None:
        return False
    bare = trainer.accelerator.unwrap_model(model, keep_torch_compile=False)
    return type(without_peft(bare)).__name__.endswith(MEAN_LOSS_HEADS)


def loss_over_the_step(outputs: Any, labels: Tensor, labels_in_step: Tensor, processes: int) -> Tensor:
    """A head's mean over one micro-batch → its part of the mean over the whole step (issue 47688).

    Args:
        outputs: of a head for which :func:`head_takes_the_mean`, with its loss.
        labels: of the micro-batch; -100 is left out.
        labels_in_step: labels in all micro-batches of the step, on all processes.
        processes: DDP divides gradients by their number.

    Returns:
        The loss. Its sum over micro-batches, and mean over processes, is the mean over the step's labels.
    """
    labelled = (labels != IGNORED).sum()
    loss = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
    # The head's mean over no label is NaN, with gradients of zero. Not by ``if``, which would wait for the device.
    return torch.where(labelled > 0, loss, 0) * labelled / labels_in_step * processes


def count_labels(
    trainer: Trainer, batches: list[Any], label_name: Callable[[Mapping[str, Any]], str], device: torch.device
) -> Tensor | None:
    """Labels in all micro-batches of a step, on all processes. None if a batch has none: the step itself says so.

    Trainer's own count (``num_items_in_batch``) is None or differs where the model takes no loss arguments (issue 47688).
    """
    try:
        counts = [(batch[label_name(batch)] != IGNORED).sum() for batch in batches]
    except (ChallengerError, TypeError, AttributeError, KeyError):
        return None
    if not counts:
        return None
    total = torch.stack(counts).sum().to(device)
    return trainer.accelerator.reduce(total, "sum") if trainer.accelerator.num_processes > 1 else total


def ignored_outputs(model: nn.Module | None, ignore_keys: list[str] | None) -> list[str]:
    """The output fields that ``Trainer.prediction_step`` is told to leave out, so that their places are known.

    Its own default differs: a config that names none leaves out ``past_key_values`` in 5.23, and ``cache`` in 5.24.
    """
    if ignore_keys is not None:
        return ignore_keys
    return list(getattr(getattr(model, "config", None), "keys_to_ignore_at_inference", ["past_key_values", "cache"]))


def rows_a_micro_batch(trainer: Trainer) -> int:
    """Rows that a process gets in a micro-batch, also after ``auto_find_batch_size`` has lowered them (kept private)."""
    micro_batches = trainer.args.gradient_accumulation_steps * trainer.accelerator.num_processes
    return trainer.get_total_train_batch_size(trainer.args) // micro_batches


class FailedUploads(Trainer):
    """Uploads that fail: Trainer waits for those in the background without looking, and loses why they failed (5.23)."""

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
