"""Confidences calibrated on challenged training rows: by hand, in the trainer, and where it cannot be done."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.optimize import minimize_scalar
from tiny import tiny_bert, tiny_data, tiny_rows, tiny_tokenizer
from torch.utils.data import IterableDataset
from transformers import (
    ASTConfig,
    ASTForAudioClassification,
    AutoModelForSequenceClassification,
    PatchTSTConfig,
    PatchTSTForClassification,
    Trainer,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_challenger import Challenger, ChallengerConfig, ChallengerTrainer
from hf_challenger.attribution import LRP
from hf_challenger.calibration import fit_temperature
from hf_challenger.challenged_temperature import challenged_temperature
from hf_challenger.errors import ChallengerError, ChallengerWarning
from hf_challenger.expected_accuracy import PENALTIES, expected_accuracy
from hf_challenger.keyed_random import keyed_uniform
from hf_challenger.temperature import apply_temperature

Make = Callable[..., ChallengerTrainer]
DEFAULT = {"challenge_share": None, "challenge_temperature": None, "max_steps": 60}


def batches(rows: int = 24, size: int = 8) -> list[dict[str, torch.Tensor]]:
    data, tokenizer = tiny_rows(rows), tiny_tokenizer()
    return [dict(tokenizer.pad(data[i : i + size], return_tensors="pt")) for i in range(0, rows, size)]


def by_hand(model: Any, rows: list[dict[str, Any]], share: float) -> tuple[float, float]:
    """Row after row, unpadded, in float64: hide the most relevant words, then minimise the NLL over log T. (accuracy, T)"""
    logits, labels = [], []
    offsets = keyed_uniform(0, 0, 0, torch.arange(len(rows)))
    for row, offset in zip(rows, offsets.tolist(), strict=True):
        ids, label = torch.tensor([row["input_ids"]]), row["labels"]
        words = range(1, ids.shape[1] - 1)
        relevance = LRP(model).attribute({"input_ids": ids}, target=label).sum(-1)[0]
        count = min(int(len(words) * share + offset), len(words) - 1)
        hidden = sorted(words, key=lambda i: -float(relevance[i]))[:count]
        mask = torch.ones_like(ids)
        mask[0, hidden] = 0
        logits.append(model(input_ids=ids, attention_mask=mask).logits[0].detach().numpy())
        labels.append(label)
    z = np.array(logits)

    def nll(log_t: float) -> float:
        scaled = z / np.exp(log_t)
        return float(np.mean(np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(z)), labels]))

    found = minimize_scalar(nll, bounds=(-4, 4), method="bounded", options={"xatol": 1e-9})
    return float((z.argmax(1) == labels).mean()), float(np.exp(found.x))


@pytest.fixture(scope="module")
def trained() -> Any:
    """A tiny classifier that has its training rows nearly by heart."""
    model, optimizer = tiny_bert(), None
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(40):
        batch = batches(24)[step % 3]
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.double().eval()


@pytest.mark.parametrize("halvings", [1, 2])
def test_it_is_the_one_found_by_hand(halvings: int, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the shares that are tried, 0, 1/2 and 3/4, the one that leaves fewest rows right, if an accuracy of 0 is asked for."""
    monkeypatch.setattr("hf_challenger.challenged_temperature.HALVINGS", halvings)
    tokenizer = tiny_tokenizer()
    by_share = [by_hand(trained, tiny_rows(24), share) for share in (0.0, 0.5, 0.75)[: halvings + 1]]
    right, expected = min(by_share, key=lambda found: found[0])
    assert right < by_share[0][0]
    found = challenged_temperature(trained, batches(), 1e-6, processing_class=tokenizer, selection="top")
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("accuracy", [0.6, 0.75, 0.9])
def test_as_much_is_hidden_as_the_accuracy_asks_for(accuracy: float, trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def fit(logits: torch.Tensor, labels: torch.Tensor) -> float:
        seen.append(float((logits.argmax(1) == labels).double().mean()))
        return fit_temperature(logits, labels)

    monkeypatch.setattr("hf_challenger.challenged_temperature.fit_temperature", fit)
    challenged_temperature(trained, batches(), accuracy, processing_class=tiny_tokenizer())
    assert seen == [pytest.approx(accuracy, abs=0.09)]  # of 24 rows


def test_a_larger_share_hides_the_units_of_a_smaller_one_and_more(trained: Any) -> None:
    (batch,) = batches(24, 24)
    labels = batch.pop("labels")
    hide = Challenger(trained, processing_class=tiny_tokenizer()).doses(batch, labels)
    left = [hide(share)["attention_mask"] for share in (0.0, 0.1, 0.3, 0.6, 1.0)]
    assert torch.equal(left[0], batch["attention_mask"])
    for more, less in pairwise(left):
        assert (less <= more).all()
        assert less.sum() < more.sum()
    words = batch["attention_mask"].sum(1) - 2
    assert torch.equal(left[-1].sum(1), torch.full_like(words, 3))  # [CLS], a word, [SEP]
    hidden = (left[0] - left[1]).sum(1)
    assert (hidden >= (words * 0.1).floor()).all()
    assert (hidden <= (words * 0.1).floor() + 1).all()


def test_batches_of_another_size_give_the_same() -> None:
    model, tokenizer = tiny_bert().double().eval(), tiny_tokenizer()
    found = [
        challenged_temperature(model, batches(24, size), 0.3, processing_class=tokenizer, seed=seed)
        for seed, size in ((0, 8), (0, 5), (0, 24), (1, 8))
    ]
    assert found[1:3] == pytest.approx([found[0]] * 2, rel=1e-6)
    assert found[3] != pytest.approx(found[0], rel=1e-3)


@pytest.mark.parametrize(("fits", "taken"), [(2.0, 2.0), (0.81, 0.81 ** (24 / 148)), (0.005, 0.5)])
def test_a_model_is_made_surer_with_caution(fits: float, taken: float, trained: Any) -> None:
    model, tokenizer = copy.deepcopy(trained), tiny_tokenizer()
    now = challenged_temperature(model, batches(), 0.75, processing_class=tokenizer)
    assert now > 1
    batch = {k: v for k, v in batches()[0].items() if k != "labels"}
    apply_temperature(model, now / fits, batch)
    found = challenged_temperature(model, batches(), 0.75, processing_class=tokenizer)
    assert found == pytest.approx(taken, rel=1e-3)


@pytest.mark.parametrize(("times", "power"), [(1, 24 / 148), (10, 240 / 580)])
def test_the_fewer_the_rows_the_less_sure_they_make_a_model(times: int, power: float, trained: Any) -> None:
    model, rows = copy.deepcopy(trained), batches()
    rows[0]["labels"][0] = 1 - rows[0]["labels"][0]  # one is wrong, and all right were expected: nothing is hidden
    inputs = [{k: v for k, v in batch.items() if k != "labels"} for batch in rows]
    with torch.no_grad():
        logits = torch.cat([model(**batch).logits for batch in inputs])
    fits = fit_temperature(logits, torch.cat([batch["labels"] for batch in rows]))
    apply_temperature(model, fits / 0.6, inputs[0])  # now it is too unsure: .6 fits
    found = challenged_temperature(model, rows * times, 1.0, processing_class=tiny_tokenizer())
    assert found == pytest.approx(0.6**power, rel=1e-3)


def test_rows_that_are_all_right_make_no_model_surer(trained: Any) -> None:
    """The best temperature would be next to nothing."""
    assert challenged_temperature(trained, batches(), 1.0, processing_class=tiny_tokenizer()) == 1


def test_a_model_that_is_no_better_than_chance_is_told() -> None:
    model = tiny_bert().eval()
    rows = [{**batch, "labels": (model(**batch).logits.argmin(1))} for batch in batches()]
    with pytest.raises(ChallengerError, match="above 99: the model is right about 0% of them"):
        challenged_temperature(model, rows, 0.5, processing_class=tiny_tokenizer())


@pytest.mark.parametrize("accuracy", [0.0, -1.0, 70.0, float("nan")])
def test_an_accuracy_that_is_none_is_refused(accuracy: float, trained: Any) -> None:
    with pytest.raises(ChallengerError, match=f"accuracy={accuracy!r} is not a share"):
        challenged_temperature(trained, batches(), accuracy, processing_class=tiny_tokenizer())


def test_batches_that_were_used_up_are_told(trained: Any) -> None:
    once = iter(batches())
    expected_accuracy(trained, once, attended)
    for call in (
        lambda: expected_accuracy(trained, once, attended),
        lambda: challenged_temperature(trained, once, 0.6, processing_class=tiny_tokenizer()),
    ):
        with pytest.raises(ChallengerError, match="A generator can be read once"):
            call()


def test_model_and_random_numbers_are_left_as_they_were() -> None:
    model = tiny_bert(dropout=0.3).train()
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    challenged_temperature(model, batches(), 0.3, processing_class=tiny_tokenizer())
    assert model.training
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_rows_without_a_label_tell_nothing(trained: Any) -> None:
    tokenizer = tiny_tokenizer()
    unlabelled = {**batches()[0], "labels": torch.full((8,), -100)}
    whole = challenged_temperature(trained, batches(), 0.6, processing_class=tokenizer)
    assert challenged_temperature(trained, [*batches(), unlabelled], 0.6, processing_class=tokenizer) == whole
    with pytest.raises(ChallengerError, match="None of the 8 rows has a label"):
        challenged_temperature(trained, [unlabelled], 0.6, processing_class=tokenizer)


# --- the accuracy to expect -----------------------------------------------------------------------------------------------


def attended(inputs: Any) -> torch.Tensor:
    return inputs["attention_mask"].bool()


def left_out_by_hand(features: np.ndarray, labels: np.ndarray) -> float:
    """Each row predicted by a ridge regression with an intercept, fitted by least squares on all the others."""
    x = features - features.mean(0)
    x = np.c_[x / np.linalg.norm(x, axis=1).mean(), np.full(len(x), len(x) ** -0.5)]
    right = dict.fromkeys(PENALTIES, 0)
    for penalty in PENALTIES:
        for i in range(len(x)):
            others = np.arange(len(x)) != i
            a, b = x[others], np.eye(3)[labels[others]]
            weights = np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ b)
            right[penalty] += int((x[i] @ weights).argmax() == labels[i])
    return max(right.values()) / len(x)


