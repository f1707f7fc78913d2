"""Reliability diagrams and training curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..calibration import BINS, expected_calibration_error, reliability_bins
from ..errors import ChallengerError
from .figures import BLUE, GREY, INK, ORANGE, WIDTH, new_figure, tidy

FEW = 10  # rows of a bin, below which its bar is pale


def reliability_diagram(probabilities: Tensor, labels: Tensor, bins: int = BINS, title: str = "Reliability") -> Any:
    """Accuracy against confidence, and below it how many rows each bin holds (Guo et al. 2017, Fig. 1).

    Whiskers are 95 % intervals of a bin's accuracy (Wilson 1927). Bars of fewer than :data:`FEW` rows are pale.

    Args:
        probabilities: ``(rows, classes)``, rows sum to 1.
        labels: ``(rows,)`` classes.
        bins: of equal width.
        title: the ECE is added to it.

    Raises:
        ChallengerError: as for :func:`~.calibration.expected_calibration_error`.
    """
    figure = new_figure(4.6, 5.2)
    from matplotlib.patches import Patch

    found = reliability_bins(probabilities, labels, bins)
    ece = expected_calibration_error(probabilities, labels, bins)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    left, width = found.edges[:-1].tolist(), found.edges.diff().tolist()
    filled = found.count > 0
    accuracy, confidence = found.accuracy[filled].tolist(), found.confidence[filled].tolist()
    few = [0 < n < FEW for n in found.count.tolist()]
    colours = [GREY if pale else BLUE for pale in few]
    above.bar(left, found.accuracy.nan_to_num().tolist(), width, align="edge", color=colours, edgecolor="white")
    handles = [Patch(color=BLUE, label="accuracy, with 95 % interval")]
    handles += [Patch(color=GREY, label=f"of fewer than {FEW} rows")] if any(few) else []
    low, high = _wilson(found.accuracy[filled], found.count[filled])
    middle = (found.edges[:-1] + found.edges.diff() / 2)[filled].tolist()
    above.vlines(middle, low.tolist(), high.tolist(), color=INK, linewidth=0.8)
    handles += above.plot([0, 1], [0, 1], "--", color=INK, linewidth=1, label="perfect")
    above.vlines(confidence, accuracy, confidence, color=ORANGE, linewidth=3)
    handles += above.plot(confidence, confidence, "D", color=ORANGE, markersize=4.5, label="mean confidence, and gap")
    above.set(ylim=(0, 1.02), xlim=(0, 1), ylabel="accuracy", title=f"{title}: ECE {ece:.3f}")
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)  # never over the bars
    bars = below.bar(left, found.count.tolist(), width, align="edge", color=GREY, edgecolor="white")
    counts = [f"{int(n)}" if n else "" for n in found.count.tolist()]
    below.bar_label(bars, counts, fontsize=6.5, color=INK)
    below.margins(y=0.25)
    below.set(xlabel=f"confidence (all {len(labels)} rows)", ylabel="rows")
    for axes in (above, below):
        tidy(axes)
    return figure


def _wilson(share: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
    """95 % interval of a share of ``count`` rows; Wilson, JASA 1927."""
    z2 = 1.96**2
    share, count = share.double(), count.double()
    middle = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = (z2 * (share * (1 - share) / count + z2 / (4 * count**2))).sqrt() / (1 + z2 / count)
    return middle - half, middle + half


def training_curves(log_history: Sequence[Mapping[str, Any]], title: str = "Training") -> Any:
    """Loss in training, and on held-out rows where it was logged, over optimizer steps.

    Args:
        log_history: ``trainer.state.log_history``, or that of a ``trainer_state.json``.
    """
    curves = {
        "loss": ("training", BLUE, "-"),
        "eval_loss": ("evaluation", INK, "--"),
    }
    found = {key: [(log["step"], log[key]) for log in log_history if key in log and "step" in log] for key in curves}
    if not any(found.values()):
        raise ChallengerError(
            f"None of {', '.join(curves)} is in the {len(log_history)} entries of the log history. Train with"
            " logging_steps below the number of steps."
        )
    figure = new_figure(WIDTH, 3.4)
    axes = figure.subplots()
    for key, (name, colour, style) in curves.items():
        if found[key]:
            steps, losses = zip(*found[key], strict=True)
            axes.plot(steps, losses, style, color=colour, label=name, marker="o" if len(steps) < 30 else None, markersize=4)
    axes.set(xlabel="optimizer step", ylabel="loss (nats)", title=title)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", frameon=False)  # beside the curves
    tidy(axes)
    return figure
