"""Data sets for the benchmark: a training part to draw from, and a test part that is read once.

Folders are those of ``--data_dir``: ``<set>/train.csv`` and ``<set>/test.csv`` with a text column, maybe a second one, and a
``label`` column. What a seed draws is the same for every method.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd


@dataclass
class TextSet:
    """Texts as columns of strings, labels as integers, and any further test files by name."""

    train: pd.DataFrame
    test: dict[str, pd.DataFrame]
    classes: list[str]
    columns: list[str] = field(default_factory=list)


def load_text(data_dir: Path, name: str) -> TextSet:
    """One set. Files ``test_*.csv`` (counterfactuals, contrast sets) are further test parts; out-of-scope ones are left out."""
    folder = Path(data_dir, name)
    if not (folder / "train.csv").is_file():
        raise SystemExit(f"There is no {folder / 'train.csv'}. Give the folder that holds the sets with --data_dir.")
    train = _read(folder / "train.csv")
    tests = {p.stem: _read(p) for p in sorted(folder.glob("test*.csv")) if "oos" not in p.stem}
    classes = sorted(train["label"].unique())
    index = {label: i for i, label in enumerate(classes)}
    for frame in (train, *tests.values()):
        frame["label"] = frame["label"].map(index)
    columns = [c for c in train.columns if c.startswith("text")] or [c for c in train.columns if c != "label"][:1]
    return TextSet(train, tests, [str(c) for c in classes], columns)


def _read(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, keep_default_na=False).astype({"label": str})


def draw(labels: np.ndarray, size: int, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a stratified training subset and of the development rows that are cut from the rest.

    Args:
        labels: of the training part.
        size: rows to train on; every class gets at least one, and shares are kept as near as whole rows allow.
        held_out: development rows at most.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(labels))
    # Walk through the classes in turn of how far each is behind its share: stratified for any size.
    by_class = [order[labels[order] == c] for c in np.unique(labels)]
    share = np.array([len(rows) for rows in by_class]) / len(labels)
    taken = np.zeros(len(by_class), dtype=int)
    for _ in range(min(size, len(labels))):
        behind = np.where(taken < [len(r) for r in by_class], (taken + 0.5) / share, np.inf)
        if (taken == 0).any():
            behind = np.where(taken == 0, -1 / share, behind)
        taken[behind.argmin()] += 1
    train = np.concatenate([rows[:n] for rows, n in zip(by_class, taken, strict=True)])
    rest = np.setdiff1d(order, train, assume_unique=True)
    return rng.permutation(train), rng.permutation(rest)[:held_out]
