"""Series or images as arrays: their splits, subsets, and npz files. Needs numpy alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from ..errors import ChallengerError


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


def standardised(splits: Splits) -> Splits:
    """Each channel with mean 0 and variance 1 over the observed training steps."""
    steps = np.arange(splits.x_train.shape[1])
    lengths = splits.length_train if splits.length_train is not None else np.full(len(splits.x_train), len(steps))
    observed = splits.x_train[steps[None] < np.asarray(lengths)[:, None]]
    mean, deviation = observed.mean(0), observed.std(0) + 1e-8

    def scaled(x: np.ndarray, lengths: np.ndarray | None) -> np.ndarray:
        x = (x - mean) / deviation
        return x if lengths is None else x * (steps[None] < np.asarray(lengths)[:, None])[..., None]

    train, test = scaled(splits.x_train, splits.length_train), scaled(splits.x_test, splits.length_test)
    return replace(splits, x_train=train, x_test=test)


def subset_per_class(splits: Splits, count: int | None, seed: int) -> Splits:
    """``count`` training rows of each class, drawn with the seed; None: all."""
    if count is None:
        return splits
    chosen = []
    for label in range(len(splits.labels)):
        rows = np.flatnonzero(splits.y_train == label)
        chosen += np.random.default_rng((seed, label)).permutation(rows)[:count].tolist()
    lengths = None if splits.length_train is None else splits.length_train[chosen]
    return replace(splits, x_train=splits.x_train[chosen], y_train=splits.y_train[chosen], length_train=lengths)


def npz_in(path: Path) -> Path | None:
    """The npz file that a path names: itself, or ``data.npz`` in a folder; None for a folder without one."""
    if path.is_dir():
        return path / "data.npz" if (path / "data.npz").is_file() else None
    if not path.is_file():
        raise ChallengerError(f"{path} does not exist.")
    if path.suffix != ".npz":
        raise ChallengerError(
            f"{path} is no npz file. Of other formats give the folder: it holds both the training and the test file."
        )
    return path


def load_part(npz: Path) -> tuple[np.ndarray, list[str] | list[int] | None, np.ndarray | None]:
    """The test part of an npz file, or ``x``, ``y`` where it has one part: rows, their classes or None, lengths or None.

    Classes are names where the file has ``labels``, and indices where it has none.
    """
    data = _arrays(npz)
    part = "_test" if "x_test" in data else ""
    if f"x{part}" not in data:
        raise ChallengerError(f"{npz} holds {', '.join(data) or 'nothing'}; x_test and y_test, or x and y, are expected.")
    x, y, lengths = (data.get(f"{name}{part}") for name in ("x", "y", "length"))
    assert x is not None
    for name, values in (("y", y), ("length", lengths)):
        if values is not None and len(values) != len(x):
            raise ChallengerError(f"{npz}: there are {len(x)} rows, but {len(values)} in {name}{part}.")
    if not len(x):
        raise ChallengerError(f"{npz} holds no rows in x{part}. Give at least one.")
    if y is None:
        return x, None, lengths
    if not _are_integers(y):
        raise ChallengerError(f"{npz}: y{part} is {y.dtype} {y.shape}; integers 0, 1, ... are expected, one a row.")
    if "labels" not in data:
        return x, y.tolist(), lengths
    names = [str(name) for name in data["labels"]]
    if y.min() < 0 or y.max() >= len(names):
        raise ChallengerError(
            f"{npz}: y{part} goes from {y.min()} to {y.max()}, but labels has {len(names)} names, 0, 1, ..."
        )
    return x, [names[k] for k in y], lengths


def _are_integers(y: np.ndarray) -> bool:
    return y.ndim == 1 and np.issubdtype(y.dtype, np.integer)


def _arrays(npz: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(npz, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise ChallengerError(f"{npz} cannot be read as an npz file of plain arrays: {error}") from error


def load_npz(npz: Path) -> Splits:
    """The arrays as they are, their counts and classes checked."""
    data = _arrays(npz)
    missing = [k for k in ("x_train", "y_train", "x_test", "y_test") if k not in data]
    if missing:
        raise ChallengerError(f"{npz} holds {', '.join(data) or 'nothing'}, but not {', '.join(missing)}.")
    ys = [data["y_train"], data["y_test"]]
    if any(not _are_integers(y) or not y.size or y.min() < 0 for y in ys):
        found = " and ".join(f"{y.dtype} {y.shape}" for y in ys)
        raise ChallengerError(
            f"{npz}: y_train and y_test are {found}; integers 0, 1, ... are expected, one a row (names go into labels)."
        )
    labels = [str(x) for x in data["labels"]] if "labels" in data else [str(i) for i in range(int(ys[0].max()) + 1)]
    if max(y.max() for y in ys) >= len(labels):
        raise ChallengerError(
            f"{npz}: there are classes up to {max(y.max() for y in ys)}, but only {len(labels)} names for them."
        )
    for split in ("train", "test"):
        counts = {k: len(data[k]) for k in (f"x_{split}", f"y_{split}", f"length_{split}") if k in data}
        if len(set(counts.values())) > 1:
            raise ChallengerError(
                f"{npz}: {', '.join(f'{k} has {n}' for k, n in counts.items())} rows; the same number is expected."
            )
    arrays = {k: data[k] for k in ("x_train", "y_train", "x_test", "y_test")}
    return Splits(**arrays, labels=labels, length_train=data.get("length_train"), length_test=data.get("length_test"))
