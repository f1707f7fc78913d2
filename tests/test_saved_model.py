"""Folders of PEFT adapters of image classifiers, read by the commands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny_bert, tiny_tokenizer
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, ViTImageProcessor, ViTModel

from hf_challenger import LRP, ChallengerError
from hf_challenger.cues import main as cues
from hf_challenger.explain.command import main as explain
from hf_challenger.explain.places import explain_places
from hf_challenger.float_rows import FloatRows
from hf_challenger.predict import predict
from hf_challenger.report.cue_report import cue_report
from hf_challenger.saved_model import load_float_classifier, load_text_classifier
from hf_challenger.small_models import image_model

peft = pytest.importorskip("peft")
KINDS = ["left", "right"]


def images(count: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """``(rows, 16, 16, 3)`` uint8: noise, and a white corner that tells the class."""
    rng, y = np.random.default_rng(0), np.arange(count) % 2
    x = rng.integers(0, 80, (count, 16, 16, 3), dtype=np.uint8)
    x[y == 0, :4, :4] = 255
    x[y == 1, 12:, 12:] = 255
    return x, y


def pixels(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture(scope="module", params=["a base without a head", "a base of other classes"])
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with adapter, processor and pictures, and the model as it was trained."""
    folder = tmp_path_factory.mktemp("lora")
    torch.manual_seed(0)
    base = image_model("vit", 16, 16, 3, num_labels=5)
    (base.vit if request.param == "a base without a head" else base).save_pretrained(folder / "base")
    names = dict(enumerate(KINDS))
    model = type(base).from_pretrained(folder / "base", num_labels=2, id2label=names, ignore_mismatched_sizes=True)
    layers = [name for name, module in model.vit.named_modules() if isinstance(module, torch.nn.Linear)]
    config = peft.LoraConfig(r=4, target_modules=[f"vit.{name}" for name in layers], modules_to_save=["classifier"])
    model = peft.get_peft_model(model, config)
    x, y = images()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        model(pixel_values=pixels(x), labels=torch.tensor(y)).loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder / "adapter")
    processor = ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor.save_pretrained(folder / "adapter")
    for i, (row, label) in enumerate(zip(x, y, strict=True)):
        file = folder / "pictures" / str(label) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row).save(file)
    return folder, model


def test_floats_in_unit_range_are_the_images_that_they_were_made_from() -> None:
    processor = ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    x, _ = images()
    model = image_model("vit", 16, 16, 3, num_labels=2)
    of_bytes, of_floats = (FloatRows(model, processor, data, None) for data in (np.stack(x), np.stack(x) / 255))
    for i in range(3):
        assert torch.allclose(of_floats[i]["pixel_values"], of_bytes[i]["pixel_values"], atol=1e-5)


def in_a_corner(patches: str) -> bool:
    """Whether they lie within the four pixels square at the start or the end of both axes."""
    ends = [int(end) for end in re.findall(r"\d+", patches)]
    return max(ends) < 4 or min(ends) >= 12


def test_an_adapter_of_an_image_classifier_is_loaded_as_it_was_trained(saved: tuple[Path, Any]) -> None:
    folder, trained = saved
    model, processor = load_float_classifier(str(folder / "adapter"))
    x = images(8)[0]
    assert torch.equal(processor(list(x), return_tensors="pt")["pixel_values"], pixels(x))
    with torch.no_grad():
        expected = trained(pixel_values=pixels(x)).logits
        assert torch.allclose(model(pixel_values=pixels(x)).logits, expected, atol=1e-5)
    assert expected.argmax(1).tolist() == [0, 1] * 4


