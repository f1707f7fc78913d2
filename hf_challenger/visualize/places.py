"""Relevance of time steps and pixels."""

from __future__ import annotations

import textwrap
from typing import Any

from torch import Tensor

from ..errors import ChallengerError
from .figures import (
    FOR_AND_AGAINST,
    HATCHED,
    INK,
    WIDTH,
    diverging,
    largest_of,
    new_figure,
    show_image,
    tidy,
)


def series_relevance(series: Tensor, relevance: Tensor, title: str = "", hidden: Tensor | None = None) -> Any:
    """A time series, a panel a channel (eight at most), on a ground that tells the relevance of each step.

    Args:
        series: ``(time, channels)`` or ``(time,)``.
        relevance: of the same shape, as LRP gives it.
        hidden: bool, of the same shape: steps that a challenge hid; hatched.
    """
    if series.shape != relevance.shape or series.dim() not in (1, 2):
        raise ChallengerError(
            f"A series and its relevance are (time, channels) or (time,), both alike; got {tuple(series.shape)} and"
            f" {tuple(relevance.shape)}. Take one row of the batch."
        )
    series, relevance = (x.detach().cpu().float().reshape(len(x), -1) for x in (series, relevance))
    largest, channels = largest_of(relevance), min(series.shape[1], 8)
    figure = new_figure(WIDTH, 0.7 + 1.3 * channels)
    panels = figure.subplots(channels, 1, sharex=True, squeeze=False)[:, 0]
    image = None
    for k, axes in enumerate(panels):
        values = series[:, k]
        margin = 0.08 * float(values.max() - values.min()) or 1.0
        low, high = float(values.min()) - margin, float(values.max()) + margin
        ground: dict[str, Any] = {"aspect": "auto", "cmap": diverging(), "vmin": -largest, "vmax": largest}
        extent = (-0.5, len(series) - 0.5, low, high)
        image = axes.imshow(relevance[:, k].reshape(1, -1).numpy(), extent=extent, interpolation="nearest", **ground)
        axes.plot(range(len(series)), values.tolist(), color=INK, linewidth=1.3)
        if hidden is not None:
            where = hidden.reshape(len(series), -1)[:, k].tolist()
            for step, hides in enumerate(where):
                if hides:
                    axes.axvspan(step - 0.5, step + 0.5, **HATCHED)
        axes.set_ylabel(f"channel {k}" if series.shape[1] > 1 else "value")
        tidy(axes)
    panels[0].set_title(title)
    panels[-1].set_xlabel("time step" if hidden is None or not hidden.any() else "time step (hatched: hidden)")
    figure.colorbar(image, ax=list(panels), label=FOR_AND_AGAINST, shrink=0.9)
    return figure


def image_relevance(image: Tensor, relevance: Tensor, title: str = "") -> Any:
    """An image beside its relevance, summed over channels.

    Args:
        image: ``(channels, height, width)`` or ``(height, width)``, any range; it is stretched to be seen.
        relevance: of the same shape, as LRP gives it.
    """
    if image.shape != relevance.shape or image.dim() not in (2, 3):
        raise ChallengerError(
            f"An image and its relevance are (channels, height, width) or (height, width), both alike; got"
            f" {tuple(image.shape)} and {tuple(relevance.shape)}. Take one row of the batch."
        )
    summed = relevance.detach().cpu().float()
    summed = summed.sum(0) if summed.dim() == 3 else summed
    largest = largest_of(summed)
    figure = new_figure(WIDTH * 0.8, 3.2)
    left, right = figure.subplots(1, 2)
    show_image(left, image)
    shown = right.imshow(summed.numpy(), cmap=diverging(), vmin=-largest, vmax=largest, interpolation="nearest")
    figure.suptitle("\n".join(textwrap.wrap(title, 60)), parse_math=False)
    left.set_title("input")
    right.set_title("relevance")
    for axes in (left, right):
        axes.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=right, shrink=0.85).set_label(FOR_AND_AGAINST, fontsize=8)
    return figure
