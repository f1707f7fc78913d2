"""A training run that saves every other step, resumes where it finds a checkpoint, and may kill itself on the way.

``python run_killed.py FOLDER SIGNAL STEP [RANK]``: at STEP the process (of that RANK) sends itself SIGNAL; 0 is no signal.
Writes the loss of each step to ``FOLDER/losses-<rank>.json`` at the end.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from tiny import tiny_bert, tiny_data, tiny_tokenizer
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from hf_challenger import ChallengerConfig, ChallengerTrainer

torch.set_num_threads(1)


class Kill(TrainerCallback):
    def __init__(self, signal: int, step: int) -> None:
        self.signal, self.step = signal, step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.signal and state.global_step == self.step:
            os.kill(os.getpid(), self.signal)


def main(folder: Path, signal: int, step: int, rank: int = 0) -> None:
    own_rank = int(os.environ.get("RANK", 0))
    trainer = ChallengerTrainer(
        model=tiny_bert(dropout=0.1),
        args=ChallengerConfig(
            str(folder),
            challenge_share=0.5,
            challenge_selection="sample",
            use_cpu=True,
            report_to="none",
            save_steps=2,
            max_steps=7,
            logging_steps=1,
            learning_rate=0.01,
            disable_tqdm=True,
        ),
        train_dataset=tiny_data(32),
        processing_class=tiny_tokenizer(),
        callbacks=[Kill(signal if rank == own_rank else 0, step)],
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    (folder / f"losses-{own_rank}.json").write_text(json.dumps(losses))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
