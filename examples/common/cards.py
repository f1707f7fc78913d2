"""A saved model's README: results beside the plain baseline's, a reliability diagram, and what decisions rest on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import Trainer

from hf_challenger import ChallengerTrainer
from hf_challenger.visualize import reliability_diagram


def write_card(
    trainer: Trainer, held_out: Dataset | None, heat_maps: Callable[[], dict[str, Any]], compare: bool, **told: Any
) -> None:
    """Write README.md and pictures/ into the trainer's folder; nothing for a plain ``Trainer``.

    Args:
        trainer: after its evaluations, which the card reports.
        held_out: rows of the reliability diagram.
        heat_maps: called once, the last thing here that needs the model: captions → figures.
        compare: whether a plain ``Trainer`` was trained before, in the folder ``plain`` beside this one.
        told: further arguments of ``create_model_card``.
    """
    if not isinstance(trainer, ChallengerTrainer):
        return
    folder = Path(str(trainer.args.output_dir))
    if compare:
        told["baseline"] = json.loads((folder.parent / "plain" / "plain_results.json").read_text())
    if held_out is not None:
        prediction = trainer.predict(held_out)
        probabilities = torch.as_tensor(prediction.predictions).float().softmax(1)
        told["reliability_diagram"] = reliability_diagram(probabilities, torch.as_tensor(prediction.label_ids))
    trainer.create_model_card(heat_maps=heat_maps() or None, **told)
