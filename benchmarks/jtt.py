"""Just Train Twice (Liu et al., ICML 2021, arXiv 2107.09044) as a method of the benchmark."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from torch.utils.data import Subset
from transformers import Trainer, set_seed
from transformers.trainer_utils import TrainOutput


class JTTTrainer(Trainer):
    """Trains twice: the second time with the training rows that the first model gets wrong upweighted.

    The first model is trained for a share of the steps, so that it has learned the easy cue and not yet the exceptions. The second
    starts from the initial weights and takes all steps. Rows are upweighted as in the authors' code: they occur ``upweight`` times.

    Args:
        settings: "first", share of the steps for the first model, in (0, 1]; "upweight", the paper's λ_up, a whole number ≥ 1.
    """

    def __init__(self, *args: Any, settings: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings
        if self.args.max_steps < 1:
            raise SystemExit(
                f"JTT trains for a share of max_steps, which is {self.args.max_steps}. Set it to the steps to take."
            )
        if settings["upweight"] != int(settings["upweight"]) or settings["upweight"] < 1:
            raise SystemExit(f"JTT repeats rows upweight times: a whole number ≥ 1, not {settings['upweight']}.")

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        initial = copy.deepcopy(self.model.state_dict())
        rows, steps = self.train_dataset, self.args.max_steps
        self.args.max_steps = max(1, round(self.settings["first"] * steps))
        super().train(*args, **kwargs)
        self.wrong = self._misclassified(rows)

        self.model.load_state_dict(initial)
        self.optimizer = self.lr_scheduler = None
        self.args.max_steps = steps
        more = [row for row in self.wrong for _ in range(int(self.settings["upweight"]) - 1)]
        self.train_dataset = Subset(rows, [*range(len(rows)), *more])
        set_seed(self.args.seed)  # with no row upweighted, this is the training of Trainer
        output = super().train(*args, **kwargs)
        self.train_dataset = rows
        return output

    def _misclassified(self, rows: Any) -> list[int]:
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False  # it holds for all loaders
        prediction = self.predict(rows)
        self.args.dataloader_drop_last = drop_last
        scores = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
        return np.flatnonzero(scores.argmax(-1) != prediction.label_ids).tolist()
