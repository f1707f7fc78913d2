"""An explanation in the terminal."""

from __future__ import annotations

import os
import sys

from ..colours import AGAINST, FOR, terminal_index
from .explanation import SHOWN, Explanation, PlaceExplanation

ECHOED = 300  # characters of a text above its words
KEY = "Orange (+) speaks for the class, blue (-) against it."


def wants_colours() -> bool:
    """Whether standard output is a terminal, and NO_COLOR is not set (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def in_terminal(explanation: Explanation, colours: bool) -> str:
    """Heading, key, and a line a word: relevance, a bar, the word. Orange speaks for the class, blue against it."""
    largest = max(map(abs, explanation.relevance)) or 1.0
    lines = [_echo(text) for text in (explanation.text, explanation.pair) if text is not None]
    lines += [f"  -> {explanation.heading}", f"  {KEY}"]
    for n, (word, value) in enumerate(zip(explanation.words, explanation.relevance, strict=True)):
        if explanation.pair is not None and n == explanation.second:
            lines.append("  second text:")
        lines.append(_bar(word, value, largest, colours))
    return "\n".join([*lines, f"  {explanation.note}"])


def places_in_terminal(explanation: PlaceExplanation, colours: bool) -> str:
    """Heading, key, and a line for each of the most relevant places."""
    largest = max(map(abs, explanation.relevance)) or 1.0
    found = list(zip(explanation.places, explanation.relevance, strict=True))[:SHOWN]
    lines = [explanation.file, f"  -> {explanation.heading}", f"  {KEY}"]
    lines += [_bar(place, value, largest, colours) for place, value in found]
    return "\n".join([*lines, f"  {explanation.note}"])


def _echo(text: str) -> str:
    return text if len(text) <= ECHOED else text[: ECHOED - 1] + "…"


def _bar(what: str, value: float, largest: float, colours: bool) -> str:
    bar = ("+" if value > 0 else "-") * round(10 * abs(value) / largest)
    line = f"  {value:+7.3f}  {bar:<10}  {what}"
    index = terminal_index(FOR if value > 0 else AGAINST)
    return f"\x1b[38;5;{index}m{line}\x1b[0m" if colours and bar else line
