"""What the examples for series and images share: train with Trainer, with ChallengerTrainer, or with both; one table."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, set_seed

from hf_challenger import Challenger, ChallengerConfig, ChallengerTrainer
from hf_challenger.attribution import LRP
from hf_challenger.calibration import compute_metrics
from hf_challenger.logits import logits_of
from hf_challenger.visualize import image_relevance, series_relevance

from .cards import write_card
from .comparison import every_seed_and_method, of_the_temperature
from .data import Rows, Splits, subset_per_class


@dataclass
class Arguments:
    """What is trained, on what."""

    data_dir: str | None = field(default=None, metadata={"help": "Folder or npz file. Default: the embedded set."})
    max_train_samples_per_class: int | None = field(
        default=None, metadata={"help": "Train on that many rows of each class."}
    )
    method: str = field(default="challenger", metadata={"help": "challenger or plain.", "choices": ["challenger", "plain"]})
    compare: bool = field(
        default=False, metadata={"help": "Train with both methods from the same seed and print one table."}
    )
    seeds: list[int] = field(default_factory=list, metadata={"help": "Repeat with these seeds; the table shows means."})
    threads: int | None = field(default=None, metadata={"help": "Threads of torch."})


@dataclass
class SmallDataConfig(ChallengerConfig):
    """ChallengerConfig with defaults for small data; every flag can be set."""

    learning_rate: float = field(default=1e-3)
    lr_scheduler_type: str = field(default="cosine")
    warmup_steps: float = field(default=0.1)
    per_device_train_batch_size: int = field(default=16)
    per_device_eval_batch_size: int = field(default=256)
    logging_steps: float = field(default=0.05)
    save_strategy: str = field(default="no")
    # None first: HfArgumentParser reads the union so.
    report_to: None | str | list[str] = field(default="none")  # noqa: RUF036


# (splits, labels) -> an untrained model
MakeModel = Callable[..., PreTrainedModel]


def run_all(
    args: Arguments, config: SmallDataConfig, splits: Splits, make_model: MakeModel, embedded: str, largest_shift: int = 0
) -> tuple[list[dict[str, Any]], ChallengerTrainer | Trainer]:
    """Each seed with each method; prints and saves the table if both are compared. Returns results, and the last trainer.

    ``embedded`` is what the cards call the data set that comes without ``--data_dir``.
    """
    if args.threads:
        torch.set_num_threads(args.threads)
    trainer: Any = None

    def run_one(method: str, one: SmallDataConfig) -> dict[str, Any]:
        nonlocal trainer
        subset = subset_per_class(splits, args.max_train_samples_per_class, one.seed)
        card = {"compare": args.compare, "dataset": None if args.data_dir else embedded}
        result, trainer = run(method, one, subset, make_model, largest_shift, card)
        return result

    results = every_seed_and_method(run_one, config, args.method, args.compare, args.seeds)
    print(f"Models and results are in {config.output_dir}{os.sep}")
    return results, trainer


def run(
    method: str,
    config: SmallDataConfig,
    splits: Splits,
    make_model: MakeModel,
    largest_shift: int,
    card: dict[str, Any],
) -> tuple[dict[str, Any], Trainer]:
    """Train with one method; saves the model, its card and ``<method>_results.json`` in its output_dir."""
    set_seed(config.seed)
    id2label = dict(enumerate(splits.labels))
    model = make_model(splits, num_labels=len(id2label), id2label=id2label, label2id={n: i for i, n in id2label.items()})
    name, label_name = model.main_input_name, label_name_of(model)
    config = replace(config, label_names=[label_name])
    train = Rows(splits.x_train, splits.y_train, name, label_name, splits.length_train, largest_shift)
    test = Rows(splits.x_test, splits.y_test, name, label_name, splits.length_test)
    print(f"\n=== {method}: {len(train)} rows, {len(id2label)} classes, seed {config.seed} ===", flush=True)
    if method == "plain":
        trainer = Trainer(model, config, train_dataset=train, compute_metrics=compute_metrics)
    else:
        trainer = ChallengerTrainer(model, config, train_dataset=train)
    began = time.perf_counter()
    trained = trainer.train().metrics
    seconds = time.perf_counter() - began
    result = {"method": method, "seed": config.seed, "model": type(model).__name__, "train_samples": len(train)}
    result |= of_the_temperature(trained)
    result |= {"seconds": seconds, **trainer.evaluate(test, metric_key_prefix="test")}
    trainer.save_model()
    write_card(trainer, test, lambda: heat_maps(trainer.model, config, splits), **card)
    Path(config.output_dir, f"{method}_results.json").write_text(json.dumps(result, indent=2) + "\n")
    return result, trainer


def heat_maps(model: PreTrainedModel, config: SmallDataConfig, splits: Splits) -> dict[str, Any]:
    """Caption → figure, for the first test rows of three classes: relevance for the row's own class."""
    classes = range(min(3, len(splits.labels)))
    shown = look_at(model, config, splits, [int((splits.y_test == label).argmax()) for label in classes])
    draw = image_relevance if model.main_input_name == "pixel_values" else series_relevance
    return {f"{one.label}, predicted: {one.predicted}": draw(one.x, one.relevance, one.label) for one in shown}


def label_name_of(model: PreTrainedModel) -> str:
    """PatchTST calls the class ``target_values``, all others ``labels``."""
    return "target_values" if type(model).__name__ == "PatchTSTForClassification" else "labels"


@dataclass
class Shown:
    """One row as it is, its relevance, and as it is challenged; tensors of the input's own shape."""

    x: torch.Tensor
    relevance: torch.Tensor
    hidden: torch.Tensor
    challenged: torch.Tensor
    label: str
    predicted: str


def look_at(model: PreTrainedModel, config: SmallDataConfig, splits: Splits, rows: list[int]) -> list[Shown]:
    """Test rows with the relevance for their own class, and what a challenge makes of them."""
    model.eval()
    name = model.main_input_name
    batch = {name: torch.as_tensor(splits.x_test[rows], dtype=torch.float32)}
    if splits.length_test is not None:
        whole = Rows(splits.x_test[rows], splits.y_test[rows], name, lengths=splits.length_test[rows])
        batch["past_observed_mask"] = torch.stack([whole[i]["past_observed_mask"] for i in range(len(rows))])
    labels = torch.as_tensor(splits.y_test[rows])
    model.to("cpu")
    relevance = LRP(model).attribute(batch, target=labels)
    challenger = Challenger(
        model, replace(config, challenge_share=1.0, challenge_mix="replace", challenge_weight=None), seed=config.seed
    )
    mixed = challenger.challenge(batch, labels, step=0)
    grid = challenger.units.maskable(batch).shape[1:]
    hidden = challenger.units.hidden(batch, mixed.drop_mask.unflatten(1, grid))
    with torch.no_grad():
        predicted = logits_of(model(**batch)).argmax(-1)
    return [
        Shown(
            batch[name][i],
            relevance[i],
            hidden[i],
            mixed.inputs[name][i],
            splits.labels[labels[i]],
            splits.labels[predicted[i]],
        )
        for i in range(len(rows))
    ]
