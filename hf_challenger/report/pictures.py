"""Images and series with their relevance, as SVG in a page: drawn without a library."""

from __future__ import annotations

import base64
import struct
import zlib
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

CHANNELS = 6  # of a series that are drawn
SERIES_WIDTH, SERIES_HEIGHT = 300.0, 90.0


@dataclass(frozen=True)
class Picture:
    """An image or a series, cut into units.

    Attributes:
        values: in [0, 1]: an image, ``(height, width)`` or ``(height, width, 3)``; or a series, ``(time, channels)``.
        sizes: length of a unit along each axis that is cut: two of an image, one of a series.
        shade: ``(*grid)`` share of the positive relevance that each unit holds.
        marked: ``(*grid)`` bool: units that belong to the cue.
    """

    values: np.ndarray
    sizes: tuple[int, ...]
    shade: np.ndarray
    marked: np.ndarray


def picture_of(units: Any, batch: Any, x: Any, shade: Any, marked: Any = None) -> Picture:
    """A row as the model takes it, stretched to [0, 1].

    Args:
        units: the adapter, a :class:`~..inputs.Blocks`.
        batch: the tensor of the row's batch, which tells the axes.
        x: the row, of any shape that the adapter takes, without the axis of rows.
        shade: ``(*grid)`` floats.
        marked: bool, of as many units; None: none is.
    """
    blocks = units.blocks(batch)
    axes = [axis - 1 for axis, _, _ in blocks]
    values = x.detach().float().cpu().movedim(axes, list(range(len(axes))))
    values = values.reshape(*values.shape[: len(axes)], -1).numpy()
    if len(axes) == 2:
        values = values if values.shape[-1] == 3 else values.mean(-1)
    low, high = float(values.min()), float(values.max())
    grid = shade.cpu().numpy()
    flags = np.zeros(grid.shape, dtype=bool) if marked is None else marked.cpu().numpy().reshape(grid.shape)
    return Picture((values - low) / ((high - low) or 1.0), tuple(size for _, _, size in blocks), grid, flags)


def svg(picture: Picture, name: str) -> str:
    """The picture: relevance in orange over it, units of the cue outlined in black and white."""
    is_image = len(picture.sizes) == 2
    height, width = picture.values.shape[:2] if is_image else (SERIES_HEIGHT, SERIES_WIDTH)
    drawn = _image(picture.values) if is_image else ""
    boxes = _boxes(picture)
    strongest = float(picture.shade.max()) or 1.0
    shades = "".join(
        f'<rect class="shade" {box} opacity="{0.75 * value / strongest:.2f}"/>'
        for box, value in zip(boxes, picture.shade.ravel(), strict=True)
        if value > 0.05 * strongest
    )
    lines = "" if is_image else _lines(picture.values)
    marked = [box for box, flag in zip(boxes, picture.marked.ravel(), strict=True) if flag]
    flags = "".join(f'<rect class="{kind}" {box}/>' for kind in ("halo", "flag") for box in marked)
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(name)}"'
        f"{'' if is_image else ' class=series preserveAspectRatio=none'}>{drawn}{shades}{lines}{flags}</svg>"
    )


def _boxes(picture: Picture) -> list[str]:
    """Place and size of each unit, as attributes of a rectangle, in the grid's order."""
    if len(picture.sizes) == 2:
        (tall, wide), (height, width) = picture.sizes, picture.values.shape[:2]
        places = np.ndindex(*picture.shade.shape)
        return [
            f'x="{c * wide}" y="{r * tall}" width="{min(wide, width - c * wide)}" height="{min(tall, height - r * tall)}"'
            for r, c in places
        ]
    (size,), time = picture.sizes, len(picture.values)
    step = SERIES_WIDTH / time
    return [
        f'x="{n * size * step:.1f}" y="0" width="{min(size, time - n * size) * step:.1f}" height="{SERIES_HEIGHT:g}"'
        for n in range(picture.shade.size)
    ]


def _lines(values: np.ndarray) -> str:
    step = SERIES_WIDTH / len(values)
    drawn = []
    for channel in values.T[:CHANNELS]:
        points = " ".join(f"{(i + 0.5) * step:.1f},{(0.95 - 0.9 * v) * SERIES_HEIGHT:.1f}" for i, v in enumerate(channel))
        drawn.append(f'<polyline points="{points}"/>')
    return "".join(drawn)


def _image(values: np.ndarray) -> str:
    """An ``<image>`` of ``(height, width)`` or ``(height, width, 3)`` in [0, 1]; the PNG is within it."""
    pixels = (values * 255).round().astype(np.uint8)
    height, width = pixels.shape[:2]
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)  # 0: no filter
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return f'<image href="data:image/png;base64,{base64.b64encode(png).decode()}" width="{width}" height="{height}"/>'
