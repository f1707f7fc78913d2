"""The explain command on images and series, with tiny saved classifiers."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_bert, tiny_tokenizer
from transformers import ViTImageProcessor

from hf_challenger import LRP
from hf_challenger.explain.command import main
from hf_challenger.saved_model import load_float_classifier
from hf_challenger.small_models import image_model, series_model

NAMES = {"num_labels": 3, "id2label": {0: "up", 1: "down", 2: "flat"}, "label2id": {"up": 0, "down": 1, "flat": 2}}
SERIES = np.random.default_rng(0).normal(size=(24, 2)).astype(np.float32)
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each kind, an image and a series."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for name in ("fcn-small", "patchtst"):
        series_model(name, 24, 2, **NAMES).save_pretrained(folder / name)
    for name, channels in (("cnn", 1), ("vit", 3)):
        image_model(name, 8, 8, channels, **NAMES).save_pretrained(folder / name)
    tiny_bert().save_pretrained(folder / "bert")
    tiny_tokenizer().save_pretrained(folder / "bert")
    np.save(folder / "series.npy", SERIES)
    Image.fromarray(PIXELS).save(folder / "image.png")
    return folder


def run(saved: Path, model: str, flag: str, file: str, *more: str) -> list[dict[str, object]]:
    main([str(saved / model), flag, str(saved / file), "--json", str(saved / "why.json"), *more])
    return json.loads((saved / "why.json").read_text())


@pytest.mark.parametrize(
    ("name", "flag", "file"),
    [
        ("fcn-small", "--series", "series.npy"),
        ("patchtst", "--series", "series.npy"),
        ("cnn", "--image", "image.png"),
        ("vit", "--image", "image.png"),
    ],
)
def test_places_hold_lrps_relevance(
    name: str, flag: str, file: str, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (found,) = run(saved, name, flag, file, "--png", str(tmp_path / "why.png"))
    model = load_float_classifier(str(saved / name))[0].eval()
    if flag == "--series":
        batch = {"past_values": torch.from_numpy(SERIES)[None]}
    else:
        image = Image.fromarray(PIXELS).convert("L" if name == "cnn" else "RGB")
        array = np.asarray(image, dtype=np.float32).reshape(8, 8, -1) / 255
        batch = {"pixel_values": torch.from_numpy(array).permute(2, 0, 1)[None]}
    with torch.no_grad():
        outputs = model(**batch)
    logits = (outputs.prediction_logits if name == "patchtst" else outputs.logits)[0]
    assert found["label"] == NAMES["id2label"][int(logits.argmax())]
    assert found["confidence"] == pytest.approx(float(logits.softmax(0).max()), abs=1e-5)
    relevance = LRP(model).attribute(batch, target=int(logits.argmax()))[0]
    assert [abs(r) for r in found["relevance"]] == sorted((abs(r) for r in found["relevance"]), reverse=True)
    for place, value in zip(found["places"], found["relevance"], strict=True):
        spans = [slice(int(a), int(b or a) + 1) for a, b in re.findall(r"(\d+)(?: to (\d+))?", place)]
        there = relevance[spans[0]] if flag == "--series" else relevance[:, spans[0], spans[1]]
        assert value == pytest.approx(float(there.sum()), abs=1e-5)
    assert sum(found["relevance"]) == pytest.approx(float(relevance.sum()), abs=1e-4)
    printed = capsys.readouterr().out
    assert f"-> {found['label']}, confidence" in printed
    assert re.findall(r"^ +[+-]\d+\.\d{3}  [+-]* +(.*)$", printed, re.MULTILINE) == found["places"][:5]
    assert f"the 5 most relevant of {len(found['places'])} places" in printed
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")


def test_files_of_one_series_give_one_answer(saved: Path) -> None:
    expected = run(saved, "fcn-small", "--series", "series.npy")[0]["relevance"]
    np.savez(saved / "series.npz", series=SERIES)
    (saved / "series.csv").write_text("x,y\n" + "\n".join(f"{a},{b}" for a, b in SERIES) + "\n")
    for file in ("series.npz", "series.csv"):
        assert run(saved, "fcn-small", "--series", file)[0]["relevance"] == pytest.approx(expected, abs=1e-5)


def test_another_class_and_the_most_probable_ones(saved: Path) -> None:
    first, second = run(saved, "cnn", "--image", "image.png", "--top", "2")
    assert [first["label"], second["label"]] == [label for label, _ in first["ranking"][:2]]
    assert run(saved, "cnn", "--image", "image.png", "--class", second["label"])[0]["relevance"] == second["relevance"]


def test_an_image_of_another_size_is_scaled_and_says_so(saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(PIXELS).resize((12, 16)).save(saved / "large.png")
    (found,) = run(saved, "vit", "--image", "large.png")
    assert len(found["places"]) == 16
    assert "scaled from 12×16 to 8×8 pixels" in capsys.readouterr().err


def test_the_saved_image_processor_prepares_the_image(saved: Path) -> None:
    plain = run(saved, "vit", "--image", "image.png")[0]["score"]
    processor = ViTImageProcessor(size={"height": 8, "width": 8}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(saved / "vit")
    try:
        score = run(saved, "vit", "--image", "image.png", "--class", "up")[0]["score"]
    finally:
        (saved / "vit" / "preprocessor_config.json").unlink()
    model = load_float_classifier(str(saved / "vit"))[0].eval()
    pixels = torch.from_numpy(PIXELS).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        assert score == pytest.approx(float(model(pixel_values=(pixels - 0.5) / 0.5).logits[0, 0]), abs=1e-4)
    assert score != pytest.approx(plain, abs=1e-4)


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        ("cnn", ["--image", "absent.png"], "'absent.png' cannot be read"),
        ("cnn", ["--image", "series.npy"], "A png or jpg file is expected"),
        ("fcn-small", ["--series", "absent.npy"], "'absent.npy' cannot be read"),
        ("fcn-small", ["--series", "image.png"], "expected to end with .npy, .npz or .csv"),
        ("fcn-small", ["--series", "words.csv"], "cannot be read .*a line is a time step"),
        ("fcn-small", ["--series", "two.npz"], "it holds the arrays a, b, and one is expected"),
        ("fcn-small", ["--series", "missing.npy"], "missing or infinite value at step 3"),
        ("fcn-small", ["--series", "turned.npy"], "2 steps of 24 channels; the model takes 2 channels. Transpose it"),
        ("patchtst", ["--series", "short.npy"], r"does not take an input of shape \(5, 2\)"),
        ("fcn-small", ["--image", "image.png"], "takes past_values, not what --image gives. Use --series"),
        ("vit", ["--series", "series.npy"], "takes pixel_values, not what --series gives. Use --image"),
        ("bert", ["--image", "image.png"], r"classifies texts \(BertForSequenceClassification\), not images or series"),
        ("cnn", ["--image", "image.png", "--text", "w1"], "--image and --text do not go together"),
        ("cnn", ["--image", "image.png", "--html", "x.html"], "--image and --html do not go together"),
        ("cnn", ["--image", "image.png", "--top", "2", "--png", "x.png"], "--png shows one class"),
        ("cnn", ["--image", "image.png", "--class", "left"], "no class 'left'; its classes are 'up'"),
        ("cnn", ["--image", "image.png", "--method", "attention_rollout"], "Use another attribution, such as 'lrp'"),
    ],
)
def test_mistakes_end_with_the_way_out(
    model: str,
    arguments: list[str],
    words: str,
    saved: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(saved)
    Path("words.csv").write_text("x,y\n1,2\n3,four\n")
    np.savez("two.npz", a=SERIES, b=SERIES)
    np.save("missing.npy", np.where(np.arange(24)[:, None] == 3, np.nan, SERIES))
    np.save("turned.npy", SERIES.T)
    np.save("short.npy", SERIES[:5])
    with pytest.raises(SystemExit) as ended:
        main([model, *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.search(words, said)
    assert said.count("error:") == 1


def test_without_pillow_the_error_says_how_to_get_it(
    saved: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SystemExit):
        main([str(saved / "cnn"), "--image", str(saved / "image.png")])
    assert "pip install pillow" in capsys.readouterr().err
