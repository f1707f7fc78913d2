"""Loaders of series (npz, csv, tsv, ts) and images (npz, folders of classes, scikit-learn's digits)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp")


@dataclass
class Splits:
    """Arrays of one data set.

    Attributes:
        x_train, x_test: series ``(n, time, channels)`` float32; images ``(n, channels, height, width)`` float32 in [0, 1].
        y_train, y_test: ``(n,)`` int64.
        labels: name of each class.
        length_train, length_test: ``(n,)``, steps before padding; None where all series are of one length.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    labels: list[str]
    length_train: np.ndarray | None = None
    length_test: np.ndarray | None = None


class Rows(Dataset):
    """Rows of a split as a model takes them, under the names that it uses.

    Args:
        name: of the input, the model's ``main_input_name``.
        label_name: of the class.
        lengths: adds ``past_observed_mask``, of the input's shape.
        largest_shift: images are moved by up to that many pixels each time, along both axes, the border repeated.
    """

    def __init__(self, x, y, name: str, label_name: str = "labels", lengths=None, largest_shift: int = 0) -> None:
        self.x, self.y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.int64)
        self.name, self.label_name, self.lengths, self.largest_shift = name, label_name, lengths, largest_shift

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        x = self.x[i]
        if self.largest_shift:
            m = self.largest_shift
            down, right = torch.randint(0, 2 * m + 1, (2,)).tolist()
            padded = torch.nn.functional.pad(x.unsqueeze(0), (m,) * 4, mode="replicate")[0]
            x = padded[:, down : down + x.shape[1], right : right + x.shape[2]]
        row = {self.name: x, self.label_name: self.y[i]}
        if self.lengths is not None:
            row["past_observed_mask"] = (torch.arange(len(x)) < int(self.lengths[i])).unsqueeze(-1).expand_as(x).contiguous()
        return row


# --- series -------------------------------------------------------------------------------------------------------------


def load_series(path: str | Path) -> Splits:
    """A folder with ``data.npz``, or an npz file with ``x_train``, ``y_train``, ``x_test``, ``y_test`` (``labels``,
    ``length_train``, ``length_test``); or a folder with ``*_TRAIN`` and ``*_TEST`` files, csv, tsv or ts."""
    path = Path(path)
    npz = path / "data.npz" if path.is_dir() else path
    if npz.suffix == ".npz" and npz.is_file():
        data = np.load(npz, allow_pickle=False)
        missing = [k for k in ("x_train", "y_train", "x_test", "y_test") if k not in data]
        if missing:
            sys.exit(f"{npz} holds {', '.join(data)}, but not {', '.join(missing)}.")
        labels = (
            [str(x) for x in data["labels"]] if "labels" in data else [str(i) for i in range(int(data["y_train"].max()) + 1)]
        )
        lengths = [data.get(k) for k in ("length_train", "length_test")]
        return Splits(*(data[k] for k in ("x_train", "y_train", "x_test", "y_test")), labels, *lengths)
    found = {part: sorted(p for p in path.glob(f"*_{part}.*") if p.suffix in READERS) for part in ("TRAIN", "TEST")}
    if not all(found.values()):
        sys.exit(f"There is neither {npz} nor a pair of *_TRAIN and *_TEST files (csv, tsv, ts) in {path}.")
    train, test = (READERS[found[part][0].suffix](found[part][0]) for part in ("TRAIN", "TEST"))
    labels = sorted(set(train[1]))
    unknown = set(test[1]) - set(labels)
    if unknown:
        sys.exit(f"Classes {sorted(unknown)} of the test file do not occur in the training file, so they cannot be learnt.")
    longest = max(max(map(len, part[0])) for part in (train, test))
    arrays = []
    for series, names in (train, test):
        x = np.zeros((len(series), longest, series[0].shape[1]), dtype=np.float32)
        for row, one in zip(x, series, strict=True):
            row[: len(one)] = one
        arrays += [x, np.array([labels.index(n) for n in names])]
    lengths = [np.array([len(one) for one in part[0]]) for part in (train, test)]
    unequal = any((part < longest).any() for part in lengths)
    return Splits(*arrays, labels, *(lengths if unequal else (None, None)))


