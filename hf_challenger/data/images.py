"""Sets of images: npz files, folders of classes, and scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import ChallengerError
from .arrays import Splits, load_npz, npz_in

IMAGE_FILES = (".png", ".jpg", ".jpeg", ".bmp")


def load_images(path: str | Path | None) -> Splits:
    """None: scikit-learn's digits (1,797 images of 8×8). A folder with ``data.npz``, or an npz file, uint8 or floats. A
    folder with ``train/<class>/*.png`` and ``test/<class>/*.png``."""
    if path is None:
        return _digits()
    path = Path(path)
    npz = npz_in(path)
    if npz is not None:
        data = load_npz(npz)
        x_train, x_test = (channels_first(x, f"{npz}: the images") for x in (data.x_train, data.x_test))
        return Splits(x_train, data.y_train, x_test, data.y_test, data.labels)
    if not (path / "train").is_dir() or not (path / "test").is_dir():
        raise ChallengerError(
            f"There is neither {path / 'data.npz'} nor the folders train/ and test/, with a folder a class, in {path}."
        )
    labels = _folders(path / "train")
    unknown = set(_folders(path / "test")) - set(labels)
    if unknown:
        raise ChallengerError(f"Classes {', '.join(sorted(unknown))} in {path / 'test'} have no folder in {path / 'train'}.")
    files = {
        split: [(file, label) for label, name in enumerate(labels) for file in _images(path / split / name)]
        for split in ("train", "test")
    }
    empty = [name for label, name in enumerate(labels) if label not in {label for _, label in files["train"]}]
    if not labels or empty or not files["test"]:
        without = ", ".join(str(path / "train" / name) for name in empty) or str(path / ("test" if labels else "train"))
        raise ChallengerError(f"There are no images ({', '.join(IMAGE_FILES)}) in {without}.")
    images = _read_images([file for part in files.values() for file, _ in part])
    count = len(files["train"])
    y_train, y_test = (np.array([label for _, label in part]) for part in files.values())
    return Splits(images[:count], y_train, images[count:], y_test, labels)


def _folders(path: Path) -> list[str]:
    return sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _read_images(files: list[Path]) -> np.ndarray:
    """``(n, 3, height, width)``"""
    images: list[np.ndarray] = []
    for file in files:
        images.append(read_image(file))
        if images[-1].shape != images[0].shape:
            (h, w, _), (first_h, first_w, _) = images[-1].shape, images[0].shape
            raise ChallengerError(
                f"{file} has {w}×{h} pixels, {files[0]} has {first_w}×{first_h}; bring all images to one size first."
            )
    return channels_first(np.stack(images), "the images")


def read_image(file: Path, grey: bool = False, size: tuple[int, int] | None = None) -> np.ndarray:
    """``(height, width, 3)`` uint8, or ``(height, width)`` if grey; ``size``: (width, height) to scale it to."""
    from PIL import Image, UnidentifiedImageError  # only for files of images

    try:
        image = Image.open(file).convert("L" if grey else "RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise ChallengerError(f"{file} is no readable image: {error}") from error
    return np.asarray(image if size is None or image.size == size else image.resize(size))


def files_by_class(folder: Path) -> tuple[list[Path], list[str]]:
    """Images of a folder with a folder a class, or of its part ``test``, and the class of each."""
    if (folder / "test").is_dir() and (folder / "train").is_dir():
        folder = folder / "test"
    found = [(file, name) for name in _folders(folder) for file in _images(folder / name)]
    if not found:
        raise ChallengerError(
            f"There are no images ({', '.join(IMAGE_FILES)}) in folders of {folder}, which are expected to be one a class."
        )
    return [file for file, _ in found], [name for _, name in found]


def _images(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.glob("*")) if file.suffix.lower() in IMAGE_FILES]


def channels_first(x: np.ndarray, what: str) -> np.ndarray:
    """uint8 ``(n, h, w)`` or ``(n, h, w, channels)`` → float32 ``(n, channels, h, w)`` in [0, 1]."""
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[3] > 4):
        raise ChallengerError(
            f"{what} have shape {x.shape}; (n, height, width) or (n, height, width, channels) is expected."
        )
    x = x.astype(np.float32) / 255 if x.dtype == np.uint8 else x.astype(np.float32)
    return x[:, None] if x.ndim == 3 else x.transpose(0, 3, 1, 2)


def _digits() -> Splits:
    """Test: every third image (599). scikit-learn gives no split of its own."""
    from sklearn.datasets import load_digits

    data = load_digits()
    x, test = data.images.astype(np.float32)[:, None] / 16, np.arange(len(data.target)) % 3 == 0
    y = data.target.astype(np.int64)
    return Splits(x[~test], y[~test], x[test], y[test], [str(n) for n in data.target_names])
