"""The two colours of relevance, the same in pictures, pages and terminals; the colour-blind can tell them apart.

Near-black text is readable on both: the contrast is 4.5 : 1 or more.
"""

from __future__ import annotations

FOR, AGAINST = "#e08214", "#4385c8"  # orange speaks for the class, blue against it


def channels(colour: str) -> tuple[int, ...]:
    """Red, green and blue, 0 to 255, of a colour such as ``#e08214``."""
    return tuple(bytes.fromhex(colour.removeprefix("#")))


def terminal_index(colour: str) -> int:
    """The nearest colour in the 6×6×6 cube of terminals with 256 colours, 16 to 231."""
    steps = (0, 95, 135, 175, 215, 255)
    red, green, blue = (min(range(6), key=lambda i: abs(steps[i] - value)) for value in channels(colour))
    return 16 + 36 * red + 6 * green + blue
