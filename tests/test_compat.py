"""Each workaround of compat.py is still needed: a test that fails here says that the installed transformers mends the fault."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import Trajectory, tiny_bert, tiny_data, tiny_tokenizer
from transformers import Trainer, TrainingArguments

from hf_challenger import ChallengerTrainer
from hf_challenger.compat import head_takes_the_mean, ignored_outputs, rows_a_micro_batch


def first_gradient(config: Any, **options: Any) -> torch.Tensor:
    seen = Trajectory()
    args = config(TrainingArguments, max_steps=1, max_grad_norm=0.0, optim="sgd", **options)
    run = Trainer(tiny_bert(), args, train_dataset=tiny_data(8), processing_class=tiny_tokenizer(), callbacks=[seen])
    run.train()
    return seen.gradients[0]


def test_stock_trainer_still_multiplies_gradients_by_the_micro_batches(config: Any) -> None:
    """transformers issue 47688. If this fails, head_takes_the_mean and loss_over_the_step may go."""
    whole = first_gradient(config, per_device_train_batch_size=8)
    parts = first_gradient(config, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert float(parts.norm() / whole.norm()) == pytest.approx(4, rel=1e-3)


def test_stock_trainer_still_cuts_the_first_row_of_a_bare_tensor(config: Any) -> None:
    """If this fails, ChallengerTrainer.compute_loss need not wrap tensors in evaluation."""

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x)

    rows = [{"x": [1.0, 2.0], "labels": 1}] * 4
    run = Trainer(
        Bare(),
        config(TrainingArguments, label_names=["labels"], remove_unused_columns=False),
        eval_dataset=rows,
        compute_loss_func=lambda outputs, labels, num_items_in_batch=None: outputs.sum() * 0,
    )
    assert len(run.predict(rows).predictions) == 3


@pytest.mark.parametrize("name", ["_push_from_checkpoint", "_finish_current_push"])
def test_the_private_hooks_of_uploads_are_there(name: str) -> None:
    assert callable(getattr(Trainer, name))


def test_ignored_outputs_are_those_of_prediction_step() -> None:
    assert "keys_to_ignore_at_inference" in inspect.getsource(Trainer.prediction_step)
    assert "past_key_values" in ignored_outputs(tiny_bert(), None)
    assert ignored_outputs(None, ["mine"]) == ["mine"]


@pytest.mark.parametrize("name", ["past_key_values", "cache"])
def test_what_stands_before_the_logits_is_left_out_in_any_version(config: Any, name: str) -> None:
    class Cached(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(2, 2)

        def forward(self, x: torch.Tensor, labels: Any = None) -> Any:
            return {"loss": self.head(x).sum() * 0, name: torch.zeros(len(x), 2), "logits": torch.eye(2)[labels]}

    run = ChallengerTrainer(Cached(), config())
    metrics = run.evaluate([{"x": [1.0, 2.0], "labels": i % 2} for i in range(6)])
    assert metrics["eval_accuracy"] == 1.0


def test_rows_of_a_micro_batch_are_those_of_the_loader(config: Any) -> None:
    args = config(TrainingArguments, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    run = Trainer(tiny_bert(), args, train_dataset=tiny_data(16), processing_class=tiny_tokenizer())
    assert rows_a_micro_batch(run) == 4 == len(next(iter(run.get_train_dataloader()))["labels"])


def test_only_a_heads_own_loss_is_a_mean_over_its_batch(config: Any) -> None:
    args = config(TrainingArguments)
    assert head_takes_the_mean(Trainer(tiny_bert(), args), tiny_bert())
    smoothed = Trainer(tiny_bert(), config(TrainingArguments, label_smoothing_factor=0.1))
    assert not head_takes_the_mean(smoothed, tiny_bert())
    in_peft = get_peft_model(
        tiny_bert(), LoraConfig(target_modules=["query"], modules_to_save=["classifier"])
    )  # no task_type
    assert head_takes_the_mean(Trainer(in_peft, args), in_peft)
    assert not head_takes_the_mean(Trainer(tiny_bert(), args), torch.nn.Linear(1, 1))
