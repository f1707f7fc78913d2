"""JTT and MaskTune: what they train on, and that they come down to Trainer where they should."""

import sys
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

from jtt import JTTTrainer  # noqa: E402
from masktune import MaskTuneTrainer, above_two_deviations  # noqa: E402
from tiny import tiny_bert, tiny_tokenizer  # noqa: E402

WORDS = 12
STEPS = 6


def rows():
    """Ten rows in which a word tells the class, and two that contradict it."""
    tokenizer = tiny_tokenizer()
    texts = [f"w{label} " + " ".join(f"w{3 + (7 * i + j) % 30}" for j in range(WORDS)) for i, label in enumerate([0, 1] * 6)]
    labels = [i % 2 if i < 10 else 1 - i % 2 for i in range(12)]
    return [{**tokenizer(text), "labels": label} for text, label in zip(texts, labels, strict=True)]


def trained(kind, tmp_path, settings=None, **options):
    options = {"learning_rate": 3e-3, "max_steps": STEPS, "per_device_train_batch_size": 4, **options}
    args = TrainingArguments(
        tmp_path, use_cpu=True, report_to="none", save_strategy="no", seed=1, disable_tqdm=True, **options
    )
    more = {} if settings is None else {"settings": settings}
    trainer = kind(model=tiny_bert(num_labels=2), args=args, train_dataset=rows(), processing_class=tiny_tokenizer(), **more)
    trainer.train()
    return trainer


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


# --- JTT --------------------------------------------------------------------------------------------------------------------


def test_jtt_without_upweighting_is_trainer(tmp_path):
    plain = trained(Trainer, tmp_path)
    jtt = trained(JTTTrainer, tmp_path, {"first": 0.5, "upweight": 1})
    assert torch.equal(weights(plain), weights(jtt))
    assert jtt.state.global_step == STEPS


def test_jtt_repeats_the_rows_that_the_first_model_gets_wrong(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        JTTTrainer,
        "get_train_dataloader",
        lambda self: (seen.append((self.args.max_steps, len(self.train_dataset))), Trainer.get_train_dataloader(self))[1],
    )
    jtt = trained(JTTTrainer, tmp_path, {"first": 0.5, "upweight": 5}, dataloader_drop_last=True)
    first = trained(Trainer, tmp_path, max_steps=STEPS // 2)
    predicted = first.predict(rows()).predictions.argmax(-1)
    assert jtt.wrong == [i for i, row in enumerate(rows()) if predicted[i] != row["labels"]]
    assert 0 < len(jtt.wrong) < 12
    assert seen == [(STEPS // 2, 12), (STEPS, 12 + 4 * len(jtt.wrong))]
    assert not torch.equal(weights(jtt), weights(trained(Trainer, tmp_path)))
    assert (jtt.args.max_steps, len(jtt.train_dataset), jtt.args.dataloader_drop_last) == (STEPS, 12, True)


@pytest.mark.parametrize(
    ("settings", "options", "words"),
    [
        ({"first": 0.5, "upweight": 2.5}, {}, "whole number ≥ 1, not 2.5"),
        ({"first": 0.5, "upweight": 2}, {"max_steps": -1}, "max_steps, which is -1"),
    ],
)
def test_jtt_refuses_what_it_cannot_do(settings, options, words, tmp_path):
    with pytest.raises(SystemExit, match=words):
        trained(JTTTrainer, tmp_path, settings, **options)


# --- MaskTune ---------------------------------------------------------------------------------------------------------------


def test_the_threshold_is_mean_and_two_deviations_of_positive_relevance():
    relevance = torch.tensor([[1.0, 1, 1, 1, 1, 1, 9, -50, 90], [1, 2, 3, 4, 5, 6, 7, 8, 9]])
    maskable = torch.ones(2, 9, dtype=torch.bool)
    maskable[0, 8] = False
    values = relevance[0, :7]
    assert 9 > values.mean() + 2 * values.std(correction=0) > 1
    mask = above_two_deviations(relevance, maskable)
    assert mask.nonzero().tolist() == [[0, 6]]
    assert not above_two_deviations(-relevance, maskable)[1].any()


def test_masktune_with_a_rate_of_zero_is_trainer(tmp_path):
    plain = trained(Trainer, tmp_path, weight_decay=0.1)
    tuned = trained(MaskTuneTrainer, tmp_path, {"rate_factor": 0.0}, weight_decay=0.1)
    assert torch.equal(weights(plain), weights(tuned))


def test_masktune_trains_one_epoch_more_on_masked_rows_and_restores_the_arguments(tmp_path, monkeypatch):
    batches = []

    def compute_loss(self, model, inputs, *args, **kwargs):
        rates = [group["lr"] for group in self.optimizer.param_groups]
        batches.append((int(inputs["attention_mask"].sum()), inputs["input_ids"].shape, rates[0], "labels" in inputs))
        return original(self, model, inputs, *args, **kwargs)

    original = Trainer.compute_loss
    monkeypatch.setattr(Trainer, "compute_loss", compute_loss)
    monkeypatch.setattr(
        "masktune.above_two_deviations", lambda relevance, maskable: maskable & (relevance >= relevance.amax())
    )
    tuned = trained(MaskTuneTrainer, tmp_path, {"rate_factor": 0.1})
    assert len(batches) == STEPS + 3
    assert all(attended == 4 * (WORDS + 3) for attended, *_ in batches[:STEPS])
    assert all(attended <= 4 * (WORDS + 3) for attended, *_ in batches[STEPS:])
    assert any(attended < 4 * (WORDS + 3) for attended, *_ in batches[STEPS:])
    assert all(rate == pytest.approx(3e-4) for *_, rate, _ in batches[STEPS:])
    assert all(labelled for *_, labelled in batches)
    assert tuned.state.global_step == STEPS + 3
    assert (tuned.args.max_steps, tuned.args.learning_rate, str(tuned.args.lr_scheduler_type)) == (
        STEPS,
        3e-3,
        "SchedulerType.LINEAR",
    )
    assert tuned.trained is None
