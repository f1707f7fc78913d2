"""Sets of time series: npz files, and the csv, tsv, txt and ts files of the UCR and UEA archives."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import ChallengerError
from .arrays import Splits, load_npz, npz_in
from .series_files import read_pair


def load_series(path: str | Path) -> Splits:
    """A folder with ``data.npz``, or an npz file with ``x_train``, ``y_train``, ``x_test``, ``y_test`` (``labels``,
    ``length_train``, ``length_test``); or a folder with ``NAME_TRAIN`` and ``NAME_TEST``, in csv, tsv, txt or ts."""
    path = Path(path)
    npz = npz_in(path)
    if npz is not None:
        return _checked_series(load_npz(npz), npz)
    train, test = read_pair(path)
    if train[0][0].shape[1] != test[0][0].shape[1]:
        raise ChallengerError(
            f"{path}: {train[0][0].shape[1]} channels in the training file, {test[0][0].shape[1]} in the test file."
        )
    labels = sorted(set(train[1]))
    unknown = set(test[1]) - set(labels)
    if unknown:
        raise ChallengerError(
            f"{path}: classes {', '.join(sorted(unknown))} of the test file do not occur in the training file"
            f" ({', '.join(labels)}), so that they cannot be learnt."
        )
    longest = max(max(map(len, part[0])) for part in (train, test))
    xs, ys = [], []
    for series, names in (train, test):
        x = np.zeros((len(series), longest, series[0].shape[1]), dtype=np.float32)
        for row, one in zip(x, series, strict=True):
            row[: len(one)] = one
        xs.append(x)
        ys.append(np.array([labels.index(n) for n in names]))
    lengths = [np.array([len(one) for one in part[0]]) for part in (train, test)]
    unequal = any((part < longest).any() for part in lengths)
    lengths_or_none = lengths if unequal else (None, None)
    return Splits(xs[0], ys[0], xs[1], ys[1], labels, *lengths_or_none)


def _checked_series(splits: Splits, npz: Path) -> Splits:
    if splits.x_train.ndim != 3 or splits.x_train.shape[1:] != splits.x_test.shape[1:]:
        shapes = f"{splits.x_train.shape} and {splits.x_test.shape}"
        raise ChallengerError(
            f"{npz}: x_train and x_test have shapes {shapes}; expected is (rows, time, channels), alike in both."
        )
    for name, x in (("x_train", splits.x_train), ("x_test", splits.x_test)):
        bad = np.argwhere(~np.isfinite(x))
        if len(bad):
            row, step, channel = bad[0].tolist()
            raise ChallengerError(
                f"{npz}: {name} holds NaN or infinity (row {row}, step {step}, channel {channel}). Interpolate missing values;"
                " pad shorter series with 0 and give their lengths as length_train and length_test."
            )
    return splits
