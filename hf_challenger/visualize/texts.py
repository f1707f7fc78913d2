"""Relevance of words, on a ground that tells it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import ChallengerError
from .figures import INK, WIDTH, diverging, largest_of, new_figure


def token_heatmap(rows: Sequence[tuple[Sequence[str], Sequence[float], str]]) -> Any:
    """Words on a ground that tells their relevance, each row scaled by its own largest.

    Args:
        rows: ``(words, relevance of each, heading)``.

    Raises:
        ChallengerError: if a row has other than one relevance a word, or relevance holds NaN or infinity.
    """
    return draw_texts([Text(list(words), list(relevance), heading) for words, relevance, heading in rows])


@dataclass
class Text:
    """A text to draw: its words, or pieces of words where ``goes_on`` says which belong to the piece before them."""

    words: list[str]
    relevance: list[float]
    heading: str
    hidden: list[bool] | None = None
    goes_on: list[bool] | None = None


def draw_texts(rows: Sequence[Text]) -> Any:
    """Texts below each other; a word that is True in ``hidden`` is a hatched box instead; pieces of a word touch."""
    per_line, line = 84, 0.34  # characters of a fixed-width font, inches
    headings: list[tuple[float, str]] = []
    boxes: list[tuple[_Piece, int, float]] = []  # and its place
    y = 0.0
    for row in rows:
        headings.append((y, row.heading))
        y, x = y + line, 0
        for word in _pieces_by_word(row, per_line - 2):
            if x and x + sum(len(piece.text) for piece in word) + 1 > per_line:
                y, x = y + line, 0
            for piece in word:
                if x + len(piece.text) + 1 > per_line:  # a word longer than a line
                    y, x = y + line, 0
                boxes.append((piece, x, y))
                x += len(piece.text)
            x += 1
        y += line * 1.35
    ends = [x + len(piece.text) for piece, x, _ in boxes] + [0.9 * len(heading) for _, heading in headings]
    used = min(max([*ends, 52], default=0), per_line)  # short texts make a narrow picture, in which the key still fits
    y += line
    figure = new_figure(WIDTH * (used + 2) / (per_line + 2), y + 0.1, layout=None)
    from matplotlib.patches import Rectangle

    colours = diverging()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-1, used + 1), ylim=(y, -0.1))
    axes.axis("off")
    key = "Orange speaks for the class, blue against it."
    if any(piece.hidden for piece, _, _ in boxes):
        key += " Hatched: hidden."
    for top, heading in headings:
        axes.text(0, top + line / 2, heading, fontsize=9, color=INK, va="center", weight="bold", parse_math=False)
    for piece, x, top in boxes:
        look: dict[str, Any] = {"facecolor": colours(0.5 + piece.shade / 2), "edgecolor": "#bbbbbb"}
        if piece.hidden:
            look = {"facecolor": "#eeeeee", "edgecolor": "#888888", "hatch": "/////"}
        left, right = x - 0.4 * piece.starts, x + len(piece.text) + 0.4 * piece.ends
        axes.add_patch(Rectangle((left, top + 0.03), right - left, line - 0.06, linewidth=0.5, **look))
        if not piece.hidden:
            font: dict[str, Any] = {"family": "DejaVu Sans Mono", "fontsize": 8.6, "parse_math": False}
            place = x + len(piece.text) / 2, top + line / 2
            axes.text(*place, piece.text, color=INK, va="center", ha="center", **font)
    axes.text(0, y - line / 2, key, fontsize=7.5, color="#666666", va="center")
    return figure


@dataclass
class _Piece:
    """A box with text: a word, or one of its pieces; ``shade`` is relevance in [-1, 1]."""

    text: str
    shade: float
    hidden: bool
    starts: bool = True  # a word
    ends: bool = True


def _pieces_by_word(row: Text, longest: int) -> list[list[_Piece]]:
    if len(row.words) != len(row.relevance):
        raise ChallengerError(f"One relevance a word is expected; got {len(row.relevance)} for {len(row.words)} words.")
    largest = largest_of(torch.tensor(row.relevance).double()) if row.words else 1.0
    nowhere = [False] * len(row.words)
    words: list[list[_Piece]] = []
    for text, value, hidden, goes_on in zip(
        row.words, row.relevance, row.hidden or nowhere, row.goes_on or nowhere, strict=True
    ):
        piece = _Piece(text if len(text) <= longest else text[: longest - 1] + "…", value / largest, hidden)
        if goes_on and words:
            piece.starts = words[-1][-1].ends = False
            words[-1].append(piece)
        else:
            words.append([piece])
    return words
