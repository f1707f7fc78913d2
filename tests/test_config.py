"""ChallengerConfig is TrainingArguments plus described options, on the command line too."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from transformers import HfArgumentParser, TrainingArguments

from hf_challenger import ChallengeOptions, ChallengerConfig
from hf_challenger.config import LOWER_IS_BETTER


def test_defaults_of_training_arguments_are_kept(tmp_path: Path) -> None:
    ours, plain = ChallengerConfig(str(tmp_path)), TrainingArguments(str(tmp_path))
    apart = [f.name for f in fields(TrainingArguments) if f.init and getattr(ours, f.name) != getattr(plain, f.name)]
    assert [name for name in apart if name not in ("logging_dir",)] == []


def test_every_option_is_prefixed_and_described() -> None:
    for field in fields(ChallengeOptions):
        assert field.name.startswith("challenge_")
        assert len(field.metadata["help"]) > 20


def test_command_line(tmp_path: Path) -> None:
    (config,) = HfArgumentParser(ChallengerConfig).parse_args_into_dataclasses(
        [
            "--output_dir",
            str(tmp_path),
            "--challenge_share",
            "0.25",
            "--challenge_selection",
            "top",
            "--challenge_keep",
            "who",
            "how many",
        ]
    )
    assert (config.challenge_share, config.challenge_selection) == (0.25, "top")
    assert config.challenge_keep == ["who", "how many"]
    assert config.output_dir == str(tmp_path)


def test_survives_a_round_trip_through_json(tmp_path: Path) -> None:
    config = ChallengerConfig(str(tmp_path), challenge_share=0.25, challenge_selection="top")
    again = ChallengerConfig(**{k: v for k, v in config.to_dict().items() if k.startswith("challenge_")})
    assert ChallengeOptions.of(again) == ChallengeOptions.of(config)


@pytest.mark.parametrize("metric", LOWER_IS_BETTER)
def test_lower_errors_are_better(tmp_path: Path, metric: str) -> None:
    for name in (metric, f"eval_{metric}"):
        assert ChallengerConfig(str(tmp_path), metric_for_best_model=name).greater_is_better is False
    assert ChallengerConfig(str(tmp_path), metric_for_best_model=metric, greater_is_better=True).greater_is_better is True


def test_other_metrics_follow_training_arguments(tmp_path: Path) -> None:
    assert ChallengerConfig(str(tmp_path), metric_for_best_model="accuracy").greater_is_better is True
    assert ChallengerConfig(str(tmp_path)).greater_is_better is None
