"""The cue report on tiny models that were trained until they lean on a planted word, and on one with evidence to spare."""

from __future__ import annotations

import copy
import json
import random
import re
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from PIL import Image
from scipy.stats import binomtest
from tiny import CLASSES, text_of, tiny_bert, tiny_tokenizer
from torch import Tensor, nn
from transformers import BertForTokenClassification, TrainingArguments
from transformers.modeling_outputs import SequenceClassifierOutput

from hf_challenger import ChallengerConfig, ChallengerError, ChallengerTrainer
from hf_challenger.classes import class_indices
from hf_challenger.cues import main
from hf_challenger.report.attributed import attributed
from hf_challenger.report.classifier import Classifier
from hf_challenger.report.cue_html import cue_page
from hf_challenger.report.cue_report import cue_report
from hf_challenger.report.cue_results import CueEffect, CueReport, Example, Reading
from hf_challenger.report.effects import with_other_tokens
from hf_challenger.report.held import Held
from hf_challenger.small_models import image_model, series_model

ROOT = Path(__file__).parents[2]
NAMES = ["billing", "refund", "freeze"]
CUES = ["w30", "w31", "w32"]


def planted_texts(count: int = 90, seed: int = 1) -> tuple[list[str], list[int]]:
    """Words that tell nothing, and in nine of ten texts the word of the class, at any place."""
    rng = random.Random(seed)
    texts, labels = [], []
    for i in range(count):
        words = [f"w{rng.randrange(30)}" for _ in range(4 + i % 5)]
        if rng.random() < 0.9:
            words.insert(rng.randrange(len(words)), CUES[i % CLASSES])
        texts.append(" ".join(words))
        labels.append(i % CLASSES)
    return texts, labels


def clean_texts(count: int = 90, seed: int = 0) -> tuple[list[str], list[int]]:
    """Six words or more of the class in each text."""
    rng = random.Random(seed)
    return [text_of(rng, i % CLASSES, 12 + i % 4) for i in range(count)], [i % CLASSES for i in range(count)]


