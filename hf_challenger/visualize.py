"""Pictures, with matplotlib: reliability diagrams, relevance on tokens, series and images, challenged rows, training curves.

Every function returns a ``matplotlib.figure.Figure`` that no window owns: ``figure.savefig("x.png", dpi=150)``. Relevance is
shown from blue (speaks against the class) over white to orange (speaks for it), which the colour-blind can tell apart.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .attribution.methods import METHODS
from .attribution.targets import named_target
from .calibration import BINS, expected_calibration_error, reliability_bins
from .challenge import Challenger
from .colours import AGAINST, FOR
from .detokenize import pieces
from .errors import ChallengerError
from .inputs.blocks import Blocks
from .report.cue_results import ClassPicture, CueReport

BLUE, ORANGE, GREY, INK = AGAINST, FOR, "#d9d9d9", "#1a1a1a"
LINES = (INK, "#6e6e6e", "#a8a8a8")  # of several channels: orange and blue are for relevance
FEW = 10  # rows of a bin, below which its bar is pale
HATCHED: dict[str, Any] = {"facecolor": "none", "edgecolor": "#777777", "hatch": "/////", "linewidth": 0}
FOR_AND_AGAINST = "relevance: for the class (+), against it (-)"
WIDTH = 7.5  # inches: the width of a README at 100 dpi


def _figure(width: float, height: float, layout: Any = "constrained") -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ChallengerError("Pictures need matplotlib, which is not installed: pip install matplotlib.") from error
    figure = Figure(figsize=(width, height), layout=layout, facecolor="white")
    FigureCanvasAgg(figure)  # not pyplot: no display, no global state, safe in threads and while training
    return figure


def _diverging() -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("relevance", [BLUE, "white", ORANGE])


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _largest(relevance: Tensor) -> float:
    """What is painted in full colour."""
    if not relevance.isfinite().all():
        raise ChallengerError("Relevance holds NaN or infinity. Compute it in fp32, and check the model's weights.")
    return float(relevance.abs().max()) or 1.0


# --- calibration and training ---------------------------------------------------------------------------------------------


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
    figure = _figure(4.6, 5.2)
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
        _tidy(axes)
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
    figure = _figure(WIDTH, 3.4)
    axes = figure.subplots()
    for key, (name, colour, style) in curves.items():
        if found[key]:
            steps, losses = zip(*found[key], strict=True)
            axes.plot(steps, losses, style, color=colour, label=name, marker="o" if len(steps) < 30 else None, markersize=4)
    axes.set(xlabel="optimizer step", ylabel="loss (nats)", title=title)
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside right upper", frameon=False)  # beside the curves
    _tidy(axes)
    return figure


# --- relevance ------------------------------------------------------------------------------------------------------------


def token_heatmap(rows: Sequence[tuple[Sequence[str], Sequence[float], str]]) -> Any:
    """Words on a ground that tells their relevance, each row scaled by its own largest.

    Args:
        rows: ``(words, relevance of each, heading)``.

    Raises:
        ChallengerError: if a row has other than one relevance a word, or relevance holds NaN or infinity.
    """
    return _draw_texts([_Text(list(words), list(relevance), heading) for words, relevance, heading in rows])


@dataclass
class _Text:
    """A text to draw: its words, or pieces of words where ``goes_on`` says which belong to the piece before them."""

    words: list[str]
    relevance: list[float]
    heading: str
    hidden: list[bool] | None = None
    goes_on: list[bool] | None = None


def _draw_texts(rows: Sequence[_Text]) -> Any:
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
    figure = _figure(WIDTH * (used + 2) / (per_line + 2), y + 0.1, layout=None)
    from matplotlib.patches import Rectangle

    colours = _diverging()
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


def _pieces_by_word(row: _Text, longest: int) -> list[list[_Piece]]:
    if len(row.words) != len(row.relevance):
        raise ChallengerError(f"One relevance a word is expected; got {len(row.relevance)} for {len(row.words)} words.")
    largest = _largest(torch.tensor(row.relevance).double()) if row.words else 1.0
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
    largest, channels = _largest(relevance), min(series.shape[1], 8)
    figure = _figure(WIDTH, 0.7 + 1.3 * channels)
    panels = figure.subplots(channels, 1, sharex=True, squeeze=False)[:, 0]
    image = None
    for k, axes in enumerate(panels):
        values = series[:, k]
        margin = 0.08 * float(values.max() - values.min()) or 1.0
        low, high = float(values.min()) - margin, float(values.max()) + margin
        ground: dict[str, Any] = {"aspect": "auto", "cmap": _diverging(), "vmin": -largest, "vmax": largest}
        extent = (-0.5, len(series) - 0.5, low, high)
        image = axes.imshow(relevance[:, k].reshape(1, -1).numpy(), extent=extent, interpolation="nearest", **ground)
        axes.plot(range(len(series)), values.tolist(), color=INK, linewidth=1.3)
        if hidden is not None:
            where = hidden.reshape(len(series), -1)[:, k].tolist()
            for step, hides in enumerate(where):
                if hides:
                    axes.axvspan(step - 0.5, step + 0.5, **HATCHED)
        axes.set_ylabel(f"channel {k}" if series.shape[1] > 1 else "value")
        _tidy(axes)
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
    largest = _largest(summed)
    figure = _figure(WIDTH * 0.8, 3.2)
    left, right = figure.subplots(1, 2)
    _show_image(left, image)
    shown = right.imshow(summed.numpy(), cmap=_diverging(), vmin=-largest, vmax=largest, interpolation="nearest")
    figure.suptitle("\n".join(textwrap.wrap(title, 60)), parse_math=False)
    left.set_title("input")
    right.set_title("relevance")
    for axes in (left, right):
        axes.set(xticks=[], yticks=[])
    figure.colorbar(shown, ax=right, shrink=0.85).set_label(FOR_AND_AGAINST, fontsize=8)
    return figure


def _show_image(axes: Any, image: Tensor) -> None:
    image = image.detach().cpu().float()
    image = (image - image.min()) / (float(image.max() - image.min()) or 1.0)
    if image.dim() == 3:
        image = image.movedim(0, -1) if len(image) == 3 else image.mean(0)
    axes.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")


# --- before and after -----------------------------------------------------------------------------------------------------


def before_and_after(
    challenger: Challenger, inputs: Mapping[str, Any], labels: Tensor, tokenizer: Any = None, step: int = 0, rows: int = 3
) -> Any:
    """The first rows of a batch that ``challenger`` challenges at ``step``: relevance before, and what is left after.

    Text: a heat map, and the same with hatched boxes for hidden tokens; a word's pieces stand together. Series and images:
    input, relevance, and the challenged input.

    Args:
        inputs: a batch as the model takes it.
        labels: its labels.
        tokenizer: needed for text.
        step: keys the random choices, as in :meth:`~.challenge.Challenger.challenge`.
        rows: how many are drawn at most.

    Raises:
        ChallengerError: if no row is challenged at that step.
    """
    units, options = challenger.units, challenger.options
    mixed = challenger.challenge(inputs, labels, step)
    index = mixed.challenged.nonzero().flatten()[:rows]
    if not len(index):
        raise ChallengerError(
            f"None of the {len(labels)} rows is challenged at step {step} (challenge_share={options.challenge_share}): no cue is"
            " known yet, or no row holds one. Take another step, more rows, or challenge_share=1."
        )
    method = METHODS[options.challenge_attribution]
    batch = {k: v for k, v in inputs.items() if k != "labels"}
    target = named_target("gold", labels)
    relevance = method(challenger.model, batch, target, options.challenge_composite)
    if isinstance(units, Blocks):
        return _before_and_after_blocks(units, batch, mixed, relevance, index)
    if tokenizer is None:
        raise ChallengerError("Token ids are shown as words: pass tokenizer=….")
    per_token = units.per_unit(relevance)
    texts: list[_Text] = []
    names = getattr(getattr(challenger.model, "config", None), "id2label", {})
    shown = units.maskable(batch)
    removed = _hidden_share(per_token, shown, mixed.drop_mask)
    for row in index.tolist():
        kept = shown[row].nonzero().flatten().tolist()
        words, goes_on = pieces(tokenizer, batch[units.key][row, kept].tolist())
        values, hidden = per_token[row, kept].tolist(), mixed.drop_mask[row, kept].tolist()
        label = labels[row]
        name = label.tolist() if label.is_floating_point() else names.get(int(label), int(label))
        texts.append(_Text(words, values, f"label {name}: relevance", goes_on=goes_on))
        heading = f"challenged: {float(removed[row]):.0%} of the positive relevance hidden"
        texts.append(_Text(words, [0.0] * len(words), heading, hidden, goes_on))
    return _draw_texts(texts)


def _hidden_share(relevance: Tensor, maskable: Tensor, drop_mask: Tensor) -> Tensor:
    """``(rows,)``: share of each row's positive relevance that is hidden; 0 where none is positive."""
    positive = (relevance.float().clamp(min=0) * maskable).flatten(1)
    return (positive * drop_mask).sum(1) / positive.sum(1).clamp(min=torch.finfo(torch.float32).tiny)


