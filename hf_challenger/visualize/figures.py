"""What all pictures share: a figure that no window owns, one colour scheme, and images as they are shown."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ..colours import AGAINST, FOR
from ..errors import ChallengerError

BLUE, ORANGE, GREY, INK = AGAINST, FOR, "#d9d9d9", "#1a1a1a"
LINES = (INK, "#6e6e6e", "#a8a8a8")  # of several channels: orange and blue are for relevance
HATCHED: dict[str, Any] = {"facecolor": "none", "edgecolor": "#777777", "hatch": "/////", "linewidth": 0}
FOR_AND_AGAINST = "relevance: for the class (+), against it (-)"
WIDTH = 7.5  # inches: the width of a README at 100 dpi


def new_figure(width: float, height: float, layout: Any = "constrained") -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ChallengerError("Pictures need matplotlib, which is not installed: pip install matplotlib.") from error
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)  # not pyplot: no display, no global state, safe in threads and while training
    return figure


def diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("relevance", [BLUE, "white", ORANGE])


def tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def largest_of(relevance: Tensor) -> float:
    """What is painted in full colour."""
    if not relevance.isfinite().all():
        raise ChallengerError("Relevance holds NaN or infinity. Compute it in fp32, and check the model's weights.")
    return float(relevance.abs().max()) or 1.0


def show_image(axes: Any, image: Tensor) -> None:
    image = image.detach().cpu().float()
    image = (image - image.min()) / (float(image.max() - image.min()) or 1.0)
    if image.dim() == 3:
        image = image.movedim(0, -1) if len(image) == 3 else image.mean(0)
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
