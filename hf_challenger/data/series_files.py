"""Files of series: csv, tsv and txt as in the UCR archive, ts as in the UEA archive. Errors name the file and the line."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import ChallengerError

# series (time, channels) float32, and the class of each
Series = tuple[list[np.ndarray], list[str]]


def read_pair(folder: Path) -> tuple[Series, Series]:
    """The set's ``NAME_TRAIN`` and ``NAME_TEST`` files, in the first format of :data:`READERS` that both are in."""
    found: dict[str, list[Path]] = {}
    for train in sorted(folder.glob("*_TRAIN.*")):
        test = train.with_name(train.name.replace("_TRAIN.", "_TEST."))
        if train.suffix in READERS and test.is_file():
            found.setdefault(train.stem, []).append(train)
    if not found:
        formats = ", ".join(suffix[1:] for suffix in READERS)
        raise ChallengerError(
            f"There is neither {folder / 'data.npz'} nor a pair NAME_TRAIN and NAME_TEST ({formats}) in {folder}."
        )
    if len(found) > 1:
        names = ", ".join(stem.removesuffix("_TRAIN") for stem in found)
        raise ChallengerError(f"{folder} holds several sets, {names}; a folder for each is expected.")
    (paths,) = found.values()
    train = min(paths, key=lambda path: list(READERS).index(path.suffix))
    return read(train), read(train.with_name(train.name.replace("_TRAIN.", "_TEST.")))


def read(path: Path) -> Series:
    """All series of one file, of one count of channels; each may be of another length."""
    series, names = READERS[path.suffix](path)
    if not series:
        raise ChallengerError(f"{path} holds no series.")
    channels = sorted({one.shape[1] for one in series})
    if len(channels) > 1:
        raise ChallengerError(f"{path} holds series of {' and '.join(map(str, channels))} channels; one count is expected.")
    return series, names


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ChallengerError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}.") from error


def _numbers(values: list[str], place: str) -> list[float]:
    """Missing values ("", "?", "NaN") are NaN."""
    found = []
    for value in values:
        try:
            found.append(float("nan") if value.strip() in ("", "?") else float(value))
        except ValueError as error:
            raise ChallengerError(
                f"{place}: {value.strip()[:40]!r} is no number. Expected is one series a line: in csv, tsv and txt the class and"
                " then the values, without a header; in ts the values, then a colon and the class."
            ) from error
    return found


def _series(channels: list[list[float]], place: str) -> np.ndarray:
    """``(time, channels)`` without the missing steps at the end, which are padding."""
    lengths = sorted({len(channel) for channel in channels})
    if len(lengths) > 1:
        raise ChallengerError(f"{place}: the channels have {' and '.join(map(str, lengths))} steps; one length is expected.")
    x = np.array(channels, dtype=np.float32).T
    observed = np.flatnonzero(np.isfinite(x).any(1))
    if not len(observed):
        raise ChallengerError(f"{place}: the series has no value. Expected is at least one step after the class.")
    x = x[: observed[-1] + 1]
    if not np.isfinite(x).all():
        step = int(np.flatnonzero(~np.isfinite(x).all(1))[0])
        raise ChallengerError(
            f"{place}: the value at step {step} (the first is 0) is missing or infinite. Only steps at the end may be missing:"
            " interpolate the others, or leave the series out."
        )
    return x


def _read_table(path: Path) -> Series:
    """One series a line, the class first; split at commas, tabs, or else at spaces."""
    series, names = [], []
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            cells = line.replace("\t", ",").split(",") if "," in line or "\t" in line else line.split()
            place = f"{path}, line {number}"
            series.append(_series([_numbers(cells[1:], place)], place))
            names.append(cells[0].strip())
    return series, names


def _read_ts(path: Path) -> Series:
    """After ``@data`` a series a line: dimensions separated by colons, the class last."""
    series: list[np.ndarray] = []
    names: list[str] = []
    begun = False
    for number, line in enumerate(_lines(path), start=1):
        place, line = f"{path}, line {number}", line.strip()
        if not line or line.startswith(("#", "%")):
            continue
        if begun:
            *dimensions, name = line.split(":")
            if not dimensions or not name.strip():
                raise ChallengerError(f"{place}: there is no colon with a class after it; expected is values:...:class.")
            series.append(_series([_numbers(d.split(","), place) for d in dimensions], place))
            names.append(name.strip())
            continue
        words = line.lower().split()
        begun = words[0] == "@data"
        if words[:2] == ["@timestamps", "true"]:
            raise ChallengerError(f"{place}: series with time stamps are not read; expected are plain values at even steps.")
        if words[:2] == ["@classlabel", "false"] or words[0] == "@targetlabel":
            raise ChallengerError(
                f"{place}: the series have no classes, so there is nothing to learn; @classLabel true is expected."
            )
    if not begun:
        raise ChallengerError(f"{path} has no line @data, so it is no ts file.")
    return series, names


READERS = {".ts": _read_ts, ".csv": _read_table, ".tsv": _read_table, ".txt": _read_table}
