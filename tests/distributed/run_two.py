"""Training runs on the CPU, for one process or for each rank of two (gloo, started by torchrun).

As a script it writes what the rank saw to ``FOLDER/<rank>.pt``: gradients and weights of every step, masks, logs, metrics.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedDataParallelKwargs
from tiny import Trajectory, leaky_data, tiny_bert, tiny_data, tiny_tokenizer

from hf_challenger import ChallengerConfig, ChallengerTrainer
from hf_challenger.challenge import challenger as challenge_module

torch.set_num_threads(1)
challenge_module.SURE = 0.0  # a tiny model is sure of nothing


class Recording(ChallengerTrainer):
    """Keeps the masks of every challenge, one list of booleans per row, padding left out."""

    static_graph = False

    def _challenger_for(self, model: Any, options: Any) -> Any:
        challenger = super()._challenger_for(model, options)
        if not hasattr(challenger, "masks"):
            challenger.masks, challenge = [], challenger.challenge

            def recorded(inputs: Any, labels: Any, step: int, *args: Any) -> Any:
                challenged = challenge(inputs, labels, step, *args)
                for row, mask in enumerate(challenged.drop_mask):
                    keep = inputs["attention_mask"][row].bool()
                    challenger.masks.append((step, inputs["input_ids"][row][keep].tolist(), mask[keep].tolist()))
                return challenged

            challenger.challenge = recorded
        return challenger

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if self.static_graph:
            self.accelerator.ddp_handler = DistributedDataParallelKwargs(static_graph=True)


def train(
    out: str,
    options: dict[str, Any],
    rows: list[int] | None = None,
    problem: str = "single_label_classification",
    static_graph: bool = False,
    leaky: bool = False,
) -> dict[str, Any]:
    """One run; what this rank saw of it. ``leaky``: data with a word that tells the class."""
    outputs = {"num_labels": 1} if problem == "regression" else {"num_labels": 2} if leaky else {}
    seen = Trajectory()
    Recording.static_graph = static_graph
    data = leaky_data(64) if leaky else tiny_data(32, problem)
    trainer = Recording(
        model=tiny_bert(problem_type=problem, **outputs).double(),
        args=ChallengerConfig(
            **{
                "output_dir": out,
                "use_cpu": True,
                "report_to": "none",
                "save_strategy": "no",
                "optim": "sgd",
                "learning_rate": 0.1,
                "max_grad_norm": 0.0,
                "logging_steps": 1,
                "disable_tqdm": True,
                "num_train_epochs": 1,
                "train_sampling_strategy": "sequential",
                **options,
            },
        ),
        train_dataset=data if rows is None else data.select(rows),
        eval_dataset=leaky_data(11, seed=1) if leaky else tiny_data(11, problem, seed=1),
        processing_class=tiny_tokenizer(),
        callbacks=[seen],
    )
    output = trainer.train()
    return {
        "temperature": output.metrics.get("calibration_temperature"),
        "cues": [(cue.text, cue.class_name, cue.hidden_rows, cue.coverage, cue.strength) for cue in trainer.cues],
        "processes": trainer.accelerator.num_processes,
        "metrics": trainer.evaluate(),
        "masks": trainer._challenger.masks if trainer._challenger is not None else [],
        "wrapper": type(trainer.model_wrapped).__name__,
        "static_graph": getattr(trainer.model_wrapped, "static_graph", False),
        **vars(seen),
    }


if __name__ == "__main__":
    folder, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
    found = {name: train(str(folder / "run"), **job) for name, job in jobs.items()}
    torch.save(found, folder / f"{os.environ['RANK']}.pt")
