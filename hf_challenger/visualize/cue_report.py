"""The cue report as one figure."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from ..report.cue_results import ClassPicture, CueReport
from .figures import GREY, INK, ORANGE, WIDTH, new_figure, tidy


def cue_figure(report: CueReport, title: str = "", shown: int = 12) -> Any:
    """The first cues of a report: mean probability of their class with the cue and with it hidden; then the classes' pictures.

    Args:
        report: from :func:`~.report.cue_report.cue_report`.
        title: stands above its summary.
        shown: cues and classes at most.
    """
    cues, classes = report.cues[:shown], report.pictures[:shown]
    columns = 6
    lines = -(-len(classes) // columns)
    figure = new_figure(WIDTH, 1.6 + 0.32 * max(len(cues), 1) + 1.5 * lines)
    figure.suptitle("\n".join(textwrap.wrap(f"{title}: {report.summary}" if title else report.summary, 85)), fontsize=9)
    above, *below = figure.subfigures(2 if lines else 1, 1, squeeze=False, height_ratios=_heights(len(cues), lines))[:, 0]
    axes = above.subplots()
    for n, cue in enumerate(cues):
        colour = ORANGE if cue.leaned_on else GREY
        axes.plot([cue.hidden.probability, cue.as_is.probability], [n, n], color=colour, linewidth=3)
        marks: dict[str, Any] = {"marker": "o", "linestyle": "", "clip_on": False, "zorder": 3}
        axes.plot(cue.hidden.probability, n, color="white", markeredgecolor=INK, label=None if n else "hidden", **marks)
        axes.plot(cue.as_is.probability, n, color=INK, label=None if n else "as it is", **marks)
    names = [f"{cue.class_name}: {cue.text}" for cue in cues]
    axes.set_yticks(range(len(cues)), [name if len(name) <= 45 else name[:44] + "…" for name in names], parse_math=False)
    axes.set(xlim=(0, 1.02), ylim=(max(len(cues), 1) - 0.5, -0.5))
    axes.set_xlabel("mean probability of the class; orange: leaned on")
    if cues:
        axes.legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    tidy(axes)
    if lines:
        below[0].supxlabel("mean of each class; orange: where its positive relevance lies", fontsize=8)
        panels = below[0].subplots(lines, columns, squeeze=False).ravel()
        for panel in panels:
            panel.axis("off")
        for panel, one in zip(panels, classes, strict=False):
            _draw_class(panel, one)
    return figure


def _heights(cues: int, lines: int) -> list[float]:
    return [0.9 + 0.32 * max(cues, 1), *([1.5 * lines] if lines else [])]


def _draw_class(axes: Any, one: ClassPicture) -> None:
    """The mean of a class's rows under its relevance."""
    values, shade, sizes = one.picture.values, one.picture.shade, one.picture.sizes
    is_image = len(sizes) == 2
    tall, wide = sizes if is_image else (1, sizes[0])
    grid = shade if is_image else shade[None]
    from matplotlib.colors import to_rgba

    colour = np.broadcast_to(np.array(to_rgba(ORANGE)), (*grid.shape, 4)).copy()
    colour[..., 3] = 0.75 * grid / (float(grid.max()) or 1.0)
    extent = (0, grid.shape[1] * wide, grid.shape[0] * tall, 0)
    if is_image:
        height, width = values.shape[:2]
        axes.imshow(values, cmap="gray", vmin=0, vmax=1, extent=(0, width, height, 0))
        axes.imshow(colour, extent=extent, interpolation="nearest")
        axes.set(xlim=(0, width), ylim=(height, 0))
    else:
        axes.imshow(colour, extent=extent, aspect="auto", interpolation="nearest")
        axes.plot(np.arange(len(values)) + 0.5, 0.95 - 0.9 * values, color=INK, linewidth=0.8)
        axes.set_xlim(0, len(values))
    axes.set_title(one.class_name[:20], fontsize=8, parse_math=False)
