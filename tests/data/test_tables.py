"""Tables of texts: what is read, what is said about it, and which files are refused with which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_challenger import ChallengerError
from hf_challenger.data.tables import (
    Texts,
    class_names,
    classes_with_counts,
    find_column,
    find_text_column,
    labelled_texts,
    read_table,
    refuse_unknown_labels,
    shared_texts,
    split_by_class,
    subset,
)


def written(folder: Path, content: str | bytes, name: str = "tickets.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("delimiter", "name"), [(",", None), (";", "semicolon"), ("\t", "tab"), ("|", "bar")])
def test_the_delimiter_is_found_and_told(delimiter: str, name: str | None, tmp_path: Path) -> None:
    content = f'text{delimiter}label\n"a{delimiter} b"{delimiter}x\nc, d; e{delimiter}y\n'.replace(
        "c, d; e" if delimiter in ",;" else "\0", "c d e"
    )
    table = read_table(written(tmp_path, content))
    assert table.columns == ["text", "label"]
    assert [row["label"] for row in table.rows] == ["x", "y"]
    assert table.rows[0]["text"] == f"a{delimiter} b"
    assert table.notes == ((f"tickets.csv: columns are separated by a {name}.",) if name else ())


def test_a_named_delimiter_wins(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "text;a,label\nhello;b,x\n"), delimiter=",")
    assert table.columns == ["text;a", "label"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_with_and_without_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "text,label\ngrüße,x\n".encode(encoding)))
    assert table.columns == ["text", "label"]
    assert table.rows[0]["text"] == "grüße"
    assert table.notes == ()


def test_latin_1_is_read_and_told_with_its_line(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "text,label\nplain,x\ngrüße,y\n".encode("latin-1")))
    assert table.rows[1]["text"] == "grüße"
    assert "no UTF-8 (line 3) and was read as Windows-1252" in table.notes[0]


def test_a_text_of_several_lines_counts_from_its_first(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, 'text,label\n"one\ntwo",x\n\nthree,y\n'))
    assert table.lines == [2, 5]
    assert table.rows[0]["text"] == "one\ntwo"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_line_that_excel_puts_before_the_header(end: str, tmp_path: Path) -> None:
    table = read_table(written(tmp_path, end.join(["sep=;", "text;label", "a, b;x", ""])))
    assert table.columns == ["text", "label"]
    assert (table.rows[0]["text"], table.lines) == ("a, b", [3])


def test_words_for_missing_values_are_text(tmp_path: Path) -> None:
    assert [row["text"] for row in read_table(written(tmp_path, "text,label\nnull,x\nNA,y\n")).rows] == ["null", "NA"]


def test_a_repeated_header_is_left_out_and_told(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "text,label\na,x\ntext,label\nb,y\n"))
    assert [row["text"] for row in table.rows] == ["a", "b"]
    assert table.notes == ("tickets.csv: the header occurs again on line 3, which was left out.",)


def test_a_text_longer_than_pythons_limit(tmp_path: Path) -> None:
    assert len(read_table(written(tmp_path, f"text,label\n{'a' * 200_000},x\n")).rows[0]["text"]) == 200_000


@pytest.mark.parametrize("lines", [True, False])
def test_json(lines: bool, tmp_path: Path) -> None:
    rows = [{"text": "a", "label": 1}, {"text": None, "label": 0}]
    content = "\n".join(map(json.dumps, rows)) if lines else json.dumps(rows)
    table = read_table(written(tmp_path, content, "tickets.json"))
    assert table.rows == [{"text": "a", "label": "1"}, {"text": "", "label": "0"}]


# --- what is refused --------------------------------------------------------------------------------------------------

BAD = {
    "empty": ("tickets.csv", b"", r"tickets.csv is empty\. Expected are a header"),
    "blank": ("tickets.csv", b"\n \n", r"tickets.csv is empty"),
    "header only": ("tickets.csv", b"text,label\n", r"has a header \(text, label\) but no row below it"),
    "ragged": ("tickets.csv", b"text,label\na,x\nb, c,y\n", r"line 3: 3 columns, but the header has 2 .*double quotes"),
    "short row": ("tickets.csv", b"text,label\na,x\nb\n", r"line 3: 1 columns, but the header has 2"),
    "open quote": ("tickets.csv", b'text,label\na,x\n"b,y\nc,x\n', r"line 3: the quotes do not match"),
    "stray quote": ("tickets.csv", b'text,label\n"a" b,x\n', r"line 2: the quotes do not match .*twice"),
    "twice": ("tickets.csv", b"text,text,label\na,b,x\n", r"line 1: the column 'text' occurs 2 times .*Rename"),
    "excel": ("tickets.xlsx", b"PK\x03\x04...", r"is an Excel file or an archive\. Save the sheet as csv"),
    "binary": ("tickets.csv", b"text,label\na\0b,x\n", r"line 2: a zero byte, so this is no text file"),
    "no json": ("tickets.json", b'{"text": "a", "label": "x"}\nhello\n', r"tickets.json, line 2: no JSON object"),
    "no json list": ("tickets.json", b'[{"text": "a"},\n nonsense]', r"tickets.json, line 2: no JSON"),
    "other keys": ("tickets.json", b'{"text": "a", "label": "x"}\n{"text": "b"}\n', r"line 2: an object with text, label"),
    "no objects": ("tickets.json", b"[1, 2]", r"line 1: an object with text, label is expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_with_the_line(case: str, tmp_path: Path) -> None:
    name, content, words = BAD[case]
    with pytest.raises(ChallengerError, match=words):
        read_table(written(tmp_path, content, name))


def test_a_missing_file_is_named_with_its_neighbour(tmp_path: Path) -> None:
    written(tmp_path, "text,label\n")
    with pytest.raises(ChallengerError, match=r"There is no file '.*ticket.csv'\. Did you mean '.*tickets.csv'\?"):
        read_table(tmp_path / "ticket.csv")
    with pytest.raises(ChallengerError, match="is a folder; a csv or json file is expected"):
        read_table(tmp_path)


def test_named_delimiter_and_encoding_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path, "text,label\ngrüße,x\n".encode("latin-1"))
    with pytest.raises(ChallengerError, match=r"line 2: no ascii text\. Name another encoding"):
        read_table(path, encoding="ascii")
    with pytest.raises(ChallengerError, match="encoding 'klingon' is unknown"):
        read_table(path, encoding="klingon")
    with pytest.raises(ChallengerError, match="delimiter ', ' is 2 characters long; one is expected"):
        read_table(path, delimiter=", ")


# --- columns ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "row", "expected"),
    [
        ("ticket_id,text,label", "T-17 a long identifier,short,x", "text"),
        ("ticket_id,Text,label", "T-17,short,x", "Text"),
        ("id,subject,body,label", "7,card,my card was declined,x", "body"),
        ("number,message,label", "1234567890123456,hi,x", "message"),
    ],
)
def test_the_text_column_is_found(header: str, row: str, expected: str, tmp_path: Path) -> None:
    table = read_table(written(tmp_path, f"{header}\n{row}\n"))
    assert find_text_column(table, None, others=("label",)) == expected


def test_misspelt_columns_are_refused_with_a_guess(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "text,labels,n\na,x,1\n"))
    with pytest.raises(
        ChallengerError, match=r"line 1: there is no column 'label' among text, labels, n.* --label_column labels\?"
    ):
        find_column(table, "label", "--label_column")
    with pytest.raises(ChallengerError, match=r"no column 'txt' .*Did you mean --text_column text\?"):
        find_text_column(table, "txt")
    with pytest.raises(ChallengerError, match=r"none of the columns text, labels, n holds text beside the label"):
        find_text_column(table, None, others=("text", "labels"))
    assert find_column(table, "TEXT", "--text_column") == "text"


def test_empty_labels_are_refused_and_empty_texts_told(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "text,label\na,x\n ,y\nb, z \n"))
    texts, notes = labelled_texts(table, "text", "label")
    assert (texts.texts, texts.labels, texts.lines) == (["a", "b"], ["x", "z"], [2, 4])
    assert notes == ["tickets.csv: 1 empty text(s) left out (line 3)."]
    table = read_table(written(tmp_path, "text,label\na,x\nb,\nc, \n"))
    with pytest.raises(
        ChallengerError, match=r"tickets.csv, lines 3, 4: the label \(column 'label'\) is empty\. Fill it in"
    ):
        labelled_texts(table, "text", "label")
    table = read_table(written(tmp_path, "text,other,label\n,a,x\n"))
    with pytest.raises(ChallengerError, match=r"every text \(column 'text'\) is empty"):
        labelled_texts(table, "text", "label")


# --- classes and splits -----------------------------------------------------------------------------------------------


def texts_of(labels: list[str], texts: list[str] | None = None) -> Texts:
    texts = texts or [f"text {i}" for i in range(len(labels))]
    return Texts(texts, None, labels, list(range(2, len(labels) + 2)), "tickets.csv")


def test_classes_are_sorted_as_numbers_or_as_names() -> None:
    assert class_names(texts_of(["10", "9", "10", "-1"])) == ["-1", "9", "10"]
    assert class_names(texts_of(["b", "a", "b", "10"])) == ["10", "a", "b"]


def test_labels_that_cannot_be_learnt_are_refused() -> None:
    with pytest.raises(ChallengerError, match="every row has the label 'a'; at least two classes"):
        class_names(texts_of(["a", "a"]))
    with pytest.raises(ChallengerError, match=r"4 rows have 4 different labels\. Name the column of classes"):
        class_names(texts_of(["a", "b", "c", "d"]))
    with pytest.raises(ChallengerError, match=r"line 3: the label 'refunds' does not occur .*Did you mean 'refund'\?"):
        refuse_unknown_labels(texts_of(["refund", "refunds"]), ["refund", "freeze"])


def test_the_split_takes_its_share_of_each_class_and_repeats_with_the_seed() -> None:
    texts = texts_of(["a"] * 50 + ["b"] * 10 + ["c"] * 2 + ["d"])
    train, test = split_by_class(texts, 0.2, seed=1)
    assert {label: test.labels.count(label) for label in "abcd"} == {"a": 10, "b": 2, "c": 1, "d": 0}
    assert sorted(train.texts + test.texts) == sorted(texts.texts)
    assert split_by_class(texts, 0.2, seed=1)[1].texts == test.texts
    assert split_by_class(texts, 0.2, seed=2)[1].texts != test.texts
    assert [texts.texts.index(t) for t in test.texts] == [line - 2 for line in test.lines]


def test_the_same_text_is_never_on_both_sides_of_a_split() -> None:
    texts = texts_of(["a", "b"] * 20, [f"Text {i // 4}" if i % 2 else f"text {i // 4} " for i in range(40)])
    train, test = split_by_class(texts, 0.3, seed=0)
    assert len(test) > 0
    assert not {t.strip().casefold() for t in train.texts} & {t.strip().casefold() for t in test.texts}


def test_texts_that_are_also_training_texts_are_counted() -> None:
    assert shared_texts(texts_of(["a", "b"], ["My card", "hello"]), texts_of(["b"] * 3, [" my card", "bye", "hello"])) == 2


def test_a_subset_is_drawn_with_the_seed() -> None:
    texts = texts_of(["a", "b"] * 10)
    drawn = subset(texts, 5, seed=3)
    assert len(drawn) == len(set(drawn.texts)) == 5
    assert drawn.texts == subset(texts, 5, seed=3).texts
    assert subset(texts, 50, seed=3) is texts


def test_nothing_left_for_testing_is_refused_and_a_class_of_one_text_is_trained_on() -> None:
    with pytest.raises(ChallengerError, match="no class has two different texts, so that none can be kept for testing"):
        split_by_class(texts_of(["a", "b"]), 0.2, seed=0)
    train, test = split_by_class(texts_of(["a"] * 10 + ["alone"]), 0.2, seed=0)
    assert ("alone" in train.labels, "alone" in test.labels, len(test)) == (True, False, 2)


def test_classes_are_counted_the_most_frequent_first() -> None:
    texts = texts_of(["b", "a", "b", "c"])
    assert classes_with_counts(texts, ["a", "b", "c"]) == "b (2), a (1), c (1)"
    assert classes_with_counts(texts, ["a", "b", "c"], shown=1) == "b (2) and 2 more"


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085", "\x0c"])
def test_line_breaks_of_other_kinds_are_part_of_a_text(tmp_path, mark):
    file = tmp_path / "rows.jsonl"
    texts = [f"one{mark}two", "three"]
    file.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
    assert [row["text"] for row in read_table(file).rows] == texts


def test_json_by_columns_is_refused_with_the_way_out(tmp_path):
    file = tmp_path / "columns.json"
    file.write_text(json.dumps({"text": {"0": "good", "1": "bad"}, "label": {"0": "a", "1": "b"}}))
    with pytest.raises(ChallengerError, match=r"whole columns \(text, label\).*orient='records'"):
        read_table(file)


@pytest.mark.parametrize("encoding", [None, "utf-8", "utf-8-sig"])
def test_a_byte_order_mark_is_no_part_of_the_header(tmp_path, encoding):
    file = tmp_path / "bom.csv"
    file.write_text("label,text\na,one\n", encoding="utf-8-sig")
    assert read_table(file, None, encoding).columns == ["label", "text"]


def test_a_row_of_empty_cells_is_a_row_and_has_no_text(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text('text\nfirst\n""\n\nthird\n')
    assert [row["text"] for row in read_table(one).rows] == ["first", "", "third"]
    two.write_text("text,label\nfirst,a\n,\nthird,b\n")
    texts, notes = labelled_texts(read_table(two), "text", "label")
    assert (texts.texts, texts.labels) == (["first", "third"], ["a", "b"])
    assert notes == []  # a spreadsheet's empty row is none
    two.write_text("text,label\nfirst,a\n,b\nthird,b\n")
    assert "1 empty text" in labelled_texts(read_table(two), "text", "label")[1][0]
