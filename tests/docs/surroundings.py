"""What the pages' code finds: small models and data under the names that a page speaks of, and checks of what it left.

A function a page: it gets the working folder, yields the page's names, and goes on when all of its blocks have run.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from accelerate import Accelerator
from tiny import LEAK_WORDS, text_of, tiny_batch, tiny_bert, tiny_config, tiny_data, tiny_tokenizer
from transformers import BertModel

from hf_challenger import LRP, ChallengeOptions, Challenger, ChallengerConfig, ChallengerTrainer, command_line
from hf_challenger.attribution.methods import METHODS
from hf_challenger.challenge import challenger

Names = Iterator[dict[str, Any]]


def encoder(folder: Path) -> None:
    """A tiny pretrained encoder, found in place of the Hub's: a folder of that name comes first."""
    place = folder / "sentence-transformers" / "all-MiniLM-L6-v2"
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(LEAK_WORDS)  # pages name them as a leak
    BertModel(tiny_config(vocab_size=len(tokenizer))).save_pretrained(place)
    tokenizer.save_pretrained(place)


@contextmanager
def packaged(folder: Path) -> Iterator[None]:
    """The tiny encoder in place of the packaged one."""
    encoder(folder)
    real = command_line.packaged_encoder
    command_line.packaged_encoder = lambda: str(folder / "sentence-transformers" / "all-MiniLM-L6-v2")
    try:
        yield
    finally:
        command_line.packaged_encoder = real


def quick_start(folder: Path) -> None:
    """What the quick start saves: two classifiers and two files."""
    for name in ("plain", "challenger"):
        model = tiny_bert(id2label={0: "freeze", 1: "refund", 2: "pay"})
        model.save_pretrained(folder / "outputs" / "quickstart" / name)
        tiny_tokenizer().save_pretrained(folder / "outputs" / "quickstart" / name)
    csv_files(folder / "outputs" / "quickstart", {"train.csv": 48, "validation.csv": 30})


def csv_files(folder: Path, sizes: Mapping[str, int] = MappingProxyType({"train.csv": 48, "test.csv": 16})) -> None:
    rng = random.Random(0)
    for name, rows in sizes.items():
        with (folder / name).open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows([text_of(rng, i % 2, 6), ("freeze", "refund")[i % 2]] for i in range(rows))


def small_trainer(folder: Path, **options: Any) -> ChallengerTrainer:
    settings = {"use_cpu": True, "report_to": "none", "max_steps": 2, "logging_steps": 1, **options}
    parts = {"train_dataset": tiny_data(), "eval_dataset": tiny_data(12, seed=1), "processing_class": tiny_tokenizer()}
    return ChallengerTrainer(tiny_bert(), ChallengerConfig(str(folder / "out"), **settings), **parts)


def readme(folder: Path) -> Names:
    encoder(folder)
    quick_start(folder)
    names: dict[str, Any] = {"train": tiny_data(), "test": tiny_data(12, seed=1)}
    yield names
    assert isinstance(names["trainer"].cues, list)


def quickstart(folder: Path) -> Names:
    quick_start(folder)
    csv_files(folder)
    (folder / "tickets.csv").write_text((folder / "train.csv").read_text())
    (folder / "new.csv").write_text("text\nw1 w2\n")
    names: dict[str, Any] = {}
    with packaged(folder):
        yield names
    assert (folder / "answers.csv").read_text().startswith("text,label,confidence\nw1 w2,")
    assert names["trainer"].model.config.id2label == {0: "freeze", 1: "refund"}
    assert (folder / "my-model" / "model.safetensors").is_file()
    assert (folder / "my-model" / "cues.json").is_file()


def leaks(folder: Path) -> Names:
    quick_start(folder)
    names: dict[str, Any] = {}
    with packaged(folder):
        yield names
    assert names["trainer"].model.config.id2label == {0: "freeze", 1: "refund"}
    assert (folder / "without-cues" / "cues.json").is_file()
    assert names["args"].challenge_hide == names["leaks"]
    assert ChallengeOptions.of(names["args"]).without_effect() == []


def attribution(folder: Path) -> Names:
    quick_start(folder)
    names: dict[str, Any] = {}
    yield names
    assert names["per_token"].shape == names["batch"]["input_ids"].shape
    assert names["own"].shape == names["x"].shape


def lrp(folder: Path) -> Names:
    quick_start(folder)
    names: dict[str, Any] = {}
    yield names
    shape = names["batch"]["input_ids"].shape
    assert {names[name].shape for name in ("difference", "gradient_based")} == {shape}
    assert names["middle"].shape == (*shape, 16)


def explain(folder: Path) -> Names:
    quick_start(folder)
    yield {}
    assert (folder / "heatmap.png").read_bytes().startswith(b"\x89PNG")


def cue_report(folder: Path) -> Names:
    names: dict[str, Any] = {
        "trainer": small_trainer(folder),
        "model": tiny_bert(id2label={0: "freeze", 1: "refund", 2: "pay"}),
    }
    names["model"].save_pretrained(folder / "my-model")
    tiny_tokenizer().save_pretrained(folder / "my-model")
    csv_files(folder)
    names |= {"tokenizer": tiny_tokenizer(), "texts": ["w1 w2", "w7 w8"] * 10, "labels": ["freeze", "refund"] * 10}
    yield names
    assert "What my-model leans on in test.csv" in (folder / "cues.html").read_text()
    assert (folder / "cues.json").is_file()


