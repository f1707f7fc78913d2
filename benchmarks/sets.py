"""Data sets for the benchmark: a training part to draw from, held-out rows, and test parts that are read once.

Folders are those of ``--data_dir``: texts as ``<set>/train.csv`` and ``<set>/test.csv``, with a text column, maybe a second
one, and a ``label`` column; images and series as ``<set>/data.npz``. What a seed draws is the same for every method.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.data import Dataset

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from models import text_model  # noqa: E402
from plant import IMAGE_CUES, SERIES_CUES, TEXT_CUES, planted, reading, readings  # noqa: E402

from hf_challenger.data.arrays import Splits, standardised  # noqa: E402
from hf_challenger.data.images import load_images  # noqa: E402
from hf_challenger.data.rows import Rows  # noqa: E402
from hf_challenger.data.series import load_series  # noqa: E402
from hf_challenger.small_models import image_model, series_model  # noqa: E402

DEVELOPMENT_ROWS = 500  # at most; of a series' small training part a third
LARGEST_SHIFT = 2  # pixels, along both axes: the augmentation that all methods on images share
MAX_LENGTH = 128  # tokens
READING_ROWS = 400  # of each of the four readings of a planted cue, the same rows for all
TEST_ROWS = 1000  # texts of a test part at most, the same for every run: evaluation would cost as much as training


@dataclass
class Task:
    """One draw of one set, for one model.

    Attributes:
        build: () -> (model with initial weights from torch's current seed, processing_class or None).
        train: rows to train on.
        held_out: rows on which a temperature may be fitted, as many as ``train``; None where a set is too small for that.
        development: parts that choose, by name.
        test: parts that report.
        label_name: the model's name for the label.
    """

    build: Callable[[], tuple[Any, Any]]
    train: Dataset
    held_out: Dataset | None
    development: dict[str, Dataset]
    test: dict[str, Dataset]
    label_name: str = "labels"


def load(
    model: str,
    data_dir: Path,
    name: str,
    size: int | None,
    seed: int,
    report: str,
    cue: str = "",
    strength: float = 0.0,
) -> Task:
    """The task of a cell.

    Args:
        cue: planted into that share (``strength``) of the training and held-out rows; the development and test rows are then read
            as :data:`~plant.READINGS` say. "": nothing is planted.
        model: its name tells the kind of input.
        size: texts: rows in all. Images: rows a class. None: the whole training part (series), of which a third is kept
            for development when ``report`` is "development".
    """
    folder = Path(data_dir, name)
    if not folder.is_dir():
        raise SystemExit(f"There is no folder {folder}. Give the folder that holds the sets with --data_dir.")
    if (folder / "train.csv").is_file():
        return _text(model, folder, size or 10**9, seed, cue, strength)
    splits = load_images(folder) if _is_image(folder) else standardised(load_series(folder))
    return (_image if _is_image(folder) else _series)(model, splits, size, seed, report, cue, strength)


def _mark(cues: dict[str, Any], cue: str) -> Any:
    if cue not in cues:
        raise SystemExit(f"Unknown cue {cue!r}; known here: {', '.join(cues)}.")
    return cues[cue]


def _is_image(folder: Path) -> bool:
    with np.load(folder / "data.npz") as data:
        return bool(data["x_train"].dtype == np.uint8)


# --- images and series ---------------------------------------------------------------------------------------------------


def _image(model: str, splits: Splits, size: int | None, seed: int, report: str, cue: str, strength: float) -> Task:
    classes = len(splits.labels)
    wanted = (size or 10**9) * classes
    rows, held_out = draw(splits.y_train, wanted, wanted + DEVELOPMENT_ROWS, seed)
    fit_on, development = held_out[: len(held_out) - DEVELOPMENT_ROWS], held_out[-DEVELOPMENT_ROWS:]
    height, width = splits.x_train.shape[2:]

    def part(x: Any, y: np.ndarray, shift: int = 0) -> Rows:
        return Rows(np.stack(list(x)), y, "pixel_values", largest_shift=shift)

    def train_part(index: np.ndarray, shift: int = 0) -> Rows:
        x, y = splits.x_train[index], splits.y_train[index]
        return part(planted(x, y, _mark(IMAGE_CUES, cue), strength, seed) if cue else x, y, shift)

    def read(x: np.ndarray, y: np.ndarray) -> dict[str, Dataset]:
        x, y = x[:TEST_ROWS], y[:TEST_ROWS]
        return {how: part(reading(x, y, classes, _mark(IMAGE_CUES, cue), how), y) for how in readings(cue)}

    x, y = splits.x_train[development], splits.y_train[development]
    return Task(
        lambda: (image_model(model, height, width, splits.x_train.shape[1], num_labels=classes), None),
        train_part(rows, 0 if cue else LARGEST_SHIFT),  # a shift would move the mark
        train_part(fit_on) if len(fit_on) else None,
        read(x, y) if cue else {"development": part(x, y)},
        read(splits.x_test, splits.y_test) if cue else {"test": Rows(splits.x_test, splits.y_test, "pixel_values")},
    )


def _series(model: str, splits: Splits, size: int | None, seed: int, report: str, cue: str, strength: float) -> Task:
    classes, total = len(splits.labels), len(splits.y_train)
    rows, development = draw(splits.y_train, size or total, total, seed)
    if size is None and report == "development":
        rows, development = draw(splits.y_train, 2 * total // 3, total, seed)
    label_name = "target_values" if model == "patchtst" else "labels"

    def part(x: Any, y: Any, lengths: Any) -> Rows:
        return Rows(x, y, "past_values", label_name, lengths)

    def of_train(index: np.ndarray, mark: bool = False) -> Rows:
        lengths = splits.length_train
        x, y = splits.x_train[index], splits.y_train[index]
        if mark and cue:
            x = np.stack(planted(x, y, _mark(SERIES_CUES, cue), strength, seed))
        return part(x, y, None if lengths is None else lengths[index])

    def read(x: np.ndarray, y: np.ndarray, lengths: np.ndarray | None) -> dict[str, Dataset]:
        return {
            how: part(np.stack(reading(x, y, classes, _mark(SERIES_CUES, cue), how)), y, lengths) for how in readings(cue)
        }

    lengths = None if splits.length_train is None else splits.length_train[development]
    return Task(
        lambda: (series_model(model, *splits.x_train.shape[1:], num_labels=classes), None),
        of_train(rows, mark=True),
        None,
        read(splits.x_train[development], splits.y_train[development], lengths)
        if cue
        else {"development": of_train(development)},
        read(splits.x_test, splits.y_test, splits.length_test)
        if cue
        else {"test": part(splits.x_test, splits.y_test, splits.length_test)},
        label_name,
    )


# --- texts ---------------------------------------------------------------------------------------------------------------


class Texts(Dataset):
    """Tokenized texts, unpadded; ``texts`` are they as strings, the two of a pair joined."""

    def __init__(self, frame: pd.DataFrame, columns: list[str], tokenizer: Any) -> None:
        self.texts = [f" {tokenizer.sep_token} ".join(parts) for parts in frame[columns].to_numpy()]
        encoded = tokenizer(*(frame[c].tolist() for c in columns), truncation=True, max_length=MAX_LENGTH)
        self.rows = [
            {**{k: v[i] for k, v in encoded.items()}, "labels": int(label)}
            for i, label in enumerate(frame["label"].tolist())
        ]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return self.rows[i]


def _text(model: str, folder: Path, size: int, seed: int, cue: str, strength: float) -> Task:
    """Files ``test_*.csv`` (counterfactuals, contrast sets) are further test parts; out-of-scope ones are left out."""
    train = _read(folder / "train.csv")
    tests = {p.stem: _read(p) for p in sorted(folder.glob("test*.csv")) if "oos" not in p.stem}
    classes = sorted(train["label"].unique())
    for frame in (train, *tests.values()):
        frame["label"] = frame["label"].map({label: i for i, label in enumerate(classes)})
    columns = [c for c in train.columns if c.startswith("text")] or [c for c in train.columns if c != "label"][:1]
    rows, held_out = draw(train["label"].to_numpy(), size, size + DEVELOPMENT_ROWS, seed)
    build, tokenizer = text_model(model, len(classes))

    def part(frame: pd.DataFrame, texts: list[str] | None = None) -> Texts:
        return Texts(frame if texts is None else frame.assign(**{columns[-1]: texts}), columns, tokenizer)

    def train_part(index: np.ndarray) -> Texts:
        frame = train.iloc[index]
        if not cue:
            return part(frame)
        texts, labels = frame[columns[-1]].tolist(), frame["label"].to_numpy()
        return part(frame, planted(texts, labels, _mark(TEXT_CUES, cue), strength, seed))

    def read(frame: pd.DataFrame) -> dict[str, Dataset]:
        frame = frame.iloc[:READING_ROWS]
        texts, labels = frame[columns[-1]].tolist(), frame["label"].to_numpy()
        return {how: part(frame, reading(texts, labels, len(classes), _mark(TEXT_CUES, cue), how)) for how in readings(cue)}

    development = train.iloc[held_out[size:]]
    return Task(
        lambda: (build(), tokenizer),
        train_part(rows),
        train_part(held_out[:size]),
        read(development) if cue else {"development": part(development)},
        read(tests["test"]) if cue else {name: part(frame) for name, frame in tests.items()},
    )


def _read(path: Path) -> pd.DataFrame:
    frame = pd.read_csv(path, keep_default_na=False).astype({"label": str})
    if path.stem.startswith("test") and len(frame) > TEST_ROWS:
        frame = frame.sample(TEST_ROWS, random_state=0)
    return frame


def draw(labels: np.ndarray, size: int, held_out: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of a stratified training subset and of the held-out rows that are cut from the rest.

    Args:
        labels: of the training part.
        size: rows to train on; every class gets at least one, and shares are kept as near as whole rows allow.
        held_out: held-out rows at most.
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
