"""The temperature that is fitted after training: what the trainer does, and where it cannot be done."""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from tiny import tiny_bert, tiny_data, tiny_rows, tiny_tokenizer
from torch.utils.data import IterableDataset
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PatchTSTConfig,
    PatchTSTForClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_challenger import ChallengerConfig, ChallengerTrainer
from hf_challenger.calibration import CalibrationCallback, apply_temperature, expected_accuracy, temperature_for_accuracy
from hf_challenger.errors import ChallengerError, ChallengerWarning

Make = Callable[..., ChallengerTrainer]
DEFAULT = {"challenge_selection": "cues", "challenge_share": 0.75, "calibrate": True, "max_steps": 60}


@pytest.fixture(autouse=True)
def no_cues(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny texts have words of their class. Without cues training is Trainer's, so that only calibration is seen."""
    monkeypatch.setattr("hf_challenger.challenge.cue_search.FEWEST_ROWS", 10**9)


FITTED = "calibration_temperature"


def plain(config: Callable[..., Any], dropout: float = 0.0, **options: Any) -> Trainer:
    args = config(TrainingArguments, **{"max_steps": 60, **options})
    run = Trainer(tiny_bert(dropout), args, train_dataset=tiny_data(), processing_class=tiny_tokenizer())
    run.train()
    return run


def by_hand(model: Any, untrained: Any, rows: list[dict[str, Any]]) -> tuple[float, float]:
    """(T, accuracy): the mean confidence on training rows equals the accuracy that the untrained model's probe expects."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        logits = torch.cat([model(**{k: v for k, v in batch.items() if k != "labels"}).logits for batch in rows])
    labels = torch.cat([batch["labels"] for batch in rows])
    right = float((logits.argmax(1) == labels).double().mean())
    accuracy = min(expected_accuracy(untrained, rows), right, 1 - 1 / len(labels))
    return temperature_for_accuracy(logits, accuracy), accuracy


def test_texts_are_trained_as_by_trainer_and_then_calibrated(trainer: Make, config: Any, tmp_path: Any) -> None:
    """Bit for bit, dropout and all, up to the last layer, which is divided by the temperature."""
    run = trainer(model=tiny_bert(dropout=0.1), **DEFAULT)
    returned = run.train().metrics
    temperature = returned[FITTED]
    expected = plain(config, dropout=0.1).model.state_dict()
    for name, value in run.model.state_dict().items():
        divided = expected[name] / temperature if name.startswith("classifier") else expected[name]
        assert torch.equal(value, divided), name
    assert temperature != pytest.approx(1, abs=0.01)
    rows = [dict(tiny_tokenizer().pad(tiny_rows(), return_tensors="pt"))]
    trained = tiny_bert()
    trained.load_state_dict(expected)
    found, accuracy = by_hand(trained, tiny_bert(), rows)
    assert (temperature, returned["expected_accuracy"]) == pytest.approx((found, accuracy), rel=1e-4)
    batch = {k: v for k, v in rows[0].items() if k != "labels"}
    with torch.no_grad():
        confidence = run.model.eval()(**batch).logits.softmax(1).amax(1).mean()
    assert float(confidence) == pytest.approx(accuracy, abs=1e-4)
    run.save_model(str(tmp_path / "saved"))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert saved.config.calibration_temperature == pytest.approx(temperature)
    with torch.no_grad():
        assert torch.allclose(saved(**batch).logits * temperature, trained.eval()(**batch).logits, atol=1e-5)


def test_what_it_did_is_on_the_console_in_the_logs_and_in_the_state(trainer: Make, tmp_path: Any, capsys: Any) -> None:
    run = trainer(**DEFAULT)
    returned = run.train().metrics
    (log,) = [log for log in run.state.log_history if FITTED in log]
    assert {k: returned[k] for k in (FITTED, "expected_accuracy")} == {k: log[k] for k in (FITTED, "expected_accuracy")}
    (line,) = [line for line in capsys.readouterr().out.splitlines() if FITTED in line]
    assert "expected_accuracy" in line
    run.save_state()
    saved = json.loads((tmp_path / "out" / "trainer_state.json").read_text())
    assert saved["log_history"][-1][FITTED] == returned[FITTED]


class AtTheEnd(TrainerCallback):
    """Notes the classifier's weights when training ends, as a reporter that saves the model would."""

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weight = model.classifier.weight.detach().clone()


def test_other_callbacks_see_the_calibrated_model_at_the_end(trainer: Make) -> None:
    seen = AtTheEnd()
    run = trainer(kwargs={"callbacks": [seen]}, **DEFAULT)
    run.train()
    assert torch.equal(seen.weight, run.model.classifier.weight)


def test_it_can_be_removed_as_any_callback(trainer: Make, config: Any) -> None:
    run = trainer(**DEFAULT)
    run.remove_callback(CalibrationCallback)
    assert FITTED not in run.train().metrics
    for a, b in zip(run.model.parameters(), plain(config).model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_plain_trainer_takes_it(config: Any) -> None:
    args = config(TrainingArguments, max_steps=60)
    run = Trainer(tiny_bert(), args, train_dataset=tiny_data(), processing_class=tiny_tokenizer())
    run.add_callback(CalibrationCallback(run))
    run.train()
    assert run.state.log_history[-1][FITTED] == pytest.approx(run.model.config.calibration_temperature)


def test_a_last_batch_that_is_not_full_counts_whole_and_no_other_is_cut(trainer: Make) -> None:
    found = [trainer(data=tiny_data(21), per_device_eval_batch_size=size, **DEFAULT).train().metrics for size in (8, 21)]
    for key in (FITTED, "expected_accuracy"):
        assert found[0][key] == pytest.approx(found[1][key], rel=1e-4)
    assert found[0][FITTED] > 1


def test_the_best_model_is_the_one_that_is_calibrated(trainer: Make, tmp_path: Any) -> None:
    """Of the first checkpoint, as the learning rate is far too large for what follows."""
    steps = {"save_strategy": "steps", "eval_strategy": "steps", "save_steps": 20, "eval_steps": 20, "logging_steps": 20}
    run = trainer(**DEFAULT, **steps, load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True)
    temperature = run.train().metrics[FITTED]
    best = AutoModelForSequenceClassification.from_pretrained(run.state.best_model_checkpoint)
    rows = [dict(tiny_tokenizer().pad(tiny_rows(), return_tensors="pt"))]
    assert temperature == pytest.approx(by_hand(best, tiny_bert(), rows)[0], rel=1e-4)
    assert torch.equal(run.model.classifier.weight, best.classifier.weight / temperature)
    assert not hasattr(best.config, FITTED)


def test_gpt2_with_the_end_token_as_padding_is_calibrated(trainer: Make) -> None:
    """Trainer sets the model's pad_token_id when training starts, without which GPT-2 refuses batches."""
    tokenizer = tiny_tokenizer(eos_token="[SEP]")
    tokenizer.pad_token = tokenizer.eos_token
    torch.manual_seed(0)
    small = {"vocab_size": 45, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 32, "num_labels": 3}
    model = GPT2ForSequenceClassification(GPT2Config(**small, bos_token_id=2, eos_token_id=3))
    assert model.config.pad_token_id is None
    run = trainer(model=model, kwargs={"processing_class": tokenizer}, **DEFAULT)
    assert FITTED in run.train().metrics


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_come_back_bit_for_bit(dtype: torch.dtype, trainer: Make) -> None:
    run = trainer(model=tiny_bert().to(dtype), **{**DEFAULT, "max_steps": 3}, learning_rate=1e-4)
    seen = AtTheBeginning()
    run.add_callback(seen)
    assert run.train().metrics[FITTED] != 1
    calibrated = run.model.classifier.weight.detach().clone()
    run.train()
    assert not torch.equal(seen.weights[1], calibrated)
    assert run.model.classifier.weight.dtype == dtype


class AtTheBeginning(TrainerCallback):
    def __init__(self) -> None:
        self.weights: list[torch.Tensor] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights.append(model.classifier.weight.detach().clone())


def test_weights_loaded_since_are_not_overwritten(trainer: Make) -> None:
    run = trainer(**DEFAULT)
    run.train()
    with torch.no_grad():
        run.model.classifier.weight.fill_(0.25)
    seen = AtTheBeginning()
    run.add_callback(seen)
    run.train()
    assert (seen.weights[0] == 0.25).all()


def test_plain_training_arguments_get_it_too(trainer: Make, config: Any) -> None:
    assert FITTED in trainer(args=config(cls=TrainingArguments, max_steps=60)).train().metrics


def test_plain_trainer_stays_plain(trainer: Make, config: Any) -> None:
    run = trainer(**{**DEFAULT, "challenge_share": 0.0})
    assert FITTED not in run.train().metrics
    for a, b in zip(run.model.parameters(), plain(config).model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not hasattr(run.model.config, "calibration_temperature")


def test_it_goes_with_a_challenge_in_training(trainer: Make) -> None:
    run = trainer(challenge_share=0.5, calibrate=True, max_steps=60)
    assert FITTED in run.train().metrics
    assert any("challenged_share" in log for log in run.state.log_history)


def test_training_goes_on_from_the_model_as_it_was_trained(trainer: Make, config: Any) -> None:
    twice, expected = trainer(**DEFAULT), plain(config)
    twice.train()
    temperature = twice.train().metrics[FITTED]
    expected.train()
    for (name, a), b in zip(twice.model.named_parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(a, b / temperature if name.startswith("classifier") else b), name
    assert twice.model.config.calibration_temperature == pytest.approx(temperature)


def test_the_config_tells_of_this_training_alone(trainer: Make, tmp_path: Any) -> None:
    first = trainer(**DEFAULT)
    assert first.train().metrics[FITTED] > 1
    first.save_model(str(tmp_path / "first"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "first")
    assert model.config.calibration_temperature > 1
    second = trainer(model, challenge_share=0.0, calibrate=False)
    second.train()
    assert not hasattr(second.model.config, "calibration_temperature")


def test_checkpoints_hold_the_model_as_it_was_trained(trainer: Make, config: Any, tmp_path: Any) -> None:
    run = trainer(**DEFAULT, save_strategy="steps", save_steps=30)
    whole = run.train().metrics[FITTED]
    resumed = trainer(**DEFAULT, save_strategy="no")
    again = resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-30")).metrics[FITTED]
    assert again == pytest.approx(whole, rel=1e-6)
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "checkpoint-60").state_dict()
    assert torch.equal(kept["classifier.weight"], plain(config).model.state_dict()["classifier.weight"])


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_other_problems_are_left_alone(problem: str, trainer: Make) -> None:
    labels = 1 if problem == "regression" else 3
    model = tiny_bert(num_labels=labels, problem_type=problem)
    run = trainer(model=model, data=tiny_data(problem=problem), kwargs={"eval_dataset": None}, **DEFAULT)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert FITTED not in run.train().metrics
    assert not any("calibrat" in str(w.message) for w in said)


def test_what_cannot_be_calibrated_is_trained_all_the_same(trainer: Make) -> None:
    alone = tiny_data(8).map(lambda row, i: {"labels": i}, with_indices=True)
    run = trainer(model=tiny_bert(num_labels=8), data=alone, **{**DEFAULT, "max_steps": 2})
    said = r"not calibrated and stays as trained.*No class has two training rows.*calibrate=False"
    with pytest.warns(ChallengerWarning, match=said):
        output = run.train()
    assert output.global_step == 2
    assert FITTED not in output.metrics


def test_streams_and_adapters(trainer: Make) -> None:
    assert FITTED in trainer(data=tiny_data().to_iterable_dataset(), **DEFAULT).train().metrics
    adapted = get_peft_model(tiny_bert(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))
    run = trainer(model=adapted, **DEFAULT)
    batch = dict(tiny_tokenizer().pad(tiny_rows(8), return_tensors="pt"))
    del batch["labels"]
    temperature = run.train().metrics[FITTED]
    calibrated = adapted.eval()(**batch).logits
    apply_temperature(adapted, 1 / temperature, batch)
    assert torch.allclose(calibrated * temperature, adapted(**batch).logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["dataset", "list", "stream"])
def test_of_large_sets_few_rows_are_read(kind: str, trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn at random; of a stream the first ones."""
    monkeypatch.setattr("hf_challenger.calibration.callback.ROWS", 16)
    data = {"dataset": tiny_data(32), "list": tiny_rows(32), "stream": tiny_data(32).to_iterable_dataset()}[kind]
    returned = trainer(data=data, **DEFAULT).train().metrics
    drawn = sorted(random.Random(0).sample(range(32), 16))
    chosen = tiny_rows(32)[:16] if kind == "stream" else [tiny_rows(32)[n] for n in drawn]
    accuracy = expected_accuracy(tiny_bert(), [dict(tiny_tokenizer().pad(chosen, return_tensors="pt"))])
    assert returned["expected_accuracy"] == pytest.approx(accuracy)


@pytest.mark.parametrize("classes", [2, 3])
def test_rows_whose_classes_take_turns_are_read_of_all_classes(
    classes: int, trainer: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hf_challenger.calibration.callback.ROWS", 20)
    rows = sorted(tiny_rows(120), key=lambda row: row["labels"])
    of_class = [[row for row in rows if row["labels"] == label] for label in range(classes)]
    turns = [row for together in zip(*of_class, strict=False) for row in together]
    turns = turns[: 20 * classes * (len(turns) // (20 * classes))]  # every classes-th row would be of one class
    assert trainer(data=turns, **DEFAULT).train().metrics["expected_accuracy"] < 1


@pytest.mark.parametrize("kind", ["list", "stream"])
def test_rows_of_one_class_do_not_tell_and_it_is_said(kind: str, trainer: Make) -> None:
    rows = [{**row, "labels": 1} for row in tiny_rows(32)]
    data = rows if kind == "list" else Dataset.from_list(rows).to_iterable_dataset()
    with pytest.warns(ChallengerWarning, match="all of class 1"):
        assert FITTED not in trainer(data=data, **DEFAULT).train().metrics


class LogsAtTheEnd(TrainerCallback):
    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer.log({"mine": 1.0})


def test_metrics_tell_the_temperature_whatever_is_logged_after_it(trainer: Make) -> None:
    mine = LogsAtTheEnd()
    run = mine.trainer = trainer(kwargs={"callbacks": [mine]}, **DEFAULT)
    assert {FITTED, "expected_accuracy"} <= run.train().metrics.keys()


class Resumed(IterableDataset):
    """A stream that goes on where it was left, as some that read from a network do."""

    def __init__(self) -> None:
        self.rows, self.position = tiny_rows(256), 0

    def __iter__(self) -> Any:
        while self.position < len(self.rows):
            self.position += 1
            yield self.rows[self.position - 1]


class Generated(Resumed):
    """One that cannot be copied either."""

    def __init__(self) -> None:
        self.generator = (row for row in tiny_rows(256))

    def __iter__(self) -> Any:
        yield from self.generator


@pytest.mark.parametrize("stream", [Resumed, Generated])
def test_a_stream_is_not_advanced(stream: Any, trainer: Make, config: Any) -> None:
    run = trainer(data=stream(), **{**DEFAULT, "max_steps": 20})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        returned = run.train().metrics
    assert (FITTED in returned) == (stream is Resumed) == (not any("is not calibrated" in str(w.message) for w in caught))
    args = config(TrainingArguments, max_steps=20)
    expected = Trainer(tiny_bert(), args, train_dataset=stream(), processing_class=tiny_tokenizer())
    expected.train()
    for (name, a), b in zip(run.model.named_parameters(), expected.model.parameters(), strict=True):
        assert torch.equal(a, b) or name.startswith("classifier"), name


def series_rows(rows: int = 24) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    torch.manual_seed(0)
    config = PatchTSTConfig(
        num_input_channels=2, context_length=24, num_targets=3, patch_length=4, patch_stride=4, d_model=16, use_cls_token=True,
        num_hidden_layers=1, num_attention_heads=2, ffn_dim=16,
    )  # fmt: skip
    data = [{"past_values": torch.randn(24, 2), "target_values": i % 3} for i in range(rows)]
    for row in data:
        row["past_values"][8 * row["target_values"] :, 0] += 1
    return PatchTSTForClassification(config), data, {"label_names": ["target_values"]}


def image_rows(rows: int = 24) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    torch.manual_seed(0)
    config = ViTConfig(
        image_size=8, patch_size=2, num_channels=1, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, num_labels=3,
    )  # fmt: skip
    data = [{"pixel_values": torch.randn(1, 8, 8), "labels": i % 3} for i in range(rows)]
    for row in data:
        row["pixel_values"][:, 2 * row["labels"] :] += 1
    return ViTForImageClassification(config), data, {}


def audio_rows(rows: int = 24) -> tuple[Any, list[dict[str, Any]], dict[str, Any]]:
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, patch_size=4, frequency_stride=4,
        time_stride=4, max_length=24, num_mel_bins=8, num_labels=3,
    )  # fmt: skip
    data = [{"input_values": torch.randn(24, 8), "labels": i % 3} for i in range(rows)]
    for row in data:
        row["input_values"][8 * row["labels"] :] += 1
    return ASTForAudioClassification(config), data, {}


@pytest.mark.parametrize("rows", [series_rows, audio_rows])
def test_series_and_audio_are_trained_as_by_trainer_too(rows: Any, trainer: Make, config: Any) -> None:
    """Bit for bit, up to the last layer, which is divided by the temperature."""
    model, data, options = rows()
    args = config(TrainingArguments, max_steps=60, **options)
    expected = Trainer(copy.deepcopy(model), args, train_dataset=data)
    expected.train()
    run = trainer(model=model, data=data, kwargs={"processing_class": None, "eval_dataset": None}, **DEFAULT, **options)
    temperature = run.train().metrics[FITTED]
    assert not any(log.get("challenged_share") for log in run.state.log_history)
    for (name, a), b in zip(run.model.named_parameters(), expected.model.parameters(), strict=True):
        last = name.startswith(("head.linear", "classifier.dense"))
        assert torch.equal(a, b / temperature if last else b), name


def test_images_are_challenged_in_training_and_calibrated_after_it(trainer: Make) -> None:
    model, data, _ = image_rows()
    run = trainer(model=model, data=data, kwargs={"processing_class": None, "eval_dataset": None}, **DEFAULT)
    assert FITTED in run.train().metrics
    assert any("challenged_share" in log for log in run.state.log_history)


@pytest.mark.parametrize("rows", [series_rows, image_rows])
def test_series_and_images_are_calibrated_as_texts_are(rows: Any, trainer: Make) -> None:
    model, data, options = rows()
    for row in data[::4]:  # labels that no input tells
        row |= {k: (v + 1) % 3 for k, v in row.items() if isinstance(v, int)}
    kwargs = {"processing_class": None, "eval_dataset": None}
    run = trainer(model=copy.deepcopy(model), data=data, kwargs=kwargs, **{**options, **DEFAULT, "max_steps": 90})
    temperature = run.train().metrics[FITTED]
    batch = {k: torch.stack([torch.as_tensor(row[k]) for row in data]) for k in data[0]}
    batch["labels"] = batch.pop(run.label_names[0])
    apply_temperature(run.model, 1 / temperature, {k: v for k, v in batch.items() if k != "labels"})
    trained = run.model if not options else Logits(run.model)
    untrained = model if not options else Logits(model)
    assert temperature == pytest.approx(by_hand(trained, untrained, [batch])[0], rel=1e-3)
    assert temperature != pytest.approx(1, abs=0.05)


class Logits(torch.nn.Module):
    """PatchTST's class scores under the usual name."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, past_values: torch.Tensor) -> Any:
        return type("Output", (dict,), {"logits": property(lambda self: self["logits"])})(
            logits=self.model(past_values=past_values).prediction_logits
        )


def test_a_loader_that_drops_its_last_batch_drops_none_here(trainer: Make) -> None:
    whole, dropping = (
        trainer(data=tiny_data(21), per_device_eval_batch_size=32, dataloader_drop_last=drop, **DEFAULT)
        for drop in (False, True)
    )
    found = [run.train().metrics["expected_accuracy"] for run in (whole, dropping)]
    assert found[0] == pytest.approx(found[1])
    assert dropping.args.dataloader_drop_last


class Augmented(IterableDataset):
    """A stream that tells a length and draws what it adds to its rows."""

    def __len__(self) -> int:
        return 24

    def __iter__(self) -> Any:
        for row in series_rows(24)[1]:
            yield {**row, "past_values": row["past_values"] + 0.1 * torch.randn(24, 2)}


def test_reading_a_stream_before_training_draws_nothing(trainer: Make) -> None:
    bodies = []
    for options in (DEFAULT, {"challenge_share": 0.0, "max_steps": 60}):
        model, _, names = series_rows()
        torch.manual_seed(7)
        kwargs = {"processing_class": None, "eval_dataset": None}
        run = trainer(model=model, data=Augmented(), kwargs=kwargs, **options, **names)
        assert (FITTED in run.train().metrics) == (options is DEFAULT)
        bodies.append([p for name, p in run.model.named_parameters() if not name.startswith("head.linear")])
    assert all(torch.equal(a, b) for a, b in zip(*bodies, strict=True))


class TwoLayers(torch.nn.Module):
    """A classifier whose logits do not follow its last linear layer."""

    main_input_name = "past_values"

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(48, 3)

    def forward(self, past_values: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        logits = 4 * torch.tanh(self.head(past_values.flatten(1)))
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def test_errors_of_any_kind_leave_the_model_as_it_was_trained(trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    data = [{"past_values": row["past_values"], "labels": row["target_values"]} for row in series_rows()[1]]
    kwargs = {"processing_class": None, "eval_dataset": None}
    run = trainer(model=TwoLayers(), data=data, kwargs=kwargs, **DEFAULT)
    with pytest.warns(ChallengerWarning, match=r"not calibrated and stays as trained.*comes after it.*calibrate=False"):
        assert run.train().global_step == 60
    run = trainer(**DEFAULT)
    run.train_dataset = None
    run.get_train_dataloader = lambda: torch.utils.data.DataLoader(tiny_data(), 8, collate_fn=run.data_collator)
    with pytest.warns(ChallengerWarning, match="There is no train_dataset"):
        assert run.train().global_step == 60

    def broken(*args: Any) -> float:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("hf_challenger.calibration.callback.temperature_for_accuracy", broken)
    run = trainer(**DEFAULT)
    with pytest.warns(ChallengerWarning, match="not calibrated.*RuntimeError: out of memory.*calibrate=False"):
        assert FITTED not in run.train().metrics


def test_labels_out_of_range_are_refused_at_the_first_step(trainer: Make) -> None:
    data = [{**row, "labels": row["labels"] + 1} for row in image_rows()[1]]
    run = trainer(model=image_rows()[0], data=data, kwargs={"processing_class": None, "eval_dataset": None}, **DEFAULT)
    with pytest.raises(ChallengerError, match="Label 3 is outside the model's 3 classes"):
        run.train()
    assert run.state.global_step == 0


def test_a_model_no_better_than_chance_is_not_calibrated(trainer: Make) -> None:
    run = trainer(**{**DEFAULT, "max_steps": 1}, learning_rate=0.0)
    run.model.classifier.bias.data[:] = torch.tensor([-100.0, -100.0, 100.0])
    run.train_dataset = run.train_dataset.map(lambda row: {"labels": row["labels"] % 2})
    with pytest.warns(ChallengerWarning, match="right about 0% of the training rows, no better than chance"):
        assert FITTED not in run.train().metrics


class TwoLabels(torch.nn.Module):
    main_input_name = "past_values"

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(48, 3)

    def forward(self, past_values: torch.Tensor, labels: torch.Tensor, others: torch.Tensor) -> Any:
        logits = self.head(past_values.flatten(1))
        loss = sum(torch.nn.functional.cross_entropy(logits, part) for part in (labels, others))
        return {"loss": loss, "logits": logits}


def test_several_labels_a_row_are_left_alone(config: Any) -> None:
    data = [{"past_values": r["past_values"], "labels": r["target_values"], "others": 0} for r in series_rows()[1]]
    run = Trainer(TwoLabels(), config(TrainingArguments, label_names=["labels", "others"]), train_dataset=data)
    run.add_callback(CalibrationCallback(run))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        run.train()
    assert not any(FITTED in log for log in run.state.log_history)


def test_refuses_what_is_neither_true_nor_false() -> None:
    with pytest.raises(ChallengerError, match="calibrate='warm' is neither True nor False"):
        ChallengerConfig("out", calibrate="warm")
