"""Flags are checked before anything heavy is imported, and become a ChallengerConfig with a script's own defaults."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny_bert

import hf_challenger
from hf_challenger import ChallengerError
from hf_challenger.__main__ import main
from hf_challenger.command_line import check_output_dir, packaged_encoder, parse_flags, training_config
from hf_challenger.model_folder import check_model_folder

ROOT = Path(__file__).parents[1]


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(prog="script")
    found.add_argument("--file")
    return found


def test_own_flags_and_those_of_training_are_told_apart() -> None:
    own, rest = parse_flags(parser(), ["--file", "a.csv", "--learning_rate", "1e-4", "--max-steps=3", "--no_calibrate"])
    assert own.file == "a.csv"
    config = training_config(rest, learning_rate=0.5, num_train_epochs=7, use_cpu=True, report_to="none")
    assert (config.learning_rate, config.max_steps, config.num_train_epochs) == (1e-4, 3, 7)
    assert config.calibrate is False
    assert type(config) is hf_challenger.ChallengerConfig


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lerning_rate", "1"], r"unknown flag --lerning_rate; did you mean --learning_rate\?"),
        (["--fil", "a.csv"], r"unknown flag --fil; did you mean --file\?"),
        (["--xyzzy=1"], "unknown flag --xyzzy=1, see --help"),
        (["tickets.csv"], "unexpected argument 'tickets.csv'"),
    ],
)
def test_unknown_flags_end_with_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_flags(parser(), arguments)
    assert ended.value.code == 2
    assert re.search(words, capsys.readouterr().err)


def test_help_names_the_challenge_and_help_training_describes_all(capsys: pytest.CaptureFixture[str]) -> None:
    for flag, words in (
        ("--help", ["--file", "--challenge_share", "--help_training"]),
        ("--help_training", ["--learning_rate"]),
    ):
        with pytest.raises(SystemExit):
            parse_flags(parser(), [flag])
        printed = capsys.readouterr().out
        assert all(word in printed for word in words)


def test_folders_that_are_no_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ChallengerError, match=r"holds no config.json and no weights .*is no model of transformers"):
        check_model_folder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ChallengerError, match=r"holds no weights \(model.safetensors\)"):
        check_model_folder(str(tmp_path))
    with pytest.raises(ChallengerError, match="is a file; the folder of a model"):
        check_model_folder(str(tmp_path / "config.json"))
    with pytest.raises(ChallengerError, match=r"There is no folder '\./nowhere'"):
        check_model_folder("./nowhere")
    tiny_bert().save_pretrained(tmp_path)
    check_model_folder(str(tmp_path))
    check_model_folder(packaged_encoder())
    check_model_folder("sentence-transformers/all-MiniLM-L6-v2")  # maybe on the Hub


def test_an_output_dir_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ChallengerError, match=r"cannot be written .*Choose another --output_dir"):
        check_output_dir(str(tmp_path / "file" / "out"))
    check_output_dir(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()


def test_checks_need_no_heavy_import() -> None:
    code = (
        "import sys, hf_challenger, hf_challenger.command_line, hf_challenger.comparison, hf_challenger.predict\n"
        "import hf_challenger.data.tables, hf_challenger.data.images, hf_challenger.data.series\n"
        "print([m for m in ('torch', 'transformers', 'datasets', 'captum', 'sklearn') if m in sys.modules])"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names_are_those_that_are_listed() -> None:
    assert set(hf_challenger.__all__) <= set(dir(hf_challenger))
    for name in hf_challenger.__all__:
        assert getattr(hf_challenger, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Chalenger'"):
        hf_challenger.Chalenger  # noqa: B018


@pytest.mark.parametrize(
    ("flag", "words"), [("rate", "challenge_rate=2.0 is outside (0, 1]"), ("share", "challenge_share=2.0")]
)
def test_a_share_out_of_range_is_told_with_the_flags(flag, words):
    with pytest.raises(ChallengerError) as told:
        parse_flags(argparse.ArgumentParser(), [f"--challenge_{flag}", "2"])
    assert words in str(told.value)
    assert parse_flags(argparse.ArgumentParser(), [f"--challenge_{flag}", "0.5"])[1] == [f"--challenge_{flag}", "0.5"]


def test_the_package_lists_its_commands_and_runs_them(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    listed = capsys.readouterr().out
    for command in ("cues", "explain", "predict"):
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0
        assert f"usage: python -m hf_challenger.{command} " in capsys.readouterr().out
        assert f"  {command} " in listed
    with pytest.raises(SystemExit) as ended:
        main(["cue"])
    assert ended.value.code == 2
    assert "'cues', 'explain', 'predict'" in capsys.readouterr().err
