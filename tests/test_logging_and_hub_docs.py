"""docs/logging.md and docs/hub.md: their tables name what is really logged and taken, and their code runs."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import tiny_data
from transformers import Trainer

from hf_challenger import ChallengerTrainer
from hf_challenger.attribution.methods import METHODS

mpl.use("agg")
from matplotlib.figure import Figure

DOCS = Path(__file__).parents[1] / "docs"
TRAINERS_OWN = {"loss", "grad_norm", "learning_rate", "epoch", "step"}


def first_column(page: str) -> set[str]:
    rows = [line.split("|")[1] for line in (DOCS / page).read_text().splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def code_of(page: str) -> str:
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return block


def some_bad_relevance(model: Any, batch: Any, target: Any, composite: Any) -> torch.Tensor:
    relevance = torch.ones((*batch["input_ids"].shape, 1))
    relevance[0] = math.nan
    return relevance


def test_the_table_names_every_key_that_is_logged_and_no_other(trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "lrp", some_bad_relevance)
    rows = list(tiny_data(32))
    rows[0] = {"input_ids": [2, 3], "attention_mask": [1, 1], "labels": 0}  # nothing to hide
    run = trainer(data=rows, challenge_share=0.9, max_steps=4)
    run.train()
    training = {key for log in run.state.log_history for key in log if "total_flos" not in log}
    evaluation = {key for key in run.evaluate() if key.split("_")[-1] in ("accuracy", "ece", "nll", "brier")}
    documented = first_column("logging.md")
    assert (training - TRAINERS_OWN) | evaluation == documented


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_challenged_share_of_appended_batches_is_as_documented(share: float, trainer: Any) -> None:
    run = trainer(
        data=tiny_data(400), challenge_mix="append", challenge_share=share, max_steps=1, per_device_train_batch_size=400
    )
    run.train()
    assert run.state.log_history[0]["challenged_share"] == pytest.approx(share / (1 + share), abs=0.05)


def test_the_callback_puts_pictures_into_tensorboard(trainer: Any, tmp_path: Path) -> None:
    names: dict[str, Any] = {}
    exec(code_of("logging.md"), names)
    run = trainer(kwargs={"callbacks": [names["FigureCallback"](Figure, str(tmp_path / "board"))]})
    run.evaluate()
    assert EventAccumulator(str(tmp_path / "board")).Reload().Tags()["images"] == ["eval/picture"]


def test_the_card_of_the_docs(trainer: Any) -> None:
    run = trainer()
    exec(code_of("hub.md"), {"trainer": run, "test": tiny_data(12)})
    card = Path(run.args.output_dir, "README.md").read_text()
    assert "plain `Trainer`" in card
    assert "- clinc/clinc_oos" in card


def test_the_table_names_every_argument_of_the_card() -> None:
    taken = (
        inspect.signature(Trainer.create_model_card).parameters
        | inspect.signature(ChallengerTrainer.create_model_card).parameters
    )
    assert first_column("hub.md") == set(taken) - {"self", "args", "kwargs"}