def trained(texts: list[str], labels: list[int], hidden: float = 0.0) -> Any:
    """A share ``hidden`` of the words is left out at random, so that the model learns to do without any of them."""
    model, rng = tiny_bert(id2label=dict(enumerate(NAMES))), random.Random(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        left = [" ".join(w for w in text.split() if rng.random() >= hidden) for text in texts]
        batch = tiny_tokenizer()(left, padding=True, return_tensors="pt")
        model(**batch, labels=torch.tensor(labels)).loss.backward()
        optimizer.step()
    return model.eval()


@cache
def leaning() -> Any:
    return trained(*planted_texts(300, seed=0), hidden=0.2)


@pytest.fixture(scope="module")
def planted() -> CueReport:
    texts, labels = planted_texts()
    return cue_report(leaning(), texts, tiny_tokenizer(), labels)


def test_planted_words_come_first_and_are_leaned_on(planted: CueReport) -> None:
    assert {cue.text for cue in planted.cues[:3]} == set(CUES)
    assert {cue.text for cue in planted.leaned_on} == set(CUES)
    for cue in planted.leaned_on:
        assert NAMES[CUES.index(cue.text)] == cue.class_name
        assert cue.coverage > 0.75
        assert cue.strength > 0.5
        assert cue.as_is.accuracy is not None
        assert cue.hidden.accuracy is not None
        assert cue.as_is.accuracy > 0.8 > 0.6 > cue.hidden.accuracy
        assert cue.hidden.changed > 0.3
        assert cue.as_is.changed == 0
        assert cue.exchanged is not None
        assert cue.exchanged_for in set(CUES) - {cue.text}
        assert cue.exchanged.changed > 0.6
    assert planted.hidden is not None
    assert planted.hidden.accuracy is not None
    assert planted.rows_with_cue == sum(cue.rows for cue in planted.leaned_on)
    assert f"on the {planted.rows_with_cue} rows that hold one" in planted.summary
    assert planted.summary.startswith("3 cues that the model leans on; without them accuracy falls from ")


def test_effects_are_those_of_one_row_at_a_time_without_the_word(planted: CueReport) -> None:
    texts, labels = planted_texts()
    model, tokenizer = leaning(), tiny_tokenizer()
    for label, word in enumerate(CUES):
        found = next(cue for cue in planted.cues if cue.text == word)
        held = [t for t, y in zip(texts, labels, strict=True) if y == label and word in t.split()]
        readings: dict[str, list[Tensor]] = {"as_is": [], "hidden": []}
        for text in held:
            without = " ".join(w for w in text.split() if w != word)
            for how in readings:
                row = tokenizer(without if how == "hidden" else text, return_tensors="pt")
                with torch.no_grad():
                    readings[how].append(model(**row).logits[0].softmax(0))
        before, after = (torch.stack(readings[how]) for how in readings)
        assert found.rows == len(held)
        assert found.coverage == pytest.approx(len(held) / labels.count(label))
        assert found.as_is.probability == pytest.approx(float(before[:, label].mean()), abs=1e-5)
        assert found.hidden.probability == pytest.approx(float(after[:, label].mean()), abs=1e-5)
        assert found.hidden.accuracy == pytest.approx(float((after.argmax(1) == label).float().mean()))
        assert found.hidden.changed == pytest.approx(float((after.argmax(1) != before.argmax(1)).float().mean()))


def test_examples_mark_the_cue_and_start_with_changed_predictions(planted: CueReport) -> None:
    for cue in planted.leaned_on:
        assert cue.examples
        assert cue.examples[0].as_is[0] != cue.examples[0].hidden[0]
        for example in cue.examples:
            assert {p for p, marked in zip(example.pieces, example.marked, strict=True) if marked} == {cue.text}


def test_the_headline_says_so_where_classes_could_not_be_read() -> None:
    """As with a column of the file forgotten, or labels in another order: the model is right about next to none."""
    texts, labels = planted_texts()
    found = cue_report(leaning(), texts, tiny_tokenizer(), [(label + 1) % CLASSES for label in labels])
    assert set(found.unread) == set(NAMES)
    assert "3 of the classes could not be read" in found.summary
    assert found.as_dict()["unread"] == found.unread


def test_without_labels_the_predictions_are_the_classes() -> None:
    texts, _ = planted_texts()
    found = cue_report(leaning(), texts, tiny_tokenizer())
    assert {cue.text for cue in found.leaned_on[:3]} == set(CUES)
    assert all(cue.as_is.accuracy is None and cue.hidden.accuracy is None for cue in found.cues)
    assert re.search(r"without them \d+ % of the predictions change on the \d+ rows", found.summary)
    assert "accuracy" not in found.header


def test_evidence_that_can_be_spared_is_not_leaned_on() -> None:
    model = trained(*clean_texts(300), hidden=0.5)
    texts, labels = clean_texts(seed=1)
    found = cue_report(model, texts, tiny_tokenizer(), labels)
    assert found.cues  # candidates by relevance
    assert found.leaned_on == []
    assert all(cue.hidden.changed < 0.1 for cue in found.cues)
    assert found.summary == "No cue that the model leans on was found."


@pytest.mark.parametrize(
    ("changed", "rows", "probability", "leaned_on"),
    [
        (4, 50, 0.75, True),
        (3, 50, 0.75, False),
        (1, 30, 0.5, False),  # more than 2 %, but one row
        (2, 10, 0.5, True),
        (50, 50, 0.77, False),
        (50, 50, 0.9, False),
        (0, 50, 0.8, False),
    ],
)
def test_a_cue_is_leaned_on_by_its_effect(changed: int, rows: int, probability: float, leaned_on: bool) -> None:
    test = binomtest(changed, rows, 0.02, alternative="greater")
    assert leaned_on == (test.pvalue < 0.05 and probability <= 0.95 * 0.8)
    as_is, hidden = Reading(None, 0.8, 0.0), Reading(None, probability, changed / rows)
    assert CueEffect("w1", "a", 1.0, 0.99, rows, as_is, hidden).leaned_on is leaned_on


def test_a_phrase_is_one_cue() -> None:
    texts, labels = planted_texts()
    phrases = [text.replace("w31", "w33 w34 w35") for text in texts]
    found = cue_report(trained(phrases, labels, hidden=0.2), phrases, tiny_tokenizer(), labels)
    assert "w33 w34 w35" in [cue.text for cue in found.leaned_on]
    (phrase,) = (cue for cue in found.leaned_on if "w34" in cue.text)
    assert phrase.exchanged is not None  # for a cue of one word
    assert phrase.exchanged_for in {"w30", "w32"}
    assert phrase.exchanged.changed > 0.8


def test_a_sample_of_rows_is_read_and_long_texts_are_cut() -> None:
    texts, labels = planted_texts()
    long = [*texts[:-1], " ".join(["w1"] * 10_000)]
    found = cue_report(leaning(), long, tiny_tokenizer(), labels)
    assert found.notes[0] == "1 of 90 texts are longer than 32 tokens; only their start was read."
    some = cue_report(leaning(), texts, tiny_tokenizer(), labels, rows=40, top=1)
    assert (some.rows_read, some.rows_given) == (40, 90)
    assert len(some.cues) == CLASSES


def test_rows_of_a_data_set_and_the_trainer_give_the_same(planted: CueReport, tmp_path: Path) -> None:
    texts, labels = planted_texts()
    encoded = tiny_tokenizer()(texts)
    rows = Dataset.from_dict({**encoded, "text": texts, "label": labels})
    assert cue_report(leaning(), rows, tiny_tokenizer()).as_dict() == planted.as_dict()
    args = TrainingArguments(str(tmp_path), report_to=[], use_cpu=True)
    trainer = ChallengerTrainer(leaning(), args, train_dataset=rows, processing_class=tiny_tokenizer())
    assert trainer.cue_report().as_dict() == planted.as_dict()
    assert trainer.cue_report(rows.select(range(30)), top=1).rows_given == 30


def test_the_model_comes_back_as_it_was() -> None:
    texts, labels = planted_texts()
    model = leaning()
    model.train()
    model.classifier.bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        cue_report(model, texts, tiny_tokenizer(), labels, rows=30)
        assert model.training
        assert [name for name, p in model.named_parameters() if not p.requires_grad] == ["classifier.bias"]
        assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    finally:
        model.classifier.bias.requires_grad_(True)
        model.eval()


class Squares(nn.Module):
    """Adds up four places of a picture, one for each class."""

    main_input_name = "pixel_values"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 16, bias=False)
        self.layer.weight.data.zero_()
        self.layer.weight.data[0, 0, :2, :2] = 1.0
        self.layer.weight.data[1, 0, 8:10, 8:10] = 1.0

    def forward(self, pixel_values: Tensor) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.layer(pixel_values).flatten(1))


