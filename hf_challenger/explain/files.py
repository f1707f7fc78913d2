"""Files of one image or one series."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..errors import ChallengerError


def read_image(name: str) -> Any:
    """A ``PIL.Image`` of any format that Pillow reads.

    Raises:
        ChallengerError: without Pillow; where the file is absent or no image.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ChallengerError("Images need Pillow, which is not installed: pip install pillow.") from error
    try:
        image = Image.open(name)
        image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ChallengerError(f"--image {name!r} cannot be read ({error}). A png or jpg file is expected.") from error
    return image


def read_series(name: str) -> np.ndarray[Any, Any]:
    """``(time, channels)`` float32 of an npy file, an npz file with one array, or a csv file with a line a time step.

    Raises:
        ChallengerError: where the file is absent, is no such file, or holds missing values.
    """
    readers = {".npy": _read_npy, ".npz": _read_npy, ".csv": _read_csv}
    path = Path(name)
    if path.suffix.lower() not in readers:
        raise ChallengerError(f"--series {name!r} is expected to end with .npy, .npz or .csv.")
    try:
        series = readers[path.suffix.lower()](path)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ChallengerError(
            f"--series {name!r} cannot be read ({error}). Numbers of shape (time, channels) are expected; in csv a line is a time"
            " step and a column a channel, after at most one header."
        ) from error
    if series.dtype.kind not in "biuf" or series.ndim not in (1, 2) or not series.size:
        raise ChallengerError(
            f"--series {name!r} holds {series.dtype} of shape {series.shape}; numbers of shape (time, channels) are expected."
        )
    series = series.astype(np.float32).reshape(len(series), -1)
    if not np.isfinite(series).all():
        step = int(np.flatnonzero(~np.isfinite(series).all(1))[0])
        raise ChallengerError(
            f"--series {name!r} has a missing or infinite value at step {step}. Interpolate it, as in training."
        )
    return series


def _read_npy(path: Path) -> np.ndarray[Any, Any]:
    found = np.load(path, allow_pickle=False)
    if isinstance(found, np.ndarray):
        return found
    with found:
        if len(found.files) != 1:
            raise ValueError(f"it holds the arrays {', '.join(found.files) or '(none)'}, and one is expected")
        return np.asarray(found[found.files[0]])


def _read_csv(path: Path) -> np.ndarray[Any, Any]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    try:
        [float(cell) for cell in rows[0]] if rows else []
    except ValueError:
        rows = rows[1:]  # a header
    return np.array([[float(cell) for cell in row] for row in rows])