def test_expected_accuracy_is_that_of_probes_that_left_a_row_out() -> None:
    model = tiny_bert().double().eval()
    features, labels = [], []
    for row in tiny_rows(24):
        with torch.no_grad():
            states = model(input_ids=torch.tensor([row["input_ids"]]), output_hidden_states=True).hidden_states[-1][0]
        features.append(states.mean(0).numpy())
        labels.append(row["labels"])
    best, chance = left_out_by_hand(np.array(features), np.array(labels)), max(np.bincount(labels)) / len(labels)
    expected = 1 - (1 - best) * (1 - 0.5 * (best - chance) / (1 - chance))
    assert expected_accuracy(model, batches(), attended) == pytest.approx(expected)
    assert chance < best < 1
    batch = batches(24, 24)[0]
    batch["labels"] = batch["input_ids"].sum(1) * 7919 % 3  # of which the features tell nothing
    best, chance = (
        left_out_by_hand(np.array(features), batch["labels"].numpy()),
        batch["labels"].bincount().max().item() / 24,
    )
    assert best < chance + 0.1 * (1 - chance)
    assert expected_accuracy(model, [batch], attended) == pytest.approx(chance + 0.1 * (1 - chance))
    batch["labels"] = torch.ones(24, dtype=torch.long)
    assert expected_accuracy(model, [batch], attended) == 1


