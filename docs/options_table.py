"""The table of options in docs/trainer.md, made from the options' own help texts: ``python docs/options_table.py``."""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from hf_challenger import ChallengerConfig

PAGE = Path(__file__).with_name("trainer.md")
MARKED = re.compile(r"(<!-- options -->\n).*?(<!-- end of options -->)", re.DOTALL)


def options() -> list[Field[Any]]:
    """The fields of ``ChallengerConfig`` that ``TrainingArguments`` lacks."""
    known = {field.name for field in fields(TrainingArguments)}
    return [field for field in fields(ChallengerConfig) if field.name not in known]


def table() -> str:
    """A markdown row an option: name, default, help text."""
    lines = ["| option | default | meaning |", "|---|---|---|"]
    for field in options():
        default = field.default if field.default_factory is MISSING else field.default_factory()
        shown = "not set" if default is None else f"`{default!r}`"
        text = str(field.metadata["help"]).replace("|", "\\|")
        lines.append(f"| `{field.name}` | {shown} | {text} |")
    return "\n".join(lines)


def written(page: str) -> str:
    """The page with its table made anew."""
    return MARKED.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