def _before_and_after_blocks(units: Blocks, batch: Mapping[str, Any], mixed: Any, relevance: Tensor, index: Tensor) -> Any:
    before, after = batch[units.key], mixed.inputs[units.key]
    maskable = units.maskable(batch)
    removed = _hidden_share(units.per_unit(relevance), maskable, mixed.drop_mask)
    hidden = units.hidden(batch, mixed.drop_mask.unflatten(1, maskable.shape[1:]))
    is_image = len(units.axes(before)) == 2
    figure = _figure(WIDTH, 0.3 + (2.4 if is_image else 1.7) * len(index))
    panels = figure.subplots(len(index), 3, squeeze=False)
    for (first, second, third), i in zip(panels, index, strict=True):
        row = int(i)
        values = relevance[row].detach().cpu().float()
        if is_image:
            values = values.sum(0) if values.dim() == 3 else values
            _show_image(first, before[row])
            _show_image(third, after[i])
            largest = _largest(values)
            second.imshow(values.numpy(), cmap=_diverging(), vmin=-largest, vmax=largest, interpolation="nearest")
            where = hidden[row].cpu().flatten(0, -3).any(0) if hidden[row].dim() == 3 else hidden[row].cpu()
            shape = where.float().repeat_interleave(8, 0).repeat_interleave(8, 1)  # contours cut the corners of a pixel
            extent = (-0.5, where.shape[1] - 0.5, -0.5, where.shape[0] - 0.5)
            third.contourf(shape.numpy(), levels=[0.5, 1.5], colors="none", hatches=["/////"], extent=extent)
        else:
            axis = units.axes(before)[0] - 1
            for axes, x in ((first, before[row]), (third, after[i])):
                axes.set_prop_cycle(color=LINES)
                axes.plot(x.detach().cpu().movedim(axis, 0).reshape(x.shape[axis], -1).numpy(), linewidth=1)
            values = values.movedim(axis, 0).reshape(before.shape[axis + 1], -1).sum(1)
            second.bar(range(len(values)), values.tolist(), 1.0, color=[ORANGE if v > 0 else BLUE for v in values])
            third.sharey(first)
            for step in hidden[row].cpu().movedim(axis, 0).flatten(1).any(1).nonzero().flatten().tolist():
                third.axvspan(step - 0.5, step + 0.5, **HATCHED)
            first.set_ylabel("value", fontsize=8)
        for axes in (first, second, third):
            axes.set(xticks=[], yticks=[])
        second.set_xlabel("orange: for the class, blue: against", fontsize=8)
        third.set_xlabel(f"{float(removed[row]):.0%} of positive relevance hidden", fontsize=8)
    for axes, name in zip(panels[0], ("before", "relevance", "challenged (hatched: hidden)"), strict=True):
        axes.set_title(name, fontsize=10)
    return figure


# --- the cue report -------------------------------------------------------------------------------------------------------


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
    figure = _figure(WIDTH, 1.6 + 0.32 * max(len(cues), 1) + 1.5 * lines)
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
    _tidy(axes)
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