class LastLayerOnly(torch.nn.Module):
    """A linear layer on the pixels, or on each of two halves that are the same, after one of as many outputs that nobody needs."""

    def __init__(self, halves: bool = False, named: bool = False) -> None:
        super().__init__()
        self.other, self.head = torch.nn.Linear(1, 3), torch.nn.Linear(9, 3)
        self.halves, self.named = halves, named

    def forward(self, pixel_values: torch.Tensor) -> Any:
        x = pixel_values.flatten(1)
        self.other(x[:, :1])
        if self.halves:
            return self.head(torch.stack([x - 1, x + 1], 1)).mean(1)
        return self.head(input=x) if self.named else self.head(x)


class Pixels(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return pixel_values.flatten(1) * self.scale


class PerHalf(LastLayerOnly):
    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.head(torch.cat([pixel_values.flatten(1)] * 2)).unflatten(0, (2, -1)).mean(0)


@pytest.mark.parametrize("how", [{}, {"halves": True}, {"named": True}])
def test_without_tokens_it_is_told_by_what_enters_the_last_layer(how: dict[str, bool]) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 1, 3, 3, dtype=torch.float64), torch.arange(20) % 3
    x[:, 0, 0, 0] += 2 * y
    rows = [{"pixel_values": x[i : i + 7], "labels": y[i : i + 7]} for i in (0, 7, 14)]
    best = left_out_by_hand(x.flatten(1).numpy(), y.numpy())
    skill = (best - 7 / 20) / (1 - 7 / 20)  # of 20 rows the largest class has 7
    assert expected_accuracy(LastLayerOnly(**how).double(), rows) == pytest.approx(1 - (1 - best) * (1 - skill / 2))
    assert 0.4 < best < 1
    with pytest.raises(ChallengerError, match=r"7 labelled rows is \(14, 9\), not one vector a row"):
        expected_accuracy(PerHalf().double(), rows)
    with pytest.raises(ChallengerError, match=r"no torch.nn.Linear with 9 outputs"):
        expected_accuracy(Pixels(), rows)