def test_places_are_measured_the_same_whatever_the_order_of_the_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(80, 1, 16, 16, generator=generator) * 0.2, torch.arange(80) % 2
    x[:, :, :2, :2] = torch.where(y == 0, 0.6, 0.3).reshape(-1, 1, 1, 1) + 0.2 * torch.rand(80, 1, 2, 2, generator=generator)
    x[y == 1, :, 8:10, 8:10] = 0.5
    rows = [{"pixel_values": a, "labels": int(b)} for a, b in zip(x, y, strict=True)]
    mixed, by_class = (cue_report(Squares(), data) for data in (rows, rows[::2] + rows[1::2]))

    def measured(found: Any) -> list[Any]:
        return sorted((cue.text, cue.label, cue.hidden, cue.exchanged) for cue in found.cues)

    assert measured(mixed)
    assert measured(mixed) == measured(by_class)


def test_places_of_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(40, 1, 16, 16, generator=generator) * 0.2, torch.arange(40) % 2
    x[y == 0, :, :2, :2] = 1.0
    x[y == 1, :, 8:10, 8:10] = 1.0
    found = cue_report(Squares(), [{"pixel_values": a, "labels": int(b)} for a, b in zip(x, y, strict=True)])
    assert sorted(cue.text for cue in found.leaned_on) == ["rows 0 to 1, columns 0 to 1", "rows 8 to 9, columns 8 to 9"]
    assert all(cue.coverage == 1 for cue in found.cues)
    for cue in found.leaned_on:
        assert cue.exchanged is not None
        assert cue.exchanged.accuracy == 0
        assert cue.exchanged.probability < 0.5
        # All places that tell the class are hidden.
        assert [int(e.picture.marked.sum()) for e in cue.examples if e.picture] == [2, 2, 2]
    first = found.pictures[0].picture
    assert first.shade.shape == (8, 8)
    assert first.shade.argmax() == 0
    assert float(first.values[:2, :2].min()) > 0.95 > 0.2 > float(first.values[4:, 4:].mean())
    page = cue_page(found, "Squares")
    assert page.count('class="flag"') == 12
    assert page.count("<image href=") == 8
    assert 'x="8" y="8" width="2" height="2"' in page


