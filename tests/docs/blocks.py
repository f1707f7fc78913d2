"""The code blocks of markdown pages, and how they are run: Python in one namespace a page, commands in its working folder."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^(?:<!-- not run: (.+?) -->\n)?^```(.*?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN, SHOWN = ("python", "bash"), ("text", "math", "diff")

# What makes our longer commands quick: flags that are added to those of the page.
QUICK = {
    "run_text_classification.py": "--max_steps 1 --max_train_samples 48 --max_eval_samples 32 --use_cpu true",
    "run_image_classification.py": "--max_steps 2 --use_cpu true",
    "run_time_series_classification.py": "--max_steps 2 --use_cpu true",
    "run_leaky_data.py": "--max_steps 1 --max_test_samples 16 --use_cpu true",
    "run_plain_loop.py": "--epochs 1",
}


@dataclass(frozen=True)
class Block:
    """A fenced block; ``not_run`` is the reason that the page gives, in a comment above the fence, or None."""

    page: str
    line: int
    language: str
    code: str
    not_run: str | None


def pages() -> list[str]:
    """All markdown for users, by its path in the repository."""
    found = ["README.md", "CONTRIBUTING.md", *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")]
    found += [*ROOT.glob("benchmarks/**/README.md"), *ROOT.glob("metrics/*/README.md")]
    return sorted((ROOT / page).relative_to(ROOT).as_posix() for page in found)


def blocks(page: str, text: str | None = None) -> Iterator[Block]:
    text = (ROOT / page).read_text(encoding="utf-8") if text is None else text
    for found in FENCE.finditer(text):
        why, language, code = found.groups()
        yield Block(page, text[: found.start(3)].count("\n"), language, code, why)


def run(block: Block, names: dict[str, Any], environment: dict[str, str]) -> None:
    """Run it in the working folder; errors name the page and the line."""
    if block.language == "python":
        exec(compile("\n" * block.line + block.code, block.page, "exec"), names)
        return
    for command in block.code.replace("\\\n", " ").splitlines():
        if words := shlex.split(command, comments=True):
            _run_command(words, f"{block.page}, line {block.line}: {command}", environment)


def _run_command(words: list[str], where: str, environment: dict[str, str]) -> None:
    if words[0] == "make":
        done = subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{where}: {done.stderr}"
    elif words[:2] == ["pip", "install"]:
        _check_install(words[2:], where)
    elif words[:2] == ["git", "clone"]:
        pass  # the folder that it makes is this one
    elif words[0] == ".":
        assert words[1] == ".venv/bin/activate", f"{where}: make makes .venv"
    elif words[0] == "cd":
        assert words[1] == "hf_challenger", f"{where}: there is no folder {words[1]!r}"
    elif words[0] == "python":
        quick = shlex.split(QUICK.get(Path(words[1]).name, ""))
        command = [sys.executable, *words[1:], *quick]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"{where}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
    else:
        raise AssertionError(
            f"{where}: how to try {words[0]!r} is not known. Teach this file, or mark the block as not run."
        )


def _check_install(words: list[str], where: str) -> None:
    """Nothing is installed: the constraints exist, and so do the extras."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    for word in words:
        name, _, extras = word.partition("[")
        if word.endswith(".txt") or name == ".":
            assert (ROOT / name).exists(), where
            for extra in filter(None, extras.rstrip("]").split(",")):
                assert extra in setup["options.extras_require"], f"{where}: there is no extra {extra!r}"
        else:
            assert word in ("-c", "-e"), f"{where}: {word!r} is not ours to install"
