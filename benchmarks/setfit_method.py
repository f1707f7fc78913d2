"""SetFit (Tunstall et al. 2022, arXiv 2209.11055) as a method of the benchmark: sentence pairs first, then logistic regression."""

from __future__ import annotations

from typing import Any

import numpy as np
from models import minilm_folder
from transformers import Trainer
from transformers.trainer_utils import PredictionOutput, TrainOutput


class SetFitRival(Trainer):
    """The setfit package behind the few calls of :class:`~transformers.Trainer` that the runner makes.

    The encoder is the one that the other methods fine-tune, with the mean over tokens that it was trained with. Pairs are texts
    joined by the separator. Setting "num_iterations": pairs of either kind for each text.
    """

    def __init__(self, *args: Any, settings: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings

    def train(self) -> TrainOutput:
        from datasets import Dataset
        from setfit import SetFitModel, TrainingArguments
        from setfit import Trainer as SetFitTrainer

        self.setfit = SetFitModel.from_pretrained(minilm_folder(), device="cpu")
        texts, labels = self.train_dataset.texts, [row["labels"] for row in self.train_dataset]
        args = TrainingArguments(
            self.args.output_dir,
            batch_size=16,
            num_epochs=1,
            seed=self.args.seed,
            report_to="none",
            save_strategy="no",
            show_progress_bar=False,
            **self.settings,
        )
        trainer = SetFitTrainer(self.setfit, args, train_dataset=Dataset.from_dict({"text": texts, "label": labels}))
        trainer.train()
        self.state.global_step = trainer.st_trainer.state.global_step
        return TrainOutput(self.state.global_step, 0.0, {})

    def predict(self, rows: Any) -> PredictionOutput:
        probabilities = self.setfit.predict_proba(rows.texts, as_numpy=True)
        return PredictionOutput(np.log(np.maximum(probabilities, 1e-12)), np.array([row["labels"] for row in rows]), None)