def test_the_commands_read_an_adapter_of_an_image_classifier(
    saved: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, trained = saved
    cues([str(folder / "adapter"), "--file", str(folder / "pictures"), "--json", str(tmp_path / "cues.json")])
    report = json.loads((tmp_path / "cues.json").read_text())
    assert report["labelled"]
    assert report["as_is"]["accuracy"] == 1
    patches = [patch for cue in report["cues"] if cue["leaned_on"] for patch in cue["cue"].split(" + ")]
    assert patches
    assert all(in_a_corner(patch) for patch in patches), patches
    explain([str(folder / "adapter"), "--image", str(folder / "pictures/0/0.png"), "--json", str(tmp_path / "why.json")])
    (found,) = json.loads((tmp_path / "why.json").read_text())
    relevance = LRP(trained).attribute({"pixel_values": pixels(images(1)[0])}, target=0)[0]
    assert sum(found["relevance"]) == pytest.approx(float(relevance.sum()), abs=1e-3)
    assert in_a_corner(found["places"][0])


def test_class_names_come_from_a_config_beside_the_adapter(saved: tuple[Path, Any], tmp_path: Path) -> None:
    folder, trained = saved
    assert load_float_classifier(str(folder / "adapter"))[0].config.num_labels == 2
    trained.config.save_pretrained(folder / "adapter")
    try:
        model, _ = load_float_classifier(str(folder / "adapter"))
        assert model.config.id2label == dict(enumerate(KINDS))
        with torch.no_grad():
            assert torch.allclose(model(pixels(images(4)[0])).logits, trained(pixels(images(4)[0])).logits, atol=1e-5)
    finally:
        (folder / "adapter" / "config.json").unlink()


def test_an_adapter_without_a_trained_head_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = image_model("vit", 16, 16, 3, num_labels=2)
    ViTModel(base.config).save_pretrained(tmp_path / "base")
    model = type(base).from_pretrained(tmp_path / "base", num_labels=2)
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["vit.layers.0.mlp.fc1"])).save_pretrained(
        tmp_path / "lora"
    )
    np.savez(tmp_path / "data.npz", x=images(8)[0])
    with pytest.raises(SystemExit, match="2"):
        cues([str(tmp_path / "lora"), "--file", str(tmp_path / "data.npz")])
    assert "holds no trained classification head" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["cnn", "resnet", "vit"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_classifiers_in_half_precision_are_read(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    image_model(kind, 16, 16, 3, num_labels=2).to(dtype).save_pretrained(tmp_path)
    model, processor = load_float_classifier(str(tmp_path))
    assert next(model.parameters()).dtype == dtype
    x, y = images(20)
    rows = FloatRows(model, processor, x.astype(np.float32) / 255, [str(k) for k in y])
    assert cue_report(model, rows).rows_read == 20
    _, relevance = explain_places(model, rows[0]["pixel_values"].float())
    assert relevance.isfinite().all()


@pytest.mark.parametrize("of_base", [None, 5])
def test_an_adapter_of_a_decoder_reads_its_answer_where_training_did(of_base: int | None, tmp_path: Path) -> None:
    """The base model knows no padding token, or another one; Trainer sets it when training starts."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "vocab_size": len(tokenizer), "initializer_range": 0.5}
    base = GPT2ForSequenceClassification(GPT2Config(**sizes, num_labels=2, pad_token_id=of_base))
    base.save_pretrained(tmp_path / "base")
    trained = GPT2ForSequenceClassification.from_pretrained(tmp_path / "base")
    trained.config.pad_token_id = tokenizer.pad_token_id
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    trained = peft.get_peft_model(trained, config).eval()
    trained.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    model, read = load_text_classifier(str(tmp_path / "adapter"))
    texts = ["w1 w2 w3 w4 w5", "w6"]
    batch = tokenizer(texts, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        wanted = trained(**batch).logits.softmax(-1).amax(-1).tolist()
    assert [confidence for _, confidence in predict(model, read, texts)] == pytest.approx(wanted, abs=1e-5)


def test_without_a_padding_token_several_texts_are_refused_with_the_way_out(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ChallengerError, match="no padding token"):
        predict(tiny_bert(), tokenizer, ["w1 w2", "w3"])