class Blind(LastLayerOnly):
    """What enters the last layer is the same for all rows."""

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.head(torch.ones_like(pixel_values.flatten(1)[:, :9]))


def test_the_inputs_themselves_tell_it_where_they_tell_more(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 1, 3, 3, dtype=torch.float64), torch.arange(20) % 3
    x[:, 0, 0, 0] += 2 * y
    rows = [{"pixel_values": x[i : i + 7], "labels": y[i : i + 7]} for i in (0, 7, 14)]
    model = Blind().double()
    seen = expected_accuracy(LastLayerOnly().double(), rows)
    assert expected_accuracy(model, rows) == pytest.approx(seen)
    blind = 7 / 20 + 0.1 * 13 / 20  # as little as is expected of any model
    assert blind < seen - 0.1
    longer = [*rows[:2], {**rows[2], "pixel_values": torch.cat([rows[2]["pixel_values"]] * 2, 3)}]
    assert expected_accuracy(model, longer) == pytest.approx(blind)  # padded to several lengths
    monkeypatch.setattr("hf_challenger.expected_accuracy.LARGEST_INPUT", 8)
    assert expected_accuracy(model, rows) == pytest.approx(blind)


def test_rows_that_are_alone_in_their_class_are_not_counted() -> None:
    model, batch = tiny_bert(num_labels=9).eval(), batches(24, 24)[0]
    batch["labels"][0] = 8
    assert 0 < expected_accuracy(model, [batch], attended) <= 1
    batch["labels"] = torch.arange(24)
    with pytest.raises(ChallengerError, match="No class has two training rows"):
        expected_accuracy(model, [batch], attended)


# --- in the trainer -------------------------------------------------------------------------------------------------------


def plain(config: Callable[..., Any], dropout: float = 0.0, **options: Any) -> Trainer:
    args = config(TrainingArguments, **{"max_steps": 60, **options})
    run = Trainer(tiny_bert(dropout), args, train_dataset=tiny_data(), processing_class=tiny_tokenizer())
    run.train()
    return run


