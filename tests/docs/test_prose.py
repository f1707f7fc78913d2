"""Pages and docstrings can be read: sentences are short on average, and the two first pages fit a screen or two."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = 25  # a sentence, on average over a group of files
LONGEST = 40  # a single sentence of README.md
LINES = {"README.md": 120, "benchmarks/README.md": 100}
GROUPS = {
    "README.md": ["README.md"],
    "docs": ["docs/*.md"],
    "examples": ["examples/*/README.md"],
    "benchmarks": ["benchmarks/README.md"],
    "docstrings": ["hf_challenger/**/*.py"],
}


def sentences(text: str) -> list[str]:
    """Sentences of more than three words, outside of code, tables, headings, pictures and comments."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = "\n".join(line for line in text.splitlines() if not line.startswith(("|", "#", "!", "<")))
    found = re.split(r"(?<=[.!?])\s+|\n\s*\n|\n- ", text)
    return [sentence for sentence in found if len(sentence.split()) > 3]


def docstrings(source: str) -> list[str]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) for node in ast.walk(ast.parse(source)) if isinstance(node, documented)]
    return [text for text in found if text]


def texts(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return docstrings(text) if path.suffix == ".py" else [text]


def mean_words(paths: list[Path]) -> float:
    found = [sentence for path in paths for text in texts(path) for sentence in sentences(text)]
    return sum(len(sentence.split()) for sentence in found) / max(len(found), 1)


@pytest.mark.parametrize("group", GROUPS)
def test_sentences_are_short_on_average(group: str) -> None:
    paths = [path for pattern in GROUPS[group] for path in sorted(ROOT.glob(pattern))]
    assert paths
    words = {str(path.relative_to(ROOT)): round(mean_words([path]), 1) for path in paths}
    assert mean_words(paths) < WORDS, sorted(words.items(), key=lambda item: -item[1])[:5]


def test_no_sentence_of_the_readme_is_long() -> None:
    long = [s for s in sentences((ROOT / "README.md").read_text(encoding="utf-8")) if len(s.split()) > LONGEST]
    assert not long


@pytest.mark.parametrize("page", LINES)
def test_page_is_short(page: str) -> None:
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= LINES[page]


def test_counting_sees_sentences_and_leaves_out_code_and_tables() -> None:
    text = "# A heading that is not counted at all\n\nOne two three four. Five six seven eight nine?\n\n"
    text += (
        "```python\nx = 'code is not counted here at all'\n```\n| a | table of several words too |\n- a list item of words\n"
    )
    assert [len(s.split()) for s in sentences(text)] == [4, 5, 6]
    source = '"""Module says four words."""\ndef f():\n    """A function says five words."""\n'
    assert [len(s.split()) for text in docstrings(source) for s in sentences(text)] == [4, 5]


def test_long_sentences_are_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("word " * 60 + ".\n\nA short one of words.\n")
    assert mean_words([page]) > WORDS