def trainer(folder: Path) -> Names:
    names: dict[str, Any] = {"model": tiny_bert(), "tokenizer": tiny_tokenizer()}
    sure, challenger.SURE = challenger.SURE, 0.0  # two epochs make a tiny model sure of nothing
    try:
        yield names | {"train": tiny_data(), "test": tiny_data(12, seed=1)}
    finally:
        challenger.SURE = sure
    assert (folder / "rows.png").stat().st_size > 1000
    assert (folder / "out" / "cues.json").is_file()
    assert (folder / "out" / "model.safetensors").is_file()


def logging(folder: Path) -> Names:
    names: dict[str, Any] = {"trainer": small_trainer(folder)}
    yield names
    assert "PictureCallback" in {type(c).__name__ for c in names["trainer"].callback_handler.callbacks}


def hub(folder: Path) -> Names:
    yield {"trainer": small_trainer(folder), "tokenizer": tiny_tokenizer(), "test": tiny_data(12)}
    card = (folder / "out" / "README.md").read_text()
    assert "plain `Trainer`" in card
    assert "- clinc/clinc_oos" in card
    assert (folder / "out" / "pictures" / "reliability_diagram.png").is_file()
    assert (folder / "out" / "pictures" / "heat_map_1.png").is_file()


def calibration(folder: Path) -> Names:
    names: dict[str, Any] = {}
    with packaged(folder):
        yield names
    assert names["trainer"].state.log_history[-1]["calibration_temperature"] > 0
    assert (folder / "reliability.png").stat().st_size > 1000


def temperature(folder: Path) -> Names:
    names: dict[str, Any] = {"trainer": small_trainer(folder), "labelled": tiny_data(40, seed=2)}
    before = names["trainer"].model.classifier.weight.detach().clone()
    yield names
    torch.testing.assert_close(names["trainer"].model.classifier.weight, before / names["temperature"])
    assert names["trainer"].model.config.calibration_temperature == names["temperature"]


def extend(folder: Path) -> Names:
    batch = tiny_batch()
    del batch["labels"]
    names: dict[str, Any] = {"model": tiny_bert().eval(), "batch": batch}
    yield names
    assert not torch.allclose(names["other"], LRP(names["model"]).attribute(batch, target=0))
    challenged = names["challenged"]
    assert challenged.challenged.any()
    assert set(challenged.drop_mask[challenged.challenged].sum(1).tolist()) == {2}
    assert Challenger(names["table"], names["options"]).units.text_of([0, 4]) == "column 0, column 4"
    series = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
    options = ChallengeOptions(
        challenge_selection="lowest", challenge_share=1.0, challenge_units="fading_series", challenge_perturbation="fade"
    )
    x = 10 * torch.randn(40, 24, 2)
    faded = Challenger(series, options).challenge({"input": x}, series(x).argmax(1), step=0).inputs["input"]
    hidden = faded != x
    assert hidden.any()
    torch.testing.assert_close(faded[hidden], 0.1 * x[hidden])


def rules(folder: Path) -> Names:
    batch = tiny_batch()
    labels = batch.pop("labels")
    names: dict[str, Any] = {"model": tiny_bert().eval(), "batch": batch, "labels": labels}
    yield names
    try:
        tokens = LRP(names["model"]).attribute(batch, target=labels).sum(-1)
        assert not torch.allclose(names["tokens_and_places"], tokens)
        other = METHODS["pa_lrp"](names["model"], batch, labels, "attnlrp").sum(-1)
        torch.testing.assert_close(other, names["tokens_and_places"])
    finally:
        METHODS.pop("pa_lrp", None)


def plain_loop(folder: Path) -> Names:
    names: dict[str, Any] = {"model": tiny_bert(), "tokenizer": tiny_tokenizer(), "loader": [tiny_batch()]}
    names |= {"accelerator": Accelerator(cpu=True)}
    yield names | {"Challenger": Challenger, "ChallengeOptions": ChallengeOptions}
    assert names["model"].classifier.weight.grad.abs().sum() > 0


def text_example(folder: Path) -> Names:
    csv_files(folder)
    (folder / "tickets.csv").write_text((folder / "train.csv").read_text())
    yield {}
    assert (folder / "answers.csv").read_text().startswith("text,given_label,label,confidence\n")
    assert "| `ChallengerTrainer` |" in (folder / "outputs" / "text_classification" / "results.md").read_text()


def nothing(folder: Path) -> Names:
    yield {}


SURROUNDINGS: dict[str, Callable[[Path], Names]] = {
    "README.md": readme,
    "docs/quickstart.md": quickstart,
    "docs/leaks.md": leaks,
    "docs/attribution.md": attribution,
    "docs/cue_report.md": cue_report,
    "docs/trainer.md": trainer,
    "docs/logging.md": logging,
    "docs/hub.md": hub,
    "docs/calibration.md": calibration,
    "docs/temperature.md": temperature,
    "docs/lrp.md": lrp,
    "docs/explain.md": explain,
    "docs/extend.md": extend,
    "docs/rules.md": rules,
    "examples/plain_loop/README.md": plain_loop,
    "examples/text_classification/README.md": text_example,
}