def _read_table(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """One series a line, the class first, as in the UCR archive; trailing empty or NaN values are padding."""
    series, names = [], []
    for line in path.read_text().splitlines():
        name, *values = line.replace("\t", ",").split(",")
        x = np.array([float(v) if v.strip() else np.nan for v in values], dtype=np.float32)
        while len(x) and np.isnan(x[-1]):
            x = x[:-1]
        series.append(x[:, None])
        names.append(name.strip())
    return series, names


def _read_ts(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """The ts format of the UEA archive: after @data, dimensions separated by colons, the class last."""
    series, names = [], []
    lines = path.read_text().splitlines()
    start = next((i for i, line in enumerate(lines) if line.strip().lower() == "@data"), None)
    if start is None:
        sys.exit(f"{path} has no @data line, so it is not a ts file.")
    for line in lines[start + 1 :]:
        if line.strip():
            *dimensions, name = line.strip().split(":")
            channels = [[float("nan") if v == "?" else float(v) for v in d.split(",")] for d in dimensions]
            series.append(np.array(channels, dtype=np.float32).T)
            names.append(name)
    return series, names


READERS = {".csv": _read_table, ".tsv": _read_table, ".txt": _read_table, ".ts": _read_ts}


def standardised(splits: Splits) -> Splits:
    """Each channel with mean 0 and variance 1 over the observed training steps."""
    steps = np.arange(splits.x_train.shape[1])
    lengths = splits.length_train if splits.length_train is not None else np.full(len(splits.x_train), len(steps))
    observed = splits.x_train[steps[None] < np.asarray(lengths)[:, None]]
    mean, deviation = observed.mean(0), observed.std(0) + 1e-8

    def scaled(x, lengths):
        x = (x - mean) / deviation
        return x if lengths is None else x * (steps[None] < np.asarray(lengths)[:, None])[..., None]

    train, test = scaled(splits.x_train, splits.length_train), scaled(splits.x_test, splits.length_test)
    return Splits(train, splits.y_train, test, splits.y_test, splits.labels, splits.length_train, splits.length_test)


# --- images -------------------------------------------------------------------------------------------------------------


def load_images(path: str | Path | None) -> Splits:
    """None: scikit-learn's digits (1,797 images of 8×8). A folder with ``data.npz``, or an npz file, uint8 or floats. A
    folder with ``train/<class>/*.png`` and ``test/<class>/*.png``."""
    if path is None:
        return _digits()
    path = Path(path)
    npz = path / "data.npz" if path.is_dir() else path
    if npz.suffix == ".npz" and npz.is_file():
        data = load_series(npz)
        return Splits(_channels_first(data.x_train), data.y_train, _channels_first(data.x_test), data.y_test, data.labels)
    if not (path / "train").is_dir() or not (path / "test").is_dir():
        sys.exit(f"There is neither {npz} nor the folders train/ and test/, with a folder for each class, in {path}.")
    labels = sorted(p.name for p in (path / "train").iterdir() if p.is_dir())
    parts = []
    for split in ("train", "test"):
        files = [
            (f, i)
            for i, n in enumerate(labels)
            for f in sorted((path / split / n).glob("*"))
            if f.suffix.lower() in IMAGE_FILES
        ]
        if not files:
            sys.exit(f"There are no images in {path / split}.")
        parts += [_channels_first(_read_images([f for f, _ in files])), np.array([i for _, i in files])]
    return Splits(*parts, labels)


def _read_images(files: list[Path]) -> np.ndarray:
    from PIL import Image  # only for folders of images

    images = [np.asarray(Image.open(f).convert("RGB")) for f in files]
    if len({x.shape for x in images}) > 1:
        sys.exit(f"The images have different sizes, {sorted({x.shape for x in images})}; bring them to one size first.")
    return np.stack(images)


def _channels_first(x: np.ndarray) -> np.ndarray:
    """uint8 ``(n, h, w)`` or ``(n, h, w, channels)`` → float32 ``(n, channels, h, w)`` in [0, 1]."""
    x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    return x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)


def _digits() -> Splits:
    """Test: every third image (599). scikit-learn gives no split of its own."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, test = data.images.astype(np.float32)[:, None] / 16, np.arange(len(data.target)) % 3 == 0
    y = data.target.astype(np.int64)
    return Splits(x[~test], y[~test], x[test], y[test], [str(n) for n in data.target_names])


def subset_per_class(splits: Splits, count: int | None, seed: int) -> Splits:
    """``count`` training rows of each class, drawn with the seed; None: all."""
    if count is None:
        return splits
    chosen = []
    for label in range(len(splits.labels)):
        rows = np.flatnonzero(splits.y_train == label)
        chosen += np.random.default_rng((seed, label)).permutation(rows)[:count].tolist()
    lengths = None if splits.length_train is None else splits.length_train[chosen]
    return Splits(
        splits.x_train[chosen],
        splits.y_train[chosen],
        splits.x_test,
        splits.y_test,
        splits.labels,
        lengths,
        splits.length_test,
    )
