"""Loaders of series (npz, csv, tsv, ts) and images (npz, folders of classes, scikit-learn's digits)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch.utils.data import Dataset

from .series_files import read_pair

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
    ``length_train``, ``length_test``); or a folder with ``NAME_TRAIN`` and ``NAME_TEST``, in csv, tsv, txt or ts."""
    path = Path(path)
    npz = _npz_in(path)
    if npz is not None:
        return _checked_series(_load_npz(npz), npz)
    train, test = read_pair(path)
    if train[0][0].shape[1] != test[0][0].shape[1]:
        sys.exit(f"{path}: {train[0][0].shape[1]} channels in the training file, {test[0][0].shape[1]} in the test file.")
    labels = sorted(set(train[1]))
    unknown = set(test[1]) - set(labels)
    if unknown:
        sys.exit(
            f"{path}: classes {', '.join(sorted(unknown))} of the test file do not occur in the training file"
            f" ({', '.join(labels)}), so that they cannot be learnt."
        )
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


def _npz_in(path: Path) -> Path | None:
    if path.is_dir():
        return path / "data.npz" if (path / "data.npz").is_file() else None
    if not path.is_file():
        sys.exit(f"{path} does not exist.")
    if path.suffix != ".npz":
        sys.exit(f"{path} is no npz file. Of other formats give the folder: it holds both the training and the test file.")
    return path


def _load_npz(npz: Path) -> Splits:
    """The arrays as they are, their counts and classes checked."""
    try:
        with np.load(npz, allow_pickle=False) as file:
            data = dict(file)
    except (ValueError, OSError, BadZipFile) as error:
        sys.exit(f"{npz} cannot be read as an npz file of plain arrays: {error}")
    missing = [k for k in ("x_train", "y_train", "x_test", "y_test") if k not in data]
    if missing:
        sys.exit(f"{npz} holds {', '.join(data) or 'nothing'}, but not {', '.join(missing)}.")
    ys = [data["y_train"], data["y_test"]]
    if any(y.ndim != 1 or not np.issubdtype(y.dtype, np.integer) or not y.size or y.min() < 0 for y in ys):
        found = " and ".join(f"{y.dtype} {y.shape}" for y in ys)
        sys.exit(
            f"{npz}: y_train and y_test are {found}; integers 0, 1, ... are expected, one a row (names go into labels)."
        )
    labels = [str(x) for x in data["labels"]] if "labels" in data else [str(i) for i in range(int(ys[0].max()) + 1)]
    if max(y.max() for y in ys) >= len(labels):
        sys.exit(f"{npz}: there are classes up to {max(y.max() for y in ys)}, but only {len(labels)} names for them.")
    for split in ("train", "test"):
        counts = {k: len(data[k]) for k in (f"x_{split}", f"y_{split}", f"length_{split}") if k in data}
        if len(set(counts.values())) > 1:
            sys.exit(f"{npz}: {', '.join(f'{k} has {n}' for k, n in counts.items())} rows; the same number is expected.")
    return Splits(
        *(data[k] for k in ("x_train", "y_train", "x_test", "y_test")),
        labels,
        data.get("length_train"),
        data.get("length_test"),
    )


def _checked_series(splits: Splits, npz: Path) -> Splits:
    if splits.x_train.ndim != 3 or splits.x_train.shape[1:] != splits.x_test.shape[1:]:
        shapes = f"{splits.x_train.shape} and {splits.x_test.shape}"
        sys.exit(f"{npz}: x_train and x_test have shapes {shapes}; expected is (rows, time, channels), alike in both.")
    for name, x in (("x_train", splits.x_train), ("x_test", splits.x_test)):
        bad = np.argwhere(~np.isfinite(x))
        if len(bad):
            row, step, channel = bad[0].tolist()
            sys.exit(
                f"{npz}: {name} holds NaN or infinity (row {row}, step {step}, channel {channel}). Interpolate missing values;"
                " pad shorter series with 0 and give their lengths as length_train and length_test."
            )
    return splits


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
    npz = _npz_in(path)
    if npz is not None:
        data = _load_npz(npz)
        x_train, x_test = (_channels_first(x, f"{npz}: the images") for x in (data.x_train, data.x_test))
        return Splits(x_train, data.y_train, x_test, data.y_test, data.labels)
    if not (path / "train").is_dir() or not (path / "test").is_dir():
        sys.exit(f"There is neither {path / 'data.npz'} nor the folders train/ and test/, with a folder a class, in {path}.")
    labels = _folders(path / "train")
    unknown = set(_folders(path / "test")) - set(labels)
    if unknown:
        sys.exit(f"Classes {', '.join(sorted(unknown))} in {path / 'test'} have no folder in {path / 'train'}.")
    files = {
        split: [
            (file, label)
            for label, name in enumerate(labels)
            for file in sorted((path / split / name).glob("*"))
            if file.suffix.lower() in IMAGE_FILES
        ]
        for split in ("train", "test")
    }
    empty = [name for label, name in enumerate(labels) if label not in {label for _, label in files["train"]}]
    if not labels or empty or not files["test"]:
        without = ", ".join(str(path / "train" / name) for name in empty) or str(path / ("test" if labels else "train"))
        sys.exit(f"There are no images ({', '.join(IMAGE_FILES)}) in {without}.")
    images = _read_images([file for part in files.values() for file, _ in part])
    count = len(files["train"])
    y_train, y_test = (np.array([label for _, label in part]) for part in files.values())
    return Splits(images[:count], y_train, images[count:], y_test, labels)


def _folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_images(files: list[Path]) -> np.ndarray:
    """``(n, 3, height, width)``"""
    from PIL import Image, UnidentifiedImageError  # only for folders of images

    images = []
    for file in files:
        try:
            images.append(np.asarray(Image.open(file).convert("RGB")))
        except (UnidentifiedImageError, OSError) as error:
            sys.exit(f"{file} is no readable image: {error}")
        if images[-1].shape != images[0].shape:
            (h, w, _), (first_h, first_w, _) = images[-1].shape, images[0].shape
            sys.exit(f"{file} has {w}×{h} pixels, {files[0]} has {first_w}×{first_h}; bring all images to one size first.")
    return _channels_first(np.stack(images), "the images")


def _channels_first(x: np.ndarray, what: str) -> np.ndarray:
    """uint8 ``(n, h, w)`` or ``(n, h, w, channels)`` → float32 ``(n, channels, h, w)`` in [0, 1]."""
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] > 4):
        sys.exit(f"{what} have shape {x.shape}; (n, height, width) or (n, height, width, channels) is expected.")
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
