"""Texts with labels from csv, tsv and json files. Errors name the file, the line and the way out. Standard library only."""

from __future__ import annotations

import csv
import difflib
import io
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ChallengerError

DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
LONGEST_FIELD = 10_000_000  # characters; Python's own limit, 131,072, is less than a long report


@dataclass(frozen=True)
class Table:
    """A file's rows, all cells as strings.

    Attributes:
        path: of the file, for messages.
        columns: their names.
        rows: each a dictionary from column to cell.
        lines: the line of the file on which each row begins.
        notes: sentences on how the file was read, where that is not obvious.
    """

    path: str
    columns: list[str]
    rows: list[dict[str, str]]
    lines: list[int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Texts:
    """Texts of one split.

    Attributes:
        texts: one a row.
        pairs: the second text of each row, or None.
        labels: class name of each row.
        lines: line of each row in its file.
        path: of that file.
    """

    texts: list[str]
    pairs: list[str] | None
    labels: list[str]
    lines: list[int]
    path: str

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Sequence[int]) -> Texts:
        """These rows, in this order."""
        return Texts(
            [self.texts[i] for i in rows],
            None if self.pairs is None else [self.pairs[i] for i in rows],
            [self.labels[i] for i in rows],
            [self.lines[i] for i in rows],
            self.path,
        )


# --- files ---------------------------------------------------------------------------------------------------------------


def read_table(path: str | Path, delimiter: str | None = None, encoding: str | None = None) -> Table:
    """Read a csv, tsv or json file.

    Args:
        path: ``.json`` and ``.jsonl`` hold an object a line, or one list of objects; all else is a table with a header.
        delimiter: of the columns. None: found from the header.
        encoding: None: UTF-8 (or UTF-16 with a byte order mark), or else Windows-1252, which is said in the notes.

    Raises:
        ChallengerError: no such file, no text, no rows, unequal numbers of columns, columns of the same name, no JSON.
    """
    path = Path(path)
    content, notes = _decoded(path, encoding)
    if not content.strip():
        raise ChallengerError(f"{path} is empty. Expected are a header, such as text,label, and a row for each text.")
    if path.suffix.lower() in (".json", ".jsonl"):
        table = _from_json(str(path), content)
    else:
        named, content = _without_excels_line(content)
        delimiter = delimiter.replace("\\t", "\t") if delimiter else named or _delimiter_of(content)
        if len(delimiter) != 1:
            raise ChallengerError(f"The delimiter {delimiter!r} is {len(delimiter)} characters long; one is expected.")
        if delimiter != ",":
            notes.append(f"{path.name}: columns are separated by a {DELIMITERS.get(delimiter, repr(delimiter))}.")
        table = _from_csv(str(path), content, delimiter)
    if not table.rows:
        raise ChallengerError(f"{path} has a header ({', '.join(table.columns)}) but no row below it.")
    return replace(table, notes=(*notes, *table.notes))