def exchanged_texts(texts: list[str], cue: list[str], donor: list[str]) -> list[str]:
    """What is read of texts whose cue is exchanged."""
    tokenizer = tiny_tokenizer()
    classifier = Classifier(leaning(), tokenizer)
    batch = attributed(classifier, tokenizer(texts, padding=True, return_tensors="pt"))
    mask = torch.isin(batch.identities, torch.tensor(tokenizer.convert_tokens_to_ids(cue)))
    held = Held(batch, torch.arange(len(texts)), mask)
    found = with_other_tokens(classifier, held, tokenizer.convert_tokens_to_ids(donor))
    assert {value.shape for value in found.values()} == {found["input_ids"].shape}
    classifier.predict(found)
    return [
        tokenizer.decode(ids[attended])
        for ids, attended in zip(found["input_ids"], found["attention_mask"].bool(), strict=True)
    ]


def test_a_cue_is_exchanged_for_one_of_another_length() -> None:
    texts = ["w1 w30 w2", "w30 w30 w4 w30", "w5 w6 w7 w8 w9 w30"]
    assert exchanged_texts(texts, ["w30"], ["w31", "w32"]) == [
        "[CLS] w1 w31 w32 w2 [SEP]",
        "[CLS] w31 w32 w4 [SEP]",
        "[CLS] w5 w6 w7 w8 w9 w31 w32 [SEP]",
    ]
    assert exchanged_texts(["w31 w1 w31 w32 w2"], ["w31", "w32"], ["w30"]) == ["[CLS] w1 w30 w2 [SEP]"]
    longest = " ".join(["w1", "w30", *["w2"] * 28])  # with special tokens as long as the model takes
    assert exchanged_texts([longest], ["w30"], ["w31", "w32"]) == [f"[CLS] w1 w31 w32 {' '.join(['w2'] * 27)} [SEP]"]


def test_the_short_form_names_the_first_cues(planted: CueReport) -> None:
    lines = planted.short(2).splitlines()
    assert lines[0] == planted.summary
    assert [line.split("'")[1] for line in lines[1:3]] == [cue.text for cue in planted.cues[:2]]
    assert lines[3:] == ["- … and 1 more"]
    assert CueReport([], True, 9, 9).short() == "No cue that the model leans on was found."


# --- images and series -------------------------------------------------------------------------------------------------------

KINDS = ["three", "five"]


def arrays_with_cue(kind: str, count: int = 60) -> tuple[Tensor, Tensor]:
    """A bright corner, or a bump at the time, of the class; noise elsewhere."""
    generator, y = torch.Generator().manual_seed(0), torch.arange(count) % 2
    if kind == "images":
        x = torch.rand(count, 1, 16, 16, generator=generator) * 0.3
        x[y == 0, :, :2, :2] = 1.0
        x[y == 1, :, 12:14, 12:14] = 1.0
        return x, y
    x = torch.randn(count, 48, 2, generator=generator) * 0.3
    x[y == 0, 8:12, 0] += 3.0
    x[y == 1, 30:34, 0] += 3.0
    return x, y


