#!/usr/bin/env python
"""Train a time series classifier from scratch with ChallengerTrainer, with Trainer, or with both to compare.

With no arguments it needs no network: the embedded BasicMotions (a smart watch's six channels, four activities). Embedded, too, is
ItalyPowerDemand (a day's electricity in 24 steps, summer or winter).

    python run_time_series_classification.py --compare
    python run_time_series_classification.py --compare --set italypowerdemand
    python run_time_series_classification.py --compare --model patchtst --seeds 0 1 2 3 4
    python run_time_series_classification.py --data_dir my_series

``my_series`` is an npz file with x_train (rows, time, channels), y_train, x_test and y_test, or a folder with that as
``data.npz``, or with files ``NAME_TRAIN`` and ``NAME_TEST`` in the csv, tsv, txt or ts formats of the UCR and UEA archives.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.compare import Arguments, Shown, SmallDataConfig, look_at, run_all
from common.data import load_series, standardised
from common.models import SERIES_MODELS, series_model

DATA = Path(__file__).parent / "data"
EMBEDDED = ("basicmotions", "italypowerdemand")


@dataclass
class SeriesArguments(Arguments):
    set: str = field(
        default=EMBEDDED[0], metadata={"help": "Embedded set, where there is no data_dir.", "choices": list(EMBEDDED)}
    )
    model: str = field(
        default="fcn", metadata={"help": f"One of: {', '.join(SERIES_MODELS)}.", "choices": list(SERIES_MODELS)}
    )


@dataclass
class Config(SmallDataConfig):
    """Defaults for small sets of series; every flag can be set."""

    output_dir: str | None = field(default="outputs/time_series_classification")
    max_steps: int = field(default=400)


def main() -> None:
    args, config = HfArgumentParser((SeriesArguments, Config)).parse_args_into_dataclasses()
    splits = standardised(load_series(args.data_dir or DATA / args.set))
    length, channels = splits.x_train.shape[1:]
    _, trainer = run_all(
        args, config, splits, lambda _, **labels: series_model(args.model, length, channels, **labels), "BasicMotions"
    )
    rows = [int((splits.y_test == label).argmax()) for label in range(min(3, len(splits.labels)))]
    picture = Path(config.output_dir, "relevance.png")
    draw(look_at(trainer.model, config, splits, rows), picture)
    print(f"Test series, their relevance, and the spans that a challenge hides: {picture}")


def draw(shown: list[Shown], path: Path) -> None:
    """For each series its most relevant channel: the curve coloured by relevance; grey spans are hidden, dashed is the fill."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(len(shown), 1, figsize=(9, 2.3 * len(shown)), squeeze=False)
    for axis, one in zip(axes[:, 0], shown, strict=True):
        channel = int(one.relevance.clamp(min=0).sum(0).argmax())
        x, relevance = one.x[:, channel], one.relevance.sum(1)
        limit = float(relevance.abs().max().clamp(min=1e-12))
        step = range(len(x))
        hidden = one.hidden[:, channel]
        low, high = float(one.x[:, channel].min()), float(one.x[:, channel].max())
        axis.fill_between(step, low, high, where=hidden, color="0.85", step="mid", label="hidden")
        axis.plot(step, x, color="0.5", linewidth=0.8)
        points = axis.scatter(step, x, c=relevance, cmap="seismic", vmin=-limit, vmax=limit, s=14, zorder=3)
        axis.plot(
            step, one.challenged[:, channel].where(hidden, float("nan")), "k--", linewidth=1.2, label="put in its place"
        )
        axis.set_title(f"{one.label}, said: {one.predicted} (channel {channel})", fontsize=10)
        figure.colorbar(points, ax=axis, label="relevance")
    axes[0, 0].legend(fontsize=8, loc="upper right")
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
