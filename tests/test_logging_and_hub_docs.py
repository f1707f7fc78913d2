"""docs/logging.md and docs/hub.md: their tables name what is really logged and taken. Their code runs in tests/docs."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Trainer

from hf_challenger import ChallengerTrainer, PictureCallback
from hf_challenger.attribution.methods import METHODS

mpl.use("agg")

DOCS = Path(__file__).parents[1] / "docs"
TRAINERS_OWN = {"loss", "grad_norm", "learning_rate", "epoch", "step"} | {
    *("train_loss", "train_runtime", "train_samples_per_second", "train_steps_per_second", "total_flos")
}
EVALUATIONS_OWN = {
    f"eval_{name}" for name in ("loss", "runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
}


def first_column(page: str) -> set[str]:
    rows = [line.split("|")[1] for line in (DOCS / page).read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`([\w/]+)`", row)}


def some_bad_relevance(model: Any, batch: Any, target: Any, composite: Any, main_input: Any = None) -> torch.Tensor:
    relevance = torch.ones((*batch["input_ids"].shape, 1))
    relevance[0] = math.nan
    return relevance


def test_the_table_names_every_key_that_is_logged_and_no_other(
    trainer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, any_confidence: None
) -> None:
    """As TensorBoard has them in the end: scalars and pictures."""
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    with monkeypatch.context() as patched:
        patched.setitem(METHODS, "lrp", some_bad_relevance)
        trainer(challenge_selection="cues", max_steps=12, report_to="tensorboard").train()
    hides = trainer(challenge_selection="cues", challenge_hide=["w1"], report_to="tensorboard")
    hides.train()
    hides.cue_report()
    trainer(max_steps=60, calibrate=True, report_to="tensorboard").train()
    evaluated = trainer(report_to="tensorboard")
    evaluated.add_callback(PictureCallback(evaluated))
    evaluated.evaluate()
    tags = EventAccumulator(str(tmp_path / "board")).Reload().Tags()
    training = {tag.removeprefix("train/") for tag in tags["scalars"] if tag.startswith("train/")}
    evaluation = {tag.replace("/", "_") for tag in tags["scalars"] if tag.startswith("eval/")}
    ours = (training - TRAINERS_OWN) | (evaluation - EVALUATIONS_OWN)
    texts = {tag.removesuffix("/text_summary") for tag in tags["tensors"]}
    texts = {tag for tag in texts if tag.startswith(("train/", "eval/"))}  # the others are Trainer's
    assert ours | set(tags["images"]) | texts == first_column("logging.md")


def test_the_table_names_every_argument_of_the_card() -> None:
    taken = (
        inspect.signature(Trainer.create_model_card).parameters
        | inspect.signature(ChallengerTrainer.create_model_card).parameters
    )
    assert first_column("hub.md") == set(taken) - {"self", "args", "kwargs"}
