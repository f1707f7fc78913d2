"""Uploads that fail: nothing is lost, and the error says how to go on. What is uploaded, and when, is Trainer's business."""

from __future__ import annotations

import shlex
import warnings
from concurrent.futures import Future
from typing import Any

from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # whichever fork it runs on
from transformers import Trainer

from .errors import ChallengerWarning

HUB_ERRORS = (HfHubHTTPError, OfflineModeIsEnabled, httpx.HTTPError)


def explain_failed_upload(trainer: Trainer, error: BaseException) -> None:
    """Add to the error of ``push_to_hub`` where the model lies and how to upload it. Other errors stay as they are.

    The error keeps its type, so that code which handles Trainer's errors handles ours.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HUB_ERRORS):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return
    if trainer.hub_model_id is None and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        # The repository could not be made, which comes before saving. A sharded model takes all processes to save.
        trainer.save_model(_internal_call=True)
        where = f"The model is saved in {trainer.args.output_dir!r}."
    elif trainer.hub_model_id is None:
        where = "The model is not saved yet: call trainer.save_model() on all processes."
    else:
        where = f"The model and its card are whole in {trainer.args.output_dir!r}."
    error.add_note(f"{where} {how_to_retry(trainer)}")


def how_to_retry(trainer: Trainer) -> str:
    args = trainer.args
    command = ["hf", "upload", trainer.hub_model_id or args.hub_model_id or "USER/NAME", str(args.output_dir), "."]
    command += ["--exclude", "_*"]
    if args.hub_strategy != "all_checkpoints":
        command += ["--exclude", "checkpoint-*"]
    if args.hub_private_repo:
        command.append("--private")  # the command makes a repository that is missing, and a public one unless told
    if args.hub_revision:
        command += ["--revision", args.hub_revision]
    return (
        f"To try again: trainer.push_to_hub(), or, without the trainer: {shlex.join(command)}"
        " (if the Hub refused you: hf auth login, with a token that may write)."
    )


def warn_of_failed_uploads(trainer: Trainer) -> None:
    """Tell once which uploads in the background failed: Trainer waits for them without looking."""
    progress = getattr(trainer, "push_in_progress", None)
    if progress is None:
        return
    done: list[Future[Any]] = [job for job in progress.jobs if job.done()]
    progress.jobs = [job for job in progress.jobs if job not in done]
    failed = [error for job in done if not job.cancelled() and (error := job.exception()) is not None]
    if failed:
        warnings.warn(
            f"{len(failed)} of {len(done)} uploads during training failed: {failed[-1]}. The checkpoints in"
            f" {trainer.args.output_dir!r} are whole. {how_to_retry(trainer)}",
            ChallengerWarning,
            stacklevel=3,
        )
