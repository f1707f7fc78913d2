"""Cards of runs on images, series and tokens: effective values, what was counted, and nothing that did not happen."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from tiny import tiny_config, tiny_tokenizer
from transformers import BertForTokenClassification, DataCollatorForTokenClassification

from hf_challenger import ChallengerConfig, ChallengerTrainer
from hf_challenger.attribution.methods import METHODS
from hf_challenger.data.rows import Rows
from hf_challenger.small_models import image_model, series_model

pytestmark = pytest.mark.usefixtures("any_confidence")
NAMES = {"num_labels": 2, "id2label": {0: "without", 1: "marked"}, "label2id": {"without": 0, "marked": 1}}
OF_LRP = ("LRP", "Relevance shows", "challenge_attribution", "challenge_composite")
MARKS = {"pixel_values": "rows 0 to 1, columns 0 to 1", "past_values": "steps 3 to 4"}
SIZES = {"pixel_values": "2", "past_values": "1"}  # of a unit: the image's patch, a 24th of the series
THRESHOLDS = {"pixel_values": "0.25", "past_values": "0.2"}


def marked(kind: str, rows: int = 96) -> Rows:
    """Noise, with a mark in the rows of class 1: two pixels square, or two time steps."""
    labels = np.arange(rows) % 2
    x = 0.3 * np.random.default_rng(0).random((rows, *((1, 8, 8) if kind == "pixel_values" else (24, 2))), dtype=np.float32)
    if kind == "pixel_values":
        x[labels == 1, :, :2, :2] = 1.0
    else:
        x[labels == 1, 3:5] = 3.0
    return Rows(x, labels, kind, "labels")


def trained(kind: str, config: Callable[..., ChallengerConfig], **options: Any) -> ChallengerTrainer:
    torch.manual_seed(0)
    images = kind == "pixel_values"
    model = image_model("cnn", 8, 8, 1, **NAMES) if images else series_model("fcn-small", 24, 2, **NAMES)
    settings = {"max_steps": 30, "per_device_train_batch_size": 16, "learning_rate": 3e-3, **options}
    run = ChallengerTrainer(model, config(**settings), train_dataset=marked(kind), eval_dataset=marked(kind))
    run.train()
    return run


def card_of(run: ChallengerTrainer) -> ModelCard:
    """As huggingface_hub reads it, which refuses metadata that are no model card's."""
    found = run.evaluate()
    run.create_model_card()
    card = ModelCard.load(Path(str(run.args.output_dir)) / "README.md")
    results = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert results == {name: found[f"eval_{name}"] for name in results}
    assert len(results) == sum(f"eval_{name}" in found for name in ("loss", "accuracy", "ece", "nll", "brier"))
    assert card.data.library_name == "transformers"
    return card


def options_of(card: ModelCard) -> dict[str, str]:
    return dict(re.findall(r"^\| `(challenge_\w+)` \| (.+) \|$", card.text, re.MULTILINE))


@pytest.mark.parametrize("kind", MARKS)
def test_cues_of_places_are_told_as_counted_with_the_values_that_acted(kind: str, config: Any) -> None:
    run = trained(kind, config, challenge_selection="cues", challenge_share=0.75, calibrate=True)
    card, counts = card_of(run), run._counter.total
    assert options_of(card) == {
        "challenge_share": "0.75",
        "challenge_selection": "cues",
        "challenge_threshold": THRESHOLDS[kind],
        "challenge_attribution": "lrp",
        "challenge_composite": "attnlrp",
        "challenge_perturbation": "swap",
        "challenge_unit_size": SIZES[kind],
    }
    assert counts.rows == 30 * 16
    told = f"In {counts.challenged} ({counts.challenged / counts.rows:.1%}) rows a cue was swapped for another row's."
    assert told in card.text
    rows = re.findall(r"^\| `(.+?)` \| (\w+) \| \d+% \| \d\.\d\d \| (\d+) \|$", card.text, re.MULTILINE)
    assert rows == [(cue.text, cue.class_name, str(cue.hidden_rows)) for cue in run.cues]
    assert any(MARKS[kind] in text and name == "marked" for text, name, _ in rows)
    temperature = run.model.config.calibration_temperature
    assert f"Logits are divided by {temperature:.3g}" in card.text
    assert "loading it takes that module" in card.text  # the class is not one of transformers
    assert "ordinary transformers model" not in card.text


@pytest.mark.parametrize("kind", MARKS)
def test_random_hiding_computes_no_relevance_and_claims_none(
    kind: str, config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("a random selection reads no relevance")

    monkeypatch.setitem(METHODS, "lrp", refused)
    run = trained(kind, config, challenge_selection="random", challenge_rate=0.25, max_steps=4)
    card = card_of(run)
    assert options_of(card) == {
        "challenge_share": "0.5",
        "challenge_selection": "random",
        "challenge_rate": "0.25",
        "challenge_perturbation": "mean",
        "challenge_unit_size": SIZES[kind],
    }
    units = {"pixel_values": "patches", "past_values": "blocks of time steps"}[kind]
    assert f"In 32 (50.0%) rows, 25% of the {units} were replaced by the mean: drawn at random" in card.text
    assert "## What was hidden in training" in card.text
    assert not [claim for claim in (*OF_LRP, "## Cues") if claim in card.text]


def test_where_no_cue_was_found_nothing_is_said_to_have_been_hidden(config: Any) -> None:
    run = trained("past_values", config, challenge_selection="cues", max_steps=2)
    assert run.cues == []
    card = card_of(run)
    assert "No cue was found, so that training was plain `Trainer`'s." in card.text
    assert "| cue |" not in card.text
    assert "Hiding inputs in training lowers accuracy" not in card.text


@pytest.mark.filterwarnings("ignore:Training goes on as with Trainer")
def test_token_classification_is_told_to_be_trained_as_by_trainer(tmp_path: Path) -> None:
    rows = [{"input_ids": [2, *range(5, 11), 3], "labels": [-100, *[i % 3] * 6, -100]} for i in range(16)]
    data, tokenizer = Dataset.from_list(rows), tiny_tokenizer()
    model_config = tiny_config()
    model_config.num_labels = 3
    args = ChallengerConfig(str(tmp_path), use_cpu=True, report_to="none", max_steps=2, disable_tqdm=True)
    run = ChallengerTrainer(
        BertForTokenClassification(model_config),
        args,
        train_dataset=data,
        eval_dataset=data,
        processing_class=tokenizer,
        data_collator=DataCollatorForTokenClassification(tokenizer),
    )
    run.train()
    card = card_of(run)
    assert card.data.pipeline_tag == "token-classification"
    assert "This model or task cannot be challenged: training was plain `Trainer`'s." in card.text
    assert options_of(card) == {}
    claims = (*OF_LRP, "## Cues", "CHALLENGER", "## Calibration", "temperature", "confidences")
    assert not [claim for claim in claims if claim in card.text]
