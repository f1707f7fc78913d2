"""Pictures, with matplotlib: reliability diagrams, relevance on tokens, series and images, challenged rows, training curves.

Every function returns a ``matplotlib.figure.Figure`` that no window owns: ``figure.savefig("x.png", dpi=150)``. Relevance is
shown from blue (speaks against the class) over white to orange (speaks for it), which the colour-blind can tell apart.
"""

from .challenge import before_and_after
from .cue_report import cue_figure
from .curves import reliability_diagram, training_curves
from .figures import BLUE, ORANGE
from .places import image_relevance, series_relevance
from .texts import token_heatmap

__all__ = [
    "BLUE",
    "ORANGE",
    "before_and_after",
    "cue_figure",
    "image_relevance",
    "reliability_diagram",
    "series_relevance",
    "token_heatmap",
    "training_curves",
]
