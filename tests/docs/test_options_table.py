"""docs/trainer.md lists every option as its help text has it."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

from transformers import TrainingArguments

sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import options_table

from hf_challenger import ChallengeOptions, ChallengerConfig


def test_page_is_up_to_date() -> None:
    """Run `python docs/options_table.py` where it is not."""
    page = options_table.PAGE.read_text(encoding="utf-8")
    assert options_table.written(page) == page


def test_every_option_has_a_row_with_its_help() -> None:
    own = {f.name: f for f in fields(ChallengerConfig)}
    names = {f.name for f in fields(ChallengeOptions)} | {"calibrate"}
    assert set(own) - {f.name for f in fields(TrainingArguments)} == names
    rows = options_table.table().splitlines()[2:]
    assert len(rows) == len(names)
    for row in rows:
        name = row.split("`")[1]
        assert str(own[name].metadata["help"]) in row


def test_a_table_that_drifts_is_noticed() -> None:
    page = options_table.PAGE.read_text(encoding="utf-8")
    assert options_table.written(page.replace("| `calibrate` | `True` |", "| `calibrate` | `False` |")) == page
