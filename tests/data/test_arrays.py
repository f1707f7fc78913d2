"""Loaders of the examples: every format by a file written on the spot; bad files are named with line and expectation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hf_challenger import ChallengerError
from hf_challenger.data.arrays import load_part, standardised, subset_per_class
from hf_challenger.data.images import load_images
from hf_challenger.data.rows import Rows
from hf_challenger.data.series import load_series

EMBEDDED = Path(__file__).parents[2] / "examples" / "time_series_classification" / "data"
TRAIN = "2\t1.5\t-2\t3e0\n1\t4\t5\t6\n"
TS = "#A comment\n@problemName Two\n@classLabel true a b\n@data\n1,2,3:4,5,6:b\n\n-1,0.5,2:7,8,9:a\n"


def pair(folder, suffix, train, test, name="Set"):
    (folder / f"{name}_TRAIN.{suffix}").write_text(train)
    (folder / f"{name}_TEST.{suffix}").write_text(test)
    return folder


# --- series: what is read ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t"), ("txt", "   "), ("txt", ",")])
def test_tables(suffix, separator, tmp_path):
    """The class comes first; classes are numbered in the order of their names."""
    splits = load_series(pair(tmp_path, suffix, *(text.replace("\t", separator) for text in (TRAIN, "1\t0\t0\t1\n"))))
    assert splits.labels == ["1", "2"]
    assert splits.y_train.tolist() == [1, 0]
    assert splits.x_train.tolist() == [[[1.5], [-2.0], [3.0]], [[4.0], [5.0], [6.0]]]
    assert splits.x_test.shape == (1, 3, 1)
    assert splits.x_train.dtype == np.float32
    assert splits.length_train is None


@pytest.mark.parametrize(
    ("name", "shape", "rows", "labels"),
    [
        ("basicmotions", (40, 100, 6), 40, ["Badminton", "Running", "Standing", "Walking"]),
        ("italypowerdemand", (67, 24, 1), 1029, ["apr-sep", "oct-mar"]),
    ],
)
def test_embedded_sets_are_what_their_readme_says(name, shape, rows, labels):
    splits = load_series(EMBEDDED / name)
    assert (splits.x_train.shape, len(splits.x_test), sorted(splits.labels)) == (shape, rows, labels)
    for counts, split in ((np.bincount(splits.y_train), "train"), (np.bincount(splits.y_test), "test")):
        line = " | ".join(str(counts[splits.labels.index(label)]) for label in labels)
        assert f"| {split} | {counts.sum()} | {line} |" in (EMBEDDED / name / "README.md").read_text()


def test_ts(tmp_path):
    splits = load_series(pair(tmp_path, "ts", TS, "@data\n0,0,0:1,1,1:a\n"))
    assert splits.labels == ["a", "b"]
    assert splits.y_train.tolist() == [1, 0]
    assert splits.x_train[0].tolist() == [[1, 4], [2, 5], [3, 6]]  # (time, channels)


@pytest.mark.parametrize(
    ("suffix", "train"),
    [
        ("csv", "a,1,2,3,4\nb,5,6,,\n"),
        ("tsv", "a\t1\t2\t3\t4\nb\t5\t6\tNaN\tNaN\n"),
        ("ts", "@data\n1,2,3,4:a\n5,6,?,?:b\n"),
    ],
)
def test_missing_steps_at_the_end_are_padding(suffix, train, tmp_path):
    splits = load_series(pair(tmp_path, suffix, train, train))
    assert splits.length_train.tolist() == [4, 2]
    assert splits.x_train[1, :, 0].tolist() == [5, 6, 0, 0]
    scaled = standardised(splits)
    assert scaled.x_train[1, 2:].tolist() == [[0.0], [0.0]]
    assert scaled.x_train[:, :, 0][[0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 0, 1]].mean() == pytest.approx(0, abs=1e-6)
    row = Rows(scaled.x_train, scaled.y_train, "past_values", lengths=scaled.length_train)[1]
    assert row["past_observed_mask"].squeeze(-1).tolist() == [True, True, False, False]


def test_series_of_different_lengths_in_ts(tmp_path):
    splits = load_series(pair(tmp_path, "ts", "@data\n1,2:3,4:a\n5,6,7:8,9,10:b\n", "@data\n1:2:a\n"))
    assert splits.x_train.shape == (2, 3, 2)
    assert (splits.length_train.tolist(), splits.length_test.tolist()) == ([2, 3], [1])


def test_one_set_in_two_formats_is_read_once(tmp_path):
    pair(tmp_path, "csv", "a,1\nb,2\n", "a,1\n")
    splits = load_series(pair(tmp_path, "ts", TS, TS))
    assert splits.x_train.shape == (2, 3, 2)  # ts, which knows channels


def test_a_byte_order_mark_is_no_part_of_the_class(tmp_path):
    pair(tmp_path, "csv", "", "a,1,2\n")
    (tmp_path / "Set_TRAIN.csv").write_text("a,1,2\nb,3,4\n", encoding="utf-8-sig")
    assert load_series(tmp_path).labels == ["a", "b"]


def arrays(**changes):
    x, y = np.arange(24, dtype=np.float32).reshape(4, 3, 2), np.array([0, 1, 0, 1])
    return {"x_train": x, "y_train": y, "x_test": x[:2], "y_test": y[:2], **changes}


@pytest.mark.parametrize("as_folder", [True, False])
def test_npz(as_folder, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays(labels=np.array(["no", "yes"]), length_train=np.array([3, 2, 3, 1])))
    splits = load_series(tmp_path if as_folder else tmp_path / "data.npz")
    assert splits.labels == ["no", "yes"]
    assert splits.length_train.tolist() == [3, 2, 3, 1]
    assert splits.length_test is None
    assert splits.x_train.shape == (4, 3, 2)


def test_a_subset_has_as_many_rows_of_each_class_and_their_lengths(tmp_path):
    np.savez(tmp_path / "data.npz", **arrays(length_train=np.array([3, 2, 3, 1])))
    small = subset_per_class(load_series(tmp_path), 1, seed=0)
    assert small.y_train.tolist() == [0, 1]
    assert small.length_train[0] == 3
    assert len(small.x_test) == 2


# --- series: what is refused ------------------------------------------------------------------------------------------

BAD = {
    "header": (
        "csv",
        "class,t0,t1\na,1,2\n",
        r"Set_TRAIN.csv, line 1: 't0' is no number.*the class and then the values.*header",
    ),
    "word": ("tsv", "a\t1\t2\nb\t3\tx7\n", r"Set_TRAIN.tsv, line 2: 'x7' is no number"),
    "gap": ("csv", "a,1,2,3\nb,1,,3\n", r"Set_TRAIN.csv, line 2: the value at step 1 .* is missing.*interpolate"),
    "infinite": ("csv", "a,1,inf,3\n", r"line 1: the value at step 1 .*infinite"),
    "class only": ("csv", "a,1\nb\n", r"line 2: the series has no value.*at least one step after the class"),
    "empty": ("csv", "\n", r"Set_TRAIN.csv holds no series"),
    "no data line": ("ts", "@problemName x\n1,2:a\n", r"Set_TRAIN.ts has no line @data, so it is no ts file"),
    "no class": ("ts", "@data\n1,2,3\n", r"Set_TRAIN.ts, line 2: there is no colon with a class"),
    "no classes": ("ts", "@classLabel false\n@data\n1,2:3,4\n", r"line 1: the series have no classes.*@classLabel true"),
    "regression": ("ts", "@targetLabel true\n@data\n1,2:3.5\n", r"line 1: the series have no classes"),
    "time stamps": ("ts", "@timeStamps true\n@data\n(0,1),(1,2):a\n", r"line 1: series with time stamps are not read"),
    "ragged": ("ts", "@data\n1,2:3,4,5:a\n", r"line 2: the channels have 2 and 3 steps"),
    "channels": ("ts", "@data\n1,2:a\n1,2:3,4:b\n", r"Set_TRAIN.ts holds series of 1 and 2 channels"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_named_with_the_line(case, tmp_path):
    suffix, train, words = BAD[case]
    with pytest.raises(ChallengerError, match=words):
        load_series(pair(tmp_path, suffix, train, "a,1,2\n"))


def test_what_does_not_fit_together(tmp_path):
    with pytest.raises(
        ChallengerError, match=r"neither .*data.npz nor a pair NAME_TRAIN and NAME_TEST \(ts, csv, tsv, txt\)"
    ):
        load_series(tmp_path)
    with pytest.raises(ChallengerError, match="nowhere does not exist"):
        load_series(tmp_path / "nowhere")
    with pytest.raises(ChallengerError, match=r"classes z of the test file do not occur in the training file \(a, b\)"):
        load_series(pair(tmp_path, "csv", "a,1\nb,2\n", "z,1\n"))
    with pytest.raises(ChallengerError, match=r"1 channels in the training file, 2 in the test file"):
        load_series(pair(tmp_path, "ts", "@data\n1:a\n", "@data\n1:2:a\n"))
    with pytest.raises(ChallengerError, match=r"is no npz file\. Of other formats give the folder"):
        load_series(tmp_path / "Set_TRAIN.csv")
    with pytest.raises(ChallengerError, match="holds several sets, Other, Set; a folder for each"):
        load_series(pair(tmp_path, "csv", "a,1\n", "a,1\n", name="Other"))


def test_a_file_that_is_no_text(tmp_path):
    pair(tmp_path, "csv", "", "a,1\n")
    (tmp_path / "Set_TRAIN.csv").write_bytes(b"a,1\n\xff\xfe")
    with pytest.raises(ChallengerError, match=r"Set_TRAIN.csv is no text in UTF-8: .* at byte 4"):
        load_series(tmp_path)


BAD_ARRAYS = {
    "missing": ({"y_test": None}, "holds x_train, y_train, x_test, but not y_test"),
    "names as classes": ({"y_train": np.array(["a", "b", "a", "b"])}, r"y_train and y_test are <U1 \(4,\) and int64 \(2,\)"),
    "one hot": ({"y_train": np.eye(4, dtype=int)}, r"int64 \(4, 4\) .*integers 0, 1, ... are expected, one a row"),
    "names lack": ({"labels": np.array(["a"])}, "classes up to 1, but only 1 names"),
    "rows": ({"y_train": np.array([0, 1])}, "x_train has 4, y_train has 2 rows"),
    "lengths": ({"length_test": np.array([1])}, "x_test has 2, y_test has 2, length_test has 1 rows"),
    "two axes": ({"x_train": np.zeros((4, 3))}, r"shapes \(4, 3\) and \(2, 3, 2\); expected is \(rows, time, channels\)"),
    "other lengths": ({"x_test": np.zeros((2, 5, 2))}, r"\(4, 3, 2\) and \(2, 5, 2\); .*alike in both"),
    "NaN": (
        {"x_test": np.where(np.arange(12).reshape(2, 3, 2) == 9, np.nan, 0.0)},
        r"x_test holds NaN .*\(row 1, step 1, channel 1\)",
    ),
    "objects": ({"labels": np.array([None, {}], dtype=object)}, "cannot be read as an npz file of plain arrays"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays_are_named(case, tmp_path):
    changes, words = BAD_ARRAYS[case]
    np.savez(tmp_path / "data.npz", **{k: v for k, v in arrays(**changes).items() if v is not None})
    with pytest.raises(ChallengerError, match=words):
        load_series(tmp_path)


def test_a_broken_npz_is_named(tmp_path):
    (tmp_path / "data.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(ChallengerError, match=r"data.npz cannot be read as an npz file"):
        load_series(tmp_path)


# --- images -----------------------------------------------------------------------------------------------------------


def image(path, value, size=(4, 3), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path)


def image_folder(root):
    image(root / "train" / "cat" / "b.png", (255, 0, 0))
    image(root / "train" / "cat" / "a.jpeg", (0, 0, 255))
    image(root / "train" / "dog" / "a.PNG", 51, mode="L")  # grey among colours
    image(root / "test" / "dog" / "x.bmp", (0, 102, 0))
    (root / "train" / "cat" / "notes.txt").write_text("no image")
    (root / "train" / ".cache").mkdir()
    return root


def test_a_folder_of_images(tmp_path):
    splits = load_images(image_folder(tmp_path))
    assert splits.labels == ["cat", "dog"]
    assert splits.y_train.tolist() == [0, 0, 1]
    assert splits.y_test.tolist() == [1]
    assert splits.x_train.shape == (3, 3, 3, 4)  # (n, channels, height, width)
    assert splits.x_train[1, :, 0, 0].tolist() == [1, 0, 0]  # sorted by name: b.png is the second cat
    assert splits.x_train[2, :, 0, 0].tolist() == pytest.approx([0.2] * 3)
    assert splits.x_test[0, :, 0, 0].tolist() == pytest.approx([0, 0.4, 0])


@pytest.mark.parametrize(("shape", "expected"), [((4, 5, 6), (4, 1, 5, 6)), ((4, 5, 6, 3), (4, 3, 5, 6))])
def test_images_in_npz(shape, expected, tmp_path):
    x = np.full(shape, 51, dtype=np.uint8)
    np.savez(tmp_path / "data.npz", **arrays(x_train=x, x_test=x[:2]))
    splits = load_images(tmp_path)
    assert splits.x_train.shape == expected
    assert splits.x_train.max() == pytest.approx(0.2)


def test_digits_are_embedded():
    splits = load_images(None)
    assert (len(splits.x_train), len(splits.x_test)) == (1198, 599)
    assert torch.as_tensor(splits.x_train).shape[1:] == (1, 8, 8)


def test_bad_images_are_named(tmp_path):
    with pytest.raises(ChallengerError, match=r"neither .*data.npz nor the folders train/ and test/"):
        load_images(tmp_path)
    root = image_folder(tmp_path)
    (root / "train" / "bird").mkdir()
    with pytest.raises(ChallengerError, match=r"There are no images \(.png, .*\) in .*train/bird"):
        load_images(root)
    image(root / "train" / "bird" / "a.png", 0, size=(5, 3))
    with pytest.raises(ChallengerError, match=r"has 4×3 pixels, .*bird/a.png has 5×3"):
        load_images(root)
    (root / "train" / "bird" / "a.png").write_text("no image at all")
    with pytest.raises(ChallengerError, match=r"bird/a.png is no readable image"):
        load_images(root)
    (root / "test" / "fish").mkdir()
    with pytest.raises(ChallengerError, match=r"Classes fish in .*test have no folder in .*train"):
        load_images(root)


def test_images_of_a_wrong_shape_are_named(tmp_path):
    x = np.zeros((4, 3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", **arrays(x_train=x, x_test=x[:2]))
    with pytest.raises(
        ChallengerError, match=r"the images have shape \(4, 3, 32, 32\); \(n, height, width\) or .*channels\)"
    ):
        load_images(tmp_path)


def test_a_part_has_names_or_indices(tmp_path):
    x, file = np.zeros((3, 4), np.float32), tmp_path / "data.npz"
    np.savez(file, x=x, y=np.array([2, 0, 1]))
    assert load_part(file)[1] == [2, 0, 1]
    np.savez(file, x=x, y=np.array([2, 0, 1]), labels=np.array(["a", "b", "c"]))
    assert load_part(file)[1] == ["c", "a", "b"]


@pytest.mark.parametrize("y", [[-1, 0, 1], [0, 1, 2]])
def test_classes_without_a_name_are_refused(tmp_path, y):
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 4), np.float32), y=np.array(y), labels=np.array(["a", "b"]))
    with pytest.raises(ChallengerError, match=f"goes from {y[0]} to {y[-1]}, but labels has 2 names"):
        load_part(tmp_path / "data.npz")
