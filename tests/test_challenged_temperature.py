"""Confidences calibrated on challenged training rows: by hand, in the trainer, and where it cannot be done."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.optimize import minimize_scalar
from tiny import tiny_bert, tiny_data, tiny_rows, tiny_tokenizer
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from hf_challenger import ChallengerConfig, ChallengerTrainer
from hf_challenger.attribution import LRP
from hf_challenger.challenged_temperature import challenged_temperature
from hf_challenger.errors import ChallengerError, ChallengerWarning
from hf_challenger.temperature import apply_temperature

Make = Callable[..., ChallengerTrainer]
DEFAULT = {"challenge_share": None, "challenge_temperature": None, "max_steps": 8}


def batches(rows: int = 24, size: int = 8) -> list[dict[str, torch.Tensor]]:
    data, tokenizer = tiny_rows(rows), tiny_tokenizer()
    return [dict(tokenizer.pad(data[i : i + size], return_tensors="pt")) for i in range(0, rows, size)]


def by_hand(model: Any, rows: list[dict[str, Any]], rate: float) -> float:
    """Row after row, unpadded, in float64: hide the most relevant words, then minimise the NLL over log T."""
    logits, labels = [], []
    for row in rows:
        ids, label = torch.tensor([row["input_ids"]]), row["labels"]
        words = range(1, ids.shape[1] - 1)
        relevance = LRP(model).attribute({"input_ids": ids}, target=label).sum(-1)[0]
        count = max(1, int(len(words) * rate + 0.5))
        hidden = sorted(words, key=lambda i: -float(relevance[i]))[: min(count, len(words) - 1)]
        mask = torch.ones_like(ids)
        mask[0, hidden] = 0
        logits.append(model(input_ids=ids, attention_mask=mask).logits[0].detach().numpy())
        labels.append(label)

    def nll(log_t: float) -> float:
        z = np.array(logits) / np.exp(log_t)
        return float(np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels]))

    return float(np.exp(minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9}).x))


@pytest.mark.parametrize("rate", [0.2, 0.5])
def test_it_is_the_one_found_by_hand(rate: float) -> None:
    model = tiny_bert().double().eval()
    found = challenged_temperature(model, batches(), processing_class=tiny_tokenizer(), rate=rate, selection="top")
    assert found == pytest.approx(by_hand(model, tiny_rows(24), rate), rel=1e-4)


def test_batches_of_another_size_give_the_same() -> None:
    model, tokenizer = tiny_bert().double().eval(), tiny_tokenizer()
    found = [
        challenged_temperature(model, batches(24, size), processing_class=tokenizer, seed=seed)
        for seed, size in ((0, 8), (0, 5), (0, 24), (1, 8))
    ]
    assert found[1:3] == pytest.approx([found[0]] * 2, rel=1e-6)
    assert found[3] != pytest.approx(found[0], rel=1e-3)


def test_model_and_random_numbers_are_left_as_they_were() -> None:
    model = tiny_bert(dropout=0.3).train()
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    challenged_temperature(model, batches(), processing_class=tiny_tokenizer())
    assert model.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_rows_that_cannot_be_challenged_tell_nothing() -> None:
    model, tokenizer = tiny_bert().eval(), tiny_tokenizer()
    single = dict(
        tokenizer(["w1", "w2"], return_tensors="pt"), labels=torch.tensor([0, 1])
    )  # one word: nothing can be hidden
    whole = challenged_temperature(model, batches(), processing_class=tokenizer)
    assert challenged_temperature(model, [*batches(), single], processing_class=tokenizer) == whole
    with pytest.raises(ChallengerError, match="None of the 2 rows has a label"):
        challenged_temperature(model, [single], processing_class=tokenizer)


# --- in the trainer -------------------------------------------------------------------------------------------------------


def plain(config: Callable[..., Any], **options: Any) -> Trainer:
    args = config(TrainingArguments, max_steps=8, **options)
    run = Trainer(tiny_bert(), args, train_dataset=tiny_data(), processing_class=tiny_tokenizer())
    run.train()
    return run


def test_texts_are_trained_as_by_trainer_and_then_calibrated(trainer: Make, config: Any, tmp_path: Any) -> None:
    """Bit for bit up to the last layer, which is divided by the temperature: the same classes, other confidences."""
    run = trainer(**DEFAULT)
    temperature = run.train().metrics["challenge_temperature"]
    expected = plain(config).model.state_dict()
    for name, value in run.model.state_dict().items():
        divided = expected[name] / temperature if name.startswith("classifier") else expected[name]
        assert torch.equal(value, divided), name
    assert temperature != pytest.approx(1, abs=0.01)
    rows = [dict(tiny_tokenizer().pad(tiny_rows(), return_tensors="pt"))]
    trained = tiny_bert()
    trained.load_state_dict(expected)
    assert temperature == pytest.approx(
        challenged_temperature(trained, rows, processing_class=tiny_tokenizer(), seed=run.args.seed), rel=1e-4
    )
    run.save_model(str(tmp_path / "saved"))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert saved.config.calibration_temperature == pytest.approx(temperature)
    batch = {k: v for k, v in rows[0].items() if k != "labels"}
    with torch.no_grad():
        assert torch.allclose(saved(**batch).logits * temperature, trained.eval()(**batch).logits, atol=1e-5)


def test_plain_training_arguments_get_it_too(trainer: Make, config: Any) -> None:
    assert "challenge_temperature" in trainer(args=config(cls=TrainingArguments, max_steps=8)).train().metrics


def test_plain_trainer_stays_plain(trainer: Make, config: Any) -> None:
    run = trainer(challenge_share=0.0, challenge_temperature=None, max_steps=8)
    assert "challenge_temperature" not in run.train().metrics
    for a, b in zip(run.model.parameters(), plain(config).model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not hasattr(run.model.config, "calibration_temperature")


def test_it_goes_with_a_challenge_in_training(trainer: Make) -> None:
    run = trainer(challenge_share=0.5, challenge_temperature=True, max_steps=8)
    assert "challenge_temperature" in run.train().metrics
    assert any("challenged_share" in log for log in run.state.log_history)


def test_training_goes_on_from_the_model_as_it_was_trained(trainer: Make, config: Any) -> None:
    twice = trainer(**DEFAULT, optim="sgd")  # Adam would blow up the rounding errors of gradients that are zero
    twice.train()
    temperature = twice.train().metrics["challenge_temperature"]
    expected = plain(config, optim="sgd")
    expected.train()
    for (name, a), b in zip(twice.model.named_parameters(), expected.model.parameters(), strict=True):
        assert torch.allclose(a, b / temperature if name.startswith("classifier") else b, atol=1e-5), name
    assert twice.model.config.calibration_temperature == pytest.approx(temperature)


def test_checkpoints_hold_the_model_as_it_was_trained(trainer: Make, config: Any, tmp_path: Any) -> None:
    run = trainer(**DEFAULT, save_strategy="steps", save_steps=4)
    whole = run.train().metrics["challenge_temperature"]
    resumed = trainer(**DEFAULT, save_strategy="no")
    again = resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-4")).metrics["challenge_temperature"]
    assert again == pytest.approx(whole, rel=1e-6)
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "checkpoint-8").state_dict()
    assert torch.equal(kept["classifier.weight"], plain(config).model.state_dict()["classifier.weight"])


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_other_problems_are_left_alone(problem: str, trainer: Make) -> None:
    labels = 1 if problem == "regression" else 3
    model = tiny_bert(num_labels=labels, problem_type=problem)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        assert (
            "challenge_temperature" not in trainer(model=model, data=tiny_data(problem=problem), **DEFAULT).train().metrics
        )


def test_where_no_temperature_fits_the_model_stays(trainer: Make, config: Any) -> None:
    same = tiny_data().map(lambda row: {"labels": 0})  # every row is right, however much is hidden
    run = trainer(data=same, **{**DEFAULT, "max_steps": 60})
    with pytest.warns(ChallengerWarning, match=r"as it was trained, without a temperature.*challenge_temperature=False"):
        output = run.train()
    assert "challenge_temperature" not in output.metrics
    assert not hasattr(run.model.config, "calibration_temperature")


def test_streams_and_adapters(trainer: Make) -> None:
    assert "challenge_temperature" in trainer(data=tiny_data().to_iterable_dataset(), **DEFAULT).train().metrics
    adapted = get_peft_model(tiny_bert(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))
    run = trainer(model=adapted, **DEFAULT)
    batch = dict(tiny_tokenizer().pad(tiny_rows(8), return_tensors="pt"))
    del batch["labels"]
    temperature = run.train().metrics["challenge_temperature"]
    calibrated = adapted.eval()(**batch).logits
    apply_temperature(adapted, 1 / temperature, batch)
    assert torch.allclose(calibrated * temperature, adapted(**batch).logits, atol=1e-5)


def test_large_sets_are_sampled_evenly(trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_challenger.trainer.CALIBRATION_ROWS", 10)
    data = tiny_data(32)
    assert [row["labels"] for row in trainer(data=data)._rows_to_calibrate_on()] == data["labels"][::4]
    assert [row["labels"] for row in trainer(data=tiny_rows(32))._rows_to_calibrate_on()] == data["labels"][::4]
    assert len(trainer(data=data.to_iterable_dataset())._rows_to_calibrate_on()) == 10


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(ChallengerError, match="challenge_temperature='warm' is neither True nor False nor None"):
        ChallengerConfig("out", challenge_temperature="warm")
