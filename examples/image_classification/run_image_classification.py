#!/usr/bin/env python
"""Train an image classifier from scratch with ChallengerTrainer, with Trainer, or with both to compare.

With no arguments it needs no network and no file: scikit-learn's digits, ten images of each.

    python run_image_classification.py --compare
    python run_image_classification.py --compare --model vit --seeds 0 1 2 3 4
    python run_image_classification.py --data_dir my_images --max_train_samples_per_class -1

``my_images`` holds ``train/<class>/*.png`` and ``test/<class>/*.png``, all of one size, or ``data.npz``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.compare import Arguments, Shown, SmallDataConfig, look_at, run_all
from common.data import load_images
from common.models import IMAGE_MODELS, image_model


@dataclass
class ImageArguments(Arguments):
    model: str = field(
        default="cnn", metadata={"help": f"One of: {', '.join(IMAGE_MODELS)}.", "choices": list(IMAGE_MODELS)}
    )
    largest_shift: int = field(default=1, metadata={"help": "Training images are moved by up to that many pixels."})
    max_train_samples_per_class: int | None = field(
        default=10, metadata={"help": "Train on that many images of each class; -1: on all."}
    )


@dataclass
class Config(SmallDataConfig):
    """Defaults for small images; every flag can be set."""

    output_dir: str | None = field(default="outputs/image_classification")
    max_steps: int = field(default=400)
    learning_rate: float = field(default=3e-3)
    challenge_rate: float = field(default=0.25)


def main() -> None:
    args, config = HfArgumentParser((ImageArguments, Config)).parse_args_into_dataclasses()
    if args.max_train_samples_per_class == -1:
        args.max_train_samples_per_class = None
    splits = load_images(args.data_dir)
    channels, height, width = splits.x_train.shape[1:]
    _, trainer = run_all(
        args,
        config,
        splits,
        lambda _, **labels: image_model(args.model, height, width, channels, **labels),
        "scikit-learn's digits",
        args.largest_shift,
    )
    rows = [int((splits.y_test == label).argmax()) for label in range(min(5, len(splits.labels)))]
    picture = Path(config.output_dir, "relevance.png")
    draw(look_at(trainer.model, config, splits, rows), picture)
    print(f"Test images, their relevance, and what a challenge makes of them: {picture}")


def draw(shown: list[Shown], path: Path) -> None:
    """A column for each image: as it is, its relevance (red speaks for its class, blue against), challenged."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(3, len(shown), figsize=(2 * len(shown), 6.4), squeeze=False)
    for column, one in zip(axes.T, shown, strict=True):
        relevance = one.relevance.sum(0)
        limit = float(relevance.abs().max().clamp(min=1e-12))
        low, high = float(one.x.min()), float(one.x.max())
        for axis, image in ((column[0], one.x), (column[2], one.challenged)):
            image = ((image - low) / max(high - low, 1e-12)).clamp(0, 1).permute(1, 2, 0)
            axis.imshow(image.squeeze(-1), cmap="gray", vmin=0, vmax=1)
        column[1].imshow(one.x.mean(0), cmap="gray", alpha=0.25)
        column[1].imshow(relevance, cmap="seismic", vmin=-limit, vmax=limit, alpha=0.75)
        hidden = one.hidden[0].float()
        column[2].imshow(hidden.where(hidden > 0, float("nan")), cmap="autumn", alpha=0.35, vmin=0, vmax=2)
        column[0].set_title(f"{one.label}, said: {one.predicted}", fontsize=10)
    for row, name in zip(axes, ("image", "relevance", "challenged"), strict=True):
        row[0].set_ylabel(name, fontsize=10)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