def _decoded(path: Path, encoding: str | None) -> tuple[str, list[str]]:
    if path.is_dir():
        raise ChallengerError(f"{path} is a folder; a csv or json file is expected.")
    if not path.is_file():
        near = difflib.get_close_matches(
            path.name, [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else [], 1
        )
        raise ChallengerError(
            f"There is no file {str(path)!r}.{f' Did you mean {str(path.with_name(near[0]))!r}?' if near else ''}"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ChallengerError(f"{path} cannot be read: {error.strerror}.") from error
    if content[:4] == b"PK\x03\x04" or content[:4] == b"\xd0\xcf\x11\xe0":
        raise ChallengerError(f"{path} is an Excel file or an archive. Save the sheet as csv (UTF-8) first.")
    utf16 = content[:2] in (b"\xff\xfe", b"\xfe\xff")
    if b"\0" in content and not utf16 and not encoding:
        line = content[: content.index(b"\0")].count(b"\n") + 1
        raise ChallengerError(f"{path}, line {line}: a zero byte, so this is no text file. Save it as csv in UTF-8.")
    try:
        return content.decode(encoding or ("utf-16" if utf16 else "utf-8-sig")).removeprefix("\ufeff"), []
    except LookupError as error:
        raise ChallengerError(
            f"The encoding {encoding!r} is unknown. Known are for example utf-8, latin-1, cp1252."
        ) from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        if encoding or utf16:
            raise ChallengerError(f"{path}, line {line}: no {encoding or 'UTF-16'} text. Name another encoding.") from error
        note = f"{path.name} is no UTF-8 (line {line}) and was read as Windows-1252 (latin-1). Another encoding: --encoding."
        return content.decode("cp1252", errors="replace"), [note]


def _without_excels_line(content: str) -> tuple[str, str]:
    """The delimiter in a first line ``sep=;``, which Excel reads and writes, and the content with that line blank."""
    found = re.match(r"sep=(.)(?=\r?\n)", content)
    return (found[1], content[found.end() :]) if found else ("", content)


def _delimiter_of(content: str) -> str:
    """The one that splits the header into most columns; a comma where none does."""
    header = content.lstrip().splitlines()[0]
    counts = {d: len(next(csv.reader([header], delimiter=d))) for d in DELIMITERS}
    return max(counts, key=lambda d: counts[d])


def _from_csv(path: str, content: str, delimiter: str) -> Table:
    columns: list[str] = []
    rows, lines, repeated = [], [], []
    before = csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
    line, next_line = 1, 1  # on which a row begins: a quoted text may hold line breaks
    try:
        for cells in reader:
            line, next_line = next_line, reader.line_num + 1
            if not cells or not (columns or any(cell.strip() for cell in cells)):
                continue  # a blank line; below the header a row of empty cells is a row
            if not columns:
                columns = [cell.strip() for cell in cells]
                _refuse_repeated_columns(path, columns)
            elif [cell.strip() for cell in cells] == columns:
                repeated.append(line)
            elif len(cells) != len(columns):
                raise ChallengerError(
                    f"{path}, line {line}: {len(cells)} columns, but the header has {len(columns)}"
                    f" ({', '.join(columns)}). Put a text that holds a {DELIMITERS.get(delimiter, delimiter)} between double"
                    " quotes, or name the separator with --delimiter."
                )
            else:
                rows.append(dict(zip(columns, cells, strict=True)))
                lines.append(line)
    except csv.Error as error:
        raise ChallengerError(
            f"{path}, line {next_line}: the quotes do not match ({error}). Write a double quote inside a quoted text twice."
        ) from error
    finally:
        csv.field_size_limit(before)
    notes = (f"{Path(path).name}: the header occurs again on {_lines(repeated)}, which was left out.",) if repeated else ()
    return Table(path, columns, rows, lines, notes)


def _refuse_repeated_columns(path: str, columns: list[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        raise ChallengerError(
            f"{path}, line 1: the column {twice[0]!r} occurs {columns.count(twice[0])} times in the header. Rename or remove one."
        )


def _from_json(path: str, content: str) -> Table:
    try:
        found = [(1, row) for row in json.loads(content)] if content.lstrip().startswith("[") else None
    except json.JSONDecodeError as error:
        raise ChallengerError(f"{path}, line {error.lineno}: no JSON ({error.msg}).") from error
    if found is None:
        found = []
        for number, line in enumerate(content.split("\n"), start=1):  # a text may hold other line breaks (U+2028)
            try:
                found += [(number, json.loads(line))] if line.strip() else []
            except json.JSONDecodeError as error:
                raise ChallengerError(
                    f"{path}, line {number}: no JSON object ({error.msg}). One a line is expected."
                ) from error
    columns = list(found[0][1]) if found and isinstance(found[0][1], dict) else []
    if len(found) == 1 and columns and all(isinstance(value, (dict, list)) for value in found[0][1].values()):
        raise ChallengerError(
            f"{path} holds whole columns ({', '.join(columns[:5])}); one object a row is expected. With pandas write it with"
            " to_json(path, orient='records', lines=True)."
        )
    for number, row in found:
        if not isinstance(row, dict) or not set(columns) <= set(row):
            raise ChallengerError(
                f"{path}, line {number}: an object with {', '.join(columns) or 'text, label'} is expected."
            )
    rows = [{name: cell(row[name]) for name in columns} for _, row in found]
    return Table(path, columns, rows, [number for number, _ in found])


def cell(value: Any) -> str:
    """A value as a cell; empty where there is none."""
    return "" if value is None else value if isinstance(value, str) else str(value)


# --- columns -------------------------------------------------------------------------------------------------------------


def find_column(table: Table, name: str, flag: str) -> str:
    """The column of that name, or the only one that differs in upper and lower case alone.

    Raises:
        ChallengerError: there is none; the message lists the columns and names the flag that chooses another.
    """
    if name in table.columns:
        return name
    same = [c for c in table.columns if c.casefold() == name.casefold()]
    if len(same) == 1:
        return same[0]
    near = difflib.get_close_matches(name, table.columns, 1)
    guess = f" Did you mean {flag} {near[0]}?" if near else ""
    raise ChallengerError(
        f"{table.path}, line 1: there is no column {name!r} among {', '.join(table.columns)}. Name the column with {flag}.{guess}"
    )


def find_text_column(table: Table, name: str | None, others: Sequence[str | None] = ()) -> str:
    """The column ``name``; if None, the one called ``text``, or else the one with the longest texts, no numbers.

    Args:
        others: columns that are already used.
    """
    if name is not None:
        return find_column(table, name, "--text_column")
    called = [c for c in table.columns if c.casefold() == "text" and c not in others]
    if called:
        return called[0]
    lengths = {c: sum(len(row[c]) for row in table.rows) for c in table.columns if c not in others}
    candidates = [c for c in lengths if lengths[c] and not all(_is_number(row[c]) for row in table.rows)]
    if not candidates:
        raise ChallengerError(
            f"{table.path}: none of the columns {', '.join(table.columns)} holds text beside the label. Name it with --text_column."
        )
    return max(candidates, key=lambda c: lengths[c])


def _is_number(cell: str) -> bool:
    try:
        float(cell or "0")
    except ValueError:
        return False
    return True


def labelled_texts(table: Table, text: str, label: str | None, pair: str | None = None) -> tuple[Texts, list[str]]:
    """Texts and labels of a table, and notes on rows that were left out since their text is empty.

    Args:
        label: its column; None: labels are empty.

    Raises:
        ChallengerError: a label is empty, or no text is left.
    """
    without = [
        line
        for line, row in zip(table.lines, table.rows, strict=True)
        if label and row[text].strip() and not row[label].strip()
    ]
    if without:
        raise ChallengerError(
            f"{table.path}, {_lines(without)}: the label (column {label!r}) is empty. Fill it in, or remove the row."
        )
    kept = [i for i, row in enumerate(table.rows) if row[text].strip()]
    empty = [
        line
        for line, row in zip(table.lines, table.rows, strict=True)
        if not row[text].strip() and any(content.strip() for content in row.values())  # spreadsheets end in empty rows
    ]
    if not kept:
        raise ChallengerError(
            f"{table.path}: every text (column {text!r}) is empty. Name another column with --text_column."
        )
    found = Texts(
        [table.rows[i][text] for i in kept],
        [table.rows[i][pair] for i in kept] if pair else None,
        [table.rows[i][label].strip() if label else "" for i in kept],
        [table.lines[i] for i in kept],
        table.path,
    )
    name = Path(table.path).name
    return found, [f"{name}: {len(empty)} empty text(s) left out ({_lines(empty)})."] if empty else []


def _lines(lines: list[int]) -> str:
    """``line 3``, or ``lines 3, 8, 9, ...``"""
    shown = ", ".join(map(str, lines[:5])) + (", ..." if len(lines) > 5 else "")
    return f"line{'s' if len(lines) > 1 else ''} {shown}"


# --- classes and splits --------------------------------------------------------------------------------------------------


def class_names(train: Texts) -> list[str]:
    """The classes, numbers in their own order, names alphabetically.

    Raises:
        ChallengerError: there is one class only, or as many as rows.
    """
    names = sorted(set(train.labels))
    if len(names) < 2:
        raise ChallengerError(f"{train.path}: every row has the label {names[0]!r}; at least two classes are needed.")
    if len(names) == len(train) > 2:
        raise ChallengerError(
            f"{train.path}: {len(names)} rows have {len(names)} different labels. Name the column of classes with --label_column."
        )
    return sorted(names, key=int) if all(name.lstrip("-").isdecimal() for name in names) else names


def refuse_unknown_labels(other: Texts, names: Sequence[str]) -> None:
    """Raise :class:`ChallengerError` at the first row whose class does not occur in the training texts."""
    for label, line in zip(other.labels, other.lines, strict=True):
        if label not in names:
            near = difflib.get_close_matches(label, names, 1)
            raise ChallengerError(
                f"{other.path}, line {line}: the label {label!r} does not occur in the training texts, so it cannot be learnt."
                f"{f' Did you mean {near[0]!r}?' if near else ''}"
            )


def shared_texts(train: Texts, other: Texts) -> int:
    """How many rows of ``other`` have a text that occurs in the training texts, upper and lower case aside."""
    known = {text.strip().casefold() for text in train.texts}
    return sum(text.strip().casefold() in known for text in other.texts)


def split_by_class(texts: Texts, share: float, seed: int) -> tuple[Texts, Texts]:
    """Draw ``share`` of each class for testing; a class keeps at least one row for training.

    Rows with the same text stay on one side, so that no test text was seen in training.

    Raises:
        ChallengerError: no class has two different texts, so that none is left for testing.
    """
    of_class: dict[str, dict[str, list[int]]] = {}
    side: dict[str, str] = {}  # a text with two labels counts for the first
    for i, (text, label) in enumerate(zip(texts.texts, texts.labels, strict=True)):
        key = text.strip().casefold()
        of_class.setdefault(side.setdefault(key, label), {}).setdefault(key, []).append(i)
    test: list[int] = []
    for label in sorted(of_class):
        groups = list(of_class[label].values())
        random.Random(f"{seed} {label}").shuffle(groups)
        count = min(round(share * len(groups)), len(groups) - 1)
        if len(groups) > 1:
            count = max(count, 1)
        test += [i for group in groups[:count] for i in group]
    if not test:
        raise ChallengerError(
            f"{texts.path}: no class has two different texts, so that none can be kept for testing. Add rows, or name a file"
            " with --test_file."
        )
    chosen = set(test)
    return texts.select([i for i in range(len(texts)) if i not in chosen]), texts.select(sorted(chosen))


def classes_with_counts(texts: Texts, names: Sequence[str], shown: int = 10) -> str:
    """``a (12), b (7) and 3 more``: each class with its number of rows, the most frequent first."""
    counts = sorted(Counter(texts.labels).items(), key=lambda item: (-item[1], names.index(item[0])))
    listed = ", ".join(f"{name} ({count})" for name, count in counts[:shown])
    return listed + (f" and {len(counts) - shown} more" if len(counts) > shown else "")


def subset(texts: Texts, count: int | None, seed: int) -> Texts:
    """``count`` rows, drawn with the seed; all where there are no more."""
    if count is None or count >= len(texts):
        return texts
    return texts.select(random.Random(seed).sample(range(len(texts)), count))