def test_texts_are_trained_as_by_trainer_and_then_calibrated(trainer: Make, config: Any, tmp_path: Any) -> None:
    """Bit for bit, dropout and all, up to the last layer, which is divided by the temperature."""
    run = trainer(model=tiny_bert(dropout=0.1), **DEFAULT)
    told = run.train().metrics
    temperature = told["challenge_temperature"]
    expected = plain(config, dropout=0.1).model.state_dict()
    for name, value in run.model.state_dict().items():
        divided = expected[name] / temperature if name.startswith("classifier") else expected[name]
        assert torch.equal(value, divided), name
    assert temperature != pytest.approx(1, abs=0.01)
    rows = [dict(tiny_tokenizer().pad(tiny_rows(), return_tensors="pt"))]
    trained = tiny_bert()
    trained.load_state_dict(expected)
    accuracy = expected_accuracy(tiny_bert(), rows, attended)
    assert told["expected_accuracy"] == pytest.approx(accuracy)
    found = challenged_temperature(trained, rows, accuracy, processing_class=tiny_tokenizer(), seed=run.args.seed)
    assert temperature == pytest.approx(found, rel=1e-4)
    run.save_model(str(tmp_path / "saved"))
    saved = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert saved.config.calibration_temperature == pytest.approx(temperature)
    batch = {k: v for k, v in rows[0].items() if k != "labels"}
    with torch.no_grad():
        assert torch.allclose(saved(**batch).logits * temperature, trained.eval()(**batch).logits, atol=1e-5)


