"""Fixtures that all tests share. The builders behind them are in tiny.py, which scripts of their own process import too."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
import torch
from tiny import tiny_bert, tiny_data, tiny_tokenizer
from transformers import PreTrainedTokenizerFast, TrainingArguments

from hf_challenger import ChallengerConfig, ChallengerTrainer

torch.set_num_threads(1)


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., ChallengerConfig]:
    """``config(option=…)``: a ChallengerConfig for two short steps on the CPU, without reports and checkpoints."""

    def make(cls: type[TrainingArguments] = ChallengerConfig, **options: Any) -> Any:
        defaults = {
            "output_dir": str(tmp_path / "out"),
            "use_cpu": True,
            "report_to": "none",
            "save_strategy": "no",
            "per_device_train_batch_size": 8,
            "max_steps": 2,
            "logging_steps": 1,
            "learning_rate": 0.01,
            "disable_tqdm": True,
        }
        if issubclass(cls, ChallengerConfig):
            # Row by row, since a cue takes longer to be found; tests of cues say so.
            defaults |= {"challenge_selection": "sample", "challenge_share": 0.5, "calibrate": False}
        return cls(**{**defaults, **options})

    return make


@pytest.fixture
def any_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows count whatever the probability of their class: tiny models that train for two steps are sure of nothing."""
    monkeypatch.setattr("hf_challenger.challenge.challenger.SURE", 0.0)


@pytest.fixture
def trainer(config: Callable[..., ChallengerConfig]) -> Callable[..., ChallengerTrainer]:
    """``trainer(model=…, data=…, args=…, **options)``: a ChallengerTrainer on tiny BERT and small data."""

    def make(model: Any = None, data: Any = None, args: Any = None, kwargs: Any = None, **options: Any) -> ChallengerTrainer:
        return ChallengerTrainer(
            model=tiny_bert() if model is None else model,
            args=config(**options) if args is None else args,
            train_dataset=tiny_data() if data is None else data,
            **{"eval_dataset": tiny_data(12, seed=1), "processing_class": tiny_tokenizer(), **(kwargs or {})},
        )

    return make