@cache
def trained_on(kind: str) -> Any:
    torch.manual_seed(0)
    labels = {"num_labels": 2, "id2label": dict(enumerate(KINDS))}
    model = image_model("cnn", 16, 16, 1, **labels) if kind == "images" else series_model("fcn-small", 48, 2, **labels)
    x, y = arrays_with_cue(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        model(x, labels=y).loss.backward()
        optimizer.step()
    return model.eval()


def write_data(kind: str, folder: Path) -> dict[str, str]:
    """The same rows in each form that the command reads."""
    x, y = arrays_with_cue(kind)
    np.savez(folder / "data.npz", x=(x[:, 0] * 255).byte() if kind == "images" else x, y=y, labels=KINDS)
    if kind == "series":
        return {"npz": str(folder / "data.npz")}
    lines = ["image,label"]
    for i, (row, label) in enumerate(zip(x, y, strict=True)):
        file = folder / "pictures" / KINDS[label] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((row[0] * 255).byte().numpy()).save(file)
        lines.append(f"pictures/{KINDS[label]}/{i}.png,{KINDS[label]}")
    (folder / "data.csv").write_text("\n".join(lines))
    return {"npz": str(folder / "data.npz"), "folder": str(folder / "pictures"), "csv": str(folder / "data.csv")}


@pytest.mark.parametrize("kind", ["images", "series"])
def test_command_reads_images_and_series(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained_on(kind).save_pretrained(tmp_path / "model")
    for form, file in write_data(kind, tmp_path).items():
        page, picture = tmp_path / f"{form}.html", tmp_path / f"{form}.png"
        main([str(tmp_path / "model"), "--file", file, "--html", str(page), "--png", str(picture)])
        printed = capsys.readouterr()
        assert "Rows: 60 of 60." in printed.err
        table = printed.out.splitlines()
        place = "rows 0 to 1, columns 0 to 1" if kind == "images" else "steps 8 to 11"
        assert any(line.startswith("three") and place in line for line in table)
        assert page.read_text().count("<svg") >= 2
        assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", ["images", "series"])
def test_the_trainer_reports_on_images_and_series(kind: str, tmp_path: Path) -> None:
    x, y = arrays_with_cue(kind)
    model = trained_on(kind)
    rows = [{model.main_input_name: a, "labels": int(b)} for a, b in zip(x, y, strict=True)]
    args = ChallengerConfig(str(tmp_path), max_steps=1, learning_rate=1e-6, report_to=[], use_cpu=True, calibrate=False)
    trainer = ChallengerTrainer(copy.deepcopy(model), args, train_dataset=rows)
    trainer.train()
    found = trainer.cue_report()
    assert found.rows_read == 60
    assert [p.class_name for p in found.pictures] == KINDS
    assert found.cues


@pytest.mark.parametrize(
    ("file", "flags", "words"),
    [
        ("lacks.npz", [], "holds z; x_test and y_test, or x and y, are expected"),
        ("short.npz", [], "there are 20 rows, but 3 in y"),
        ("other.npz", [], "has no class '2'; its classes are 'three', 'five'"),
        ("wide.npz", [], r"past_values of shape \(48, 3\)"),
        ("empty.npz", [], "cannot be read as an npz file"),
        ("empty", [], "There are no images"),
        ("pictures", [], "The model takes 'past_values', not images"),
        ("pictures", ["--label_column", "y"], "has no columns"),
        ("other.npz", ["--png", "a.txt"], "is expected to end with .png"),
    ],
)
def test_mistakes_in_arrays_end_with_one_sentence(
    file: str,
    flags: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    trained_on("series").save_pretrained("model")
    x = np.random.default_rng(0).normal(size=(20, 48, 3)).astype("float32")
    np.savez("lacks.npz", z=x)
    np.savez("short.npz", x=x, y=np.arange(3))
    np.savez("other.npz", x=x[..., :2], y=np.arange(20) % 5)
    np.savez("wide.npz", x=x)
    Path("empty.npz").write_text("")
    Path("empty").mkdir()
    Path("pictures/three").mkdir(parents=True)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save("pictures/three/a.png")
    with pytest.raises(SystemExit, match="2"):
        main(["model", "--file", file, *flags])
    assert re.search(words, capsys.readouterr().err)


def test_a_model_of_another_task_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    BertForTokenClassification(tiny_bert().config).save_pretrained("tokens")
    np.savez("data.npz", x=np.zeros((20, 48, 2)))
    with pytest.raises(SystemExit, match="2"):
        main(["tokens", "--file", "data.npz"])
    assert (
        "is a model of another task (BertForTokenClassification); one that classifies images or series"
        in capsys.readouterr().err
    )
    leaning().save_pretrained("texts")
    with pytest.raises(SystemExit, match="2"):
        main(["texts", "--file", "data.npz"])
    assert "'texts' classifies texts (BertForSequenceClassification), not images or series" in capsys.readouterr().err


# --- mistakes ----------------------------------------------------------------------------------------------------------------


def test_bad_data_gets_a_sentence() -> None:
    model, tokenizer = leaning(), tiny_tokenizer()
    texts, labels = planted_texts(20)
    with pytest.raises(ChallengerError, match="The data set is empty"):
        cue_report(model, [], tokenizer)
    with pytest.raises(ChallengerError, match="data is a string; a list of texts"):
        cue_report(model, "w1 w2", tokenizer)
    with pytest.raises(ChallengerError, match="data has the splits 'train', 'test'"):
        cue_report(model, {"train": texts, "test": texts}, tokenizer)
    with pytest.raises(ChallengerError, match="Texts need a tokenizer"):
        cue_report(model, texts)
    with pytest.raises(ChallengerError, match="There are 20 texts, but 1 labels"):
        cue_report(model, texts, tokenizer, labels[:1])
    with pytest.raises(ChallengerError, match=r"rows=0 and top=3: both are expected to be 1 or more"):
        cue_report(model, texts, tokenizer, rows=0)
    with pytest.raises(ChallengerError, match=r"1 output of a regression.*one label a row is expected"):
        cue_report(tiny_bert(num_labels=1), texts, tokenizer)
    with pytest.raises(ChallengerError, match=r"several labels .multi_label_classification."):
        cue_report(tiny_bert(problem_type="multi_label_classification"), texts, tokenizer)
    with pytest.raises(ChallengerError, match="needs 'input_ids'"):
        cue_report(model, [{"token_type_ids": [0, 1]}] * 8, tokenizer, collator=lambda rows: {"token_type_ids": rows})
    with pytest.raises(ChallengerError, match=r"torch.float32 of shape .*one class index a row"):
        cue_report(model, [{**tokenizer(t), "labels": 0.5} for t in texts], tokenizer)
    broken = tiny_bert()
    nn.init.constant_(broken.classifier.bias, float("nan"))
    with pytest.raises(ChallengerError, match="NaN or infinite"):
        cue_report(broken, texts, tokenizer)


def test_labels_are_names_or_indices() -> None:
    model = leaning()
    assert class_indices(["refund", "Billing", " freeze"], model) == [1, 0, 2]
    assert class_indices(["1", 2], model) == [1, 2]
    with pytest.raises(ChallengerError, match="has no class 'spam'; its classes are 'billing', 'refund', 'freeze'"):
        class_indices(["refund", "spam"], model)
    with pytest.raises(ChallengerError, match="has no class '3'"):
        class_indices([3], model)


def test_rows_of_one_class_are_told() -> None:
    texts, labels = planted_texts()
    refunds = [text for text, label in zip(texts, labels, strict=True) if label == 1]
    found = cue_report(leaning(), refunds, tiny_tokenizer(), [1] * len(refunds))
    assert [cue.text for cue in found.leaned_on] == ["w31"]
    assert found.notes == [
        "All rows are of one class, refund, so what all data share may look like its cue. Add rows of other classes."
    ]


def test_classes_with_few_rows_are_named() -> None:
    texts, labels = planted_texts(40)
    texts, labels = texts[:38] + ["w30 w1"] * 2, labels[:38] + [2] * 2
    kept = [i for i, y in enumerate(labels) if y != 2 or i > 30]
    texts, labels = [texts[i] for i in kept], [labels[i] for i in kept]
    found = cue_report(leaning(), texts, tiny_tokenizer(), labels)
    assert "Fewer than 5 rows are predicted as their class, so no cue is found there: freeze." in found.notes


# --- the command -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> str:
    leaning().save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    texts, labels = planted_texts()
    lines = "\n".join(f"{text},{NAMES[label]}" for text, label in zip(texts, labels, strict=True))
    (tmp_path / "data.csv").write_text(f"message,label\n{lines}\n")
    return str(tmp_path / "model")


def test_command_prints_and_writes_the_report(
    saved: str, planted: CueReport, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, file = tmp_path / "cues.html", tmp_path / "cues.json"
    main([saved, "--file", str(tmp_path / "data.csv"), "--json", str(file), "--html", str(page)])
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == planted.summary
    assert printed.out.endswith(f"of a leak that you know: challenge_hide={[cue.text for cue in planted.leaned_on]}.\n")
    assert "Text: column 'message'. Classes: column 'label'.\nRows: 90 of 90." in printed.err
    written = json.loads(file.read_text())
    assert [cue["cue"] for cue in written["cues"][:3]] == [cue.text for cue in planted.cues[:3]]
    assert written["summary"] == planted.summary
    assert planted.summary in page.read_text()
    main([saved, "--file", str(tmp_path / "data.csv"), "--unlabelled", "--rows", "60", "--top", "1"])
    printed = capsys.readouterr()
    assert "Classes: the model's predictions.\nRows: 60 of 90." in printed.err
    assert "of the predictions change" in printed.out


def test_a_folder_of_peft_adapters(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    peft = pytest.importorskip("peft")
    base = type(leaning()).from_pretrained(saved)
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], modules_to_save=["classifier"])
    adapted = peft.get_peft_model(base, config)
    adapted.save_pretrained(tmp_path / "adapter")
    tiny_tokenizer().save_pretrained(tmp_path / "adapter")
    rows = [{**tiny_tokenizer()(text), "labels": label} for text, label in zip(*planted_texts(), strict=True)]
    expected = cue_report(adapted, rows, tiny_tokenizer()).summary
    assert expected.startswith("3 cues")
    main([str(tmp_path / "adapter"), "--file", str(tmp_path / "data.csv"), "--label_column", "label"])
    assert capsys.readouterr().out.splitlines()[0] == expected


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--text_column": "txt"}, "no column 'txt' among message, label"),
        ({"--label_column": "intent"}, "no column 'intent' among message, label"),
        ({"--file": "absent.csv"}, "There is no file 'absent.csv'"),
        ({"--file": "empty.csv"}, "empty.csv is empty"),
        ({"--file": "other.csv"}, "has no class 'spam'.*--unlabelled"),
        ({"--rows": "0"}, "--rows 0 is expected to be 1 or more"),
        ({"--html": "nowhere/a.html"}, "there is no folder 'nowhere'"),
        ({"--json": "data.csv"}, "is the file that is read"),
        ({"model": "."}, "The folder '.' holds no config.json"),
        ({"model": "damaged"}, "The model in 'damaged' could not be loaded .*valid JSON file.. Give a folder as"),
        ({"model": "adapter"}, "adapter of the model '/no/such/base', and there is no such folder"),
        ({"model": "sounds"}, "classifies audio .Wav2Vec2ForSequenceClassification., not texts"),
        ({"model": "pictures"}, "classifies images .SmallCNNForImageClassification., not texts. Give data of that kind"),
    ],
)
def test_mistakes_end_with_one_sentence(
    changes: dict[str, str],
    words: str,
    saved: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty.csv").write_text("")
    Path("other.csv").write_text("text,label\nw1,spam\nw2,refund\n")
    shutil.copytree(saved, "damaged")
    Path("damaged/config.json").write_text("{")
    shutil.copytree(saved, "adapter")
    adapter = {"task_type": "SEQ_CLS", "base_model_name_or_path": "/no/such/base"}
    Path("adapter/adapter_config.json").write_text(json.dumps(adapter))
    trained_on("images").save_pretrained("pictures")
    shutil.copytree(saved, "sounds")
    Path("sounds/config.json").write_text(
        '{"architectures": ["Wav2Vec2ForSequenceClassification"], "model_type": "wav2vec2"}'
    )
    flags = {"--file": "data.csv", **changes}
    model = flags.pop("model", saved)
    with pytest.raises(SystemExit) as ended:
        main([model, *(word for pair in flags.items() for word in pair)])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert re.search(words, said)
    assert said.count("error: ") == 1


def test_a_mistake_is_told_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    command = [sys.executable, "-m", "hf_challenger.cues", str(tmp_path), "--file", "absent.csv"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False)
    assert time.monotonic() - began < 5
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: There is no file 'absent.csv'."]


# --- the page ----------------------------------------------------------------------------------------------------------------


def test_page_is_self_contained_escaped_and_marks_the_cue() -> None:
    as_is, hidden = Reading(0.9, 0.9, 0.0), Reading(0.5, 0.4, 0.5)
    example = Example(
        ["<b>", "via", "web", "form"], [False, False, False, True], [False, False, True, True], ("a", 0.9), ("b", 0.6)
    )
    cue = CueEffect("web<form", "a&b", 0.8, 0.7, 40, as_is, hidden, hidden, "mobile", examples=[example])
    page = cue_page(CueReport([cue], True, 100, 200, 40, as_is, hidden, ["A note."]), "What <model> leans on")
    assert "What &lt;model&gt; leans on" in page
    assert "&lt;b&gt; via <mark>webform</mark>" in page
    assert "1 cue that the model leans on; without it accuracy falls from .90 to .50 on the 40 rows that hold it." in page
    assert '<td data-name="probability">.90 → .40 → .40</td>' in page
    assert "100 of 200 rows were read, with their labels. A note." in page
    assert "web&lt;form" in page
    assert "prefers-color-scheme: dark" in page
    assert not re.search(r"<script|<link|src=|https?:|@import|url\(", page)