def test_without_a_need_nothing_is_folded_in(trainer: Make, config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_challenger.trainer.challenged_temperature", lambda *args, **kwargs: 1.0)
    run = trainer(**DEFAULT)
    assert run.train().metrics["challenge_temperature"] == 1
    for a, b in zip(run.model.parameters(), plain(config).model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not hasattr(run.model.config, "calibration_temperature")


def test_a_last_batch_that_is_not_full_counts_whole_and_no_other_is_cut(trainer: Make) -> None:
    found = [trainer(data=tiny_data(21), per_device_eval_batch_size=size, **DEFAULT).train().metrics for size in (8, 21)]
    for key in ("challenge_temperature", "expected_accuracy"):
        assert found[0][key] == pytest.approx(found[1][key], rel=1e-4)
    assert found[0]["challenge_temperature"] > 1


def test_plain_training_arguments_get_it_too(trainer: Make, config: Any) -> None:
    assert "challenge_temperature" in trainer(args=config(cls=TrainingArguments, max_steps=60)).train().metrics


def test_plain_trainer_stays_plain(trainer: Make, config: Any) -> None:
    run = trainer(challenge_share=0.0, challenge_temperature=None, max_steps=60)
    assert "challenge_temperature" not in run.train().metrics
    for a, b in zip(run.model.parameters(), plain(config).model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not hasattr(run.model.config, "calibration_temperature")


def test_it_goes_with_a_challenge_in_training(trainer: Make) -> None:
    run = trainer(challenge_share=0.5, challenge_temperature=True, max_steps=60)
    assert "challenge_temperature" in run.train().metrics
    assert any("challenged_share" in log for log in run.state.log_history)


def test_training_goes_on_from_the_model_as_it_was_trained(trainer: Make, config: Any) -> None:
    twice = trainer(
        **DEFAULT, optim="sgd", learning_rate=0.5
    )  # Adam would blow up the rounding errors of gradients that are zero
    twice.train()
    temperature = twice.train().metrics["challenge_temperature"]
    expected = plain(config, optim="sgd", learning_rate=0.5)
    expected.train()
    for (name, a), b in zip(twice.model.named_parameters(), expected.model.parameters(), strict=True):
        assert torch.allclose(a, b / temperature if name.startswith("classifier") else b, atol=1e-5), name
    assert twice.model.config.calibration_temperature == pytest.approx(temperature)


def test_the_config_tells_of_this_training_alone(trainer: Make, tmp_path: Any) -> None:
    first = trainer(**DEFAULT)
    assert first.train().metrics["challenge_temperature"] > 1
    first.save_model(str(tmp_path / "first"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "first")
    assert model.config.calibration_temperature > 1
    second = trainer(model, challenge_share=0.0, challenge_temperature=False)
    second.train()
    assert not hasattr(second.model.config, "calibration_temperature")


def test_other_training_rows_have_an_accuracy_of_their_own(trainer: Make) -> None:
    run = trainer(**DEFAULT)
    expected = [run.train().metrics["expected_accuracy"] for _ in range(2)]
    run.train_dataset = tiny_data(40)
    again = run._expect()
    assert run.train().metrics["expected_accuracy"] == again
    assert expected[0] == expected[1] != again


def test_checkpoints_hold_the_model_as_it_was_trained(trainer: Make, config: Any, tmp_path: Any) -> None:
    run = trainer(**DEFAULT, save_strategy="steps", save_steps=30)
    whole = run.train().metrics["challenge_temperature"]
    resumed = trainer(**DEFAULT, save_strategy="no")
    again = resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-30")).metrics["challenge_temperature"]
    assert again == pytest.approx(whole, rel=1e-6)
    kept = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "checkpoint-60").state_dict()
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


def test_what_cannot_be_calibrated_is_trained_all_the_same(trainer: Make) -> None:
    alone = tiny_data(8).map(lambda row, i: {"labels": i}, with_indices=True)
    run = trainer(model=tiny_bert(num_labels=8), data=alone, **{**DEFAULT, "max_steps": 2})
    said = r"as it is trained, without a temperature.*No class has two training rows.*challenge_temperature=False"
    with pytest.warns(ChallengerWarning, match=said):
        output = run.train()
    assert output.global_step == 2
    assert "challenge_temperature" not in output.metrics


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


def test_large_sets_are_sampled_evenly(trainer: Make) -> None:
    data = tiny_data(32)
    assert [row["labels"] for row in trainer(data=data)._some_rows(10)] == data["labels"][::4]
    assert [row["labels"] for row in trainer(data=tiny_rows(32))._some_rows(10)] == data["labels"][::4]
    assert len(trainer(data=data.to_iterable_dataset())._some_rows(10)) == 10


def test_more_rows_tell_the_accuracy_than_the_temperature(trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hf_challenger.trainer.EXPECTATION_ROWS", 16)
    monkeypatch.setattr("hf_challenger.trainer.CALIBRATION_ROWS", 8)
    told = trainer(data=tiny_data(32), **DEFAULT).train().metrics
    rows = [dict(tiny_tokenizer().pad(tiny_rows(32)[::2], return_tensors="pt"))]
    accuracy = expected_accuracy(tiny_bert(), rows, attended)
    assert told["expected_accuracy"] == pytest.approx(accuracy)
    assert accuracy != pytest.approx(expected_accuracy(tiny_bert(), batches(32, 32), attended))
    used = []
    monkeypatch.setattr(
        "hf_challenger.trainer.challenged_temperature", lambda *args, rows, **kwargs: used.append(rows) or 1.0
    )
    trainer(data=tiny_data(32), **DEFAULT).train()
    assert used == [8]


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
    temperature = run.train().metrics["challenge_temperature"]
    assert not any("challenged_share" in log for log in run.state.log_history)
    for (name, a), b in zip(run.model.named_parameters(), expected.model.parameters(), strict=True):
        last = name.startswith(("head.linear", "classifier.dense"))
        assert torch.equal(a, b / temperature if last else b), name


def test_images_are_challenged_in_training_and_calibrated_after_it(trainer: Make) -> None:
    model, data, _ = image_rows()
    run = trainer(model=model, data=data, kwargs={"processing_class": None, "eval_dataset": None}, **DEFAULT)
    assert "challenge_temperature" in run.train().metrics
    assert any("challenged_share" in log for log in run.state.log_history)


@pytest.mark.parametrize("rows", [series_rows, image_rows])
def test_series_and_images_are_calibrated_as_texts_are(rows: Any, trainer: Make) -> None:
    model, data, options = rows()
    for row in data[::4]:  # labels that no input tells
        row |= {k: (v + 1) % 3 for k, v in row.items() if isinstance(v, int)}
    untrained = copy.deepcopy(model)
    told: list[Any] = []
    for share in (0.0, 0.5):
        run = trainer(
            model=copy.deepcopy(untrained),
            data=data,
            kwargs={"processing_class": None, "eval_dataset": None},
            **{**options, "challenge_temperature": True, "challenge_share": share, "max_steps": 90},
        )
        output = run.train().metrics
        told.append((run, output["challenge_temperature"]))
        label = run.label_names[0]
        batch = [{k: torch.stack([torch.as_tensor(row[k]) for row in data]) for k in data[0]}]
        batch[0]["labels"] = batch[0].pop(label)
        accuracy = expected_accuracy(untrained, batch, None)
        assert output["expected_accuracy"] == pytest.approx(accuracy)
        apply_temperature(run.model, 1 / told[-1][1], {k: v for k, v in batch[0].items() if k != "labels"})
        again = challenged_temperature(run.model, batch, accuracy, seed=run.args.seed)
        assert told[-1][1] == pytest.approx(again, rel=1e-3)
    assert told[0][1] > 1.05


def test_a_loader_that_drops_its_last_batch_drops_none_here(trainer: Make) -> None:
    whole, dropping = (
        trainer(data=tiny_data(21), per_device_eval_batch_size=32, dataloader_drop_last=drop, **DEFAULT)
        for drop in (False, True)
    )
    expected = whole._expect()
    assert dropping._expect() == expected
    assert dropping.args.dataloader_drop_last
    assert "challenge_temperature" in dropping.train().metrics


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
        assert ("challenge_temperature" in run.train().metrics) == (options is DEFAULT)
        bodies.append([p for name, p in run.model.named_parameters() if not name.startswith("head.linear")])
    assert all(torch.equal(a, b) for a, b in zip(*bodies, strict=True))


class Detached(torch.nn.Module):
    """What no gradient reaches the inputs of."""

    main_input_name = "past_values"

    def __init__(self) -> None:
        super().__init__()
        self.head = torch.nn.Linear(48, 3)

    def forward(self, past_values: torch.Tensor, labels: torch.Tensor | None = None) -> Any:
        with torch.no_grad():
            x = past_values.flatten(1) * 2
        logits = self.head(x)
        loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def test_errors_of_any_kind_leave_the_model_as_it_was_trained(trainer: Make) -> None:
    data = [{"past_values": row["past_values"], "labels": row["target_values"]} for row in series_rows()[1]]
    kwargs = {"processing_class": None, "eval_dataset": None}
    run = trainer(model=Detached(), data=data, kwargs=kwargs, **DEFAULT)
    with pytest.warns(ChallengerWarning, match="without a temperature.*RuntimeError: .*challenge_temperature=False"):
        assert run.train().global_step == 60
    run = trainer(**DEFAULT)
    run.train_dataset = None
    run.get_train_dataloader = lambda: torch.utils.data.DataLoader(tiny_data(), 8, collate_fn=run.data_collator)
    with pytest.warns(ChallengerWarning, match="There is no train_dataset"):
        assert run.train().global_step == 60


def test_labels_that_no_training_could_take_are_told_before_it(trainer: Make) -> None:
    data = [{**row, "labels": row["labels"] + 1} for row in image_rows()[1]]
    options = {**DEFAULT, "challenge_share": 0.0, "challenge_temperature": True}
    run = trainer(model=image_rows()[0], data=data, kwargs={"processing_class": None, "eval_dataset": None}, **options)
    with pytest.raises(ChallengerError, match="Label 3 is outside the model's 3 classes"):
        run.train()
    assert run.state.global_step == 0


def test_what_is_no_answer_is_refused() -> None:
    with pytest.raises(ChallengerError, match="challenge_temperature='warm' is neither True nor False nor None"):
        ChallengerConfig("out", challenge_temperature="warm")
