"""When the cue memory is updated, saved and reported, in a ``Trainer``'s run."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from .challenge.cues import Cue, as_rows
from .challenge.row_memory import FEWEST_ROWS
from .challenge.selection import CUES
from .counts import Counts
from .errors import ChallengerWarning

MEMORY_FILE, CUES_FILE = "cue_memory.pt", "cues.json"
SHOWN = 5  # cues on the console

logger = logging.get_logger(__name__)


class CueCallback(TrainerCallback):
    """Added by :class:`~hf_challenger.ChallengerTrainer` by itself."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer: Any = trainer
        self.first_step = 0

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Trainer has read the loss by now (``logging_nan_inf_filter``), so that what the checks found has arrived too."""
        if self.trainer._challenger is not None:
            self.trainer._challenger.checks.read()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """All processes are here; what the step's micro-batches showed is remembered."""
        if self.trainer._challenger is not None:
            self.trainer._challenger.update()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        challenger, counts = self.trainer._challenger, self.trainer._counter.so_far()
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        if challenger is None or args.save_only_model:
            return
        memory = challenger.memory.state_of_all(self._sum)
        if state.is_world_process_zero and folder.is_dir():
            saved = {**memory, "counts": asdict(counts), "names": challenger.options.names}
            torch.save(saved, folder / MEMORY_FILE)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.first_step = state.global_step
        self.trainer._start_afresh()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        challenger = self.trainer._challenger
        if challenger is not None:
            challenger.checks.read(wait=True)
        self.trainer._counter.read()
        if self._never_asked(args, state):
            warnings.warn(
                f"Nothing was challenged: {type(self.trainer).__name__}.compute_loss never called ChallengerTrainer's. Call"
                " super().compute_loss there, or pass the loss as compute_loss_func; challenge_share=0 says that you want neither.",
                ChallengerWarning,
                stacklevel=2,
            )
        if challenger is None:
            return
        counted = [challenger.leaks, challenger.keep, challenger.memory]
        for counts in counted:
            counts.reduce_counts(self._sum)
        for named in counted[:2] if state.is_world_process_zero and not self.first_step else ():
            for name, rows in named.rows_of().items():
                if not rows:
                    logger.warning("%s names %r, but no row of this training holds it.", named.option, name)
        if state.is_world_process_zero and any(challenger.leaks.rows_of().values()):
            rows_of = (f"{name!r} {rows} times" for name, rows in challenger.leaks.rows_of().items() if rows)
            print(f"Taken out by challenge_hide, counted at each visit of a row: {', '.join(rows_of)}.", flush=True)
        if challenger.options.challenge_selection != CUES:
            return
        if state.is_world_process_zero and not self.trainer._trains_as_trainer:
            from .report.card_text import cues_table
            from .report.text_log import log_text

            kept = self._go_back_to_the_best(args, state)
            found = challenger.cues
            print(said(found, kept), flush=True)
            log_text(self.trainer, "cues", cues_table(found) or said(found))

    def _sum(self, counts: Any) -> Any:
        """Over all processes, which call it together."""
        accelerator = self.trainer.accelerator
        return accelerator.reduce(counts, "sum") if accelerator.num_processes > 1 else counts

    def _go_back_to_the_best(self, args: Any, state: Any) -> str | None:
        """Count what was hidden until the checkpoint that ``load_best_model_at_end`` has kept: the model is that one's.

        Returns:
            Its name; None where the model is that of the last step.
        """
        best = state.best_model_checkpoint if args.load_best_model_at_end else None
        if best is None or state.best_global_step == state.global_step:
            return None
        if file := memory_file(best, None):
            saved = torch.load(file)
            self.trainer._challenger.memory.count_as(saved)
            self.trainer._counter.total = Counts(**saved["counts"])
        return Path(best).name

    def _never_asked(self, args: Any, state: Any) -> bool:
        asked = self.trainer._computed_losses or getattr(args, "challenge_share", None) == 0
        return not asked and state.global_step > self.first_step


def said(cues: Sequence[Cue], kept: str | None = None) -> str:
    """The strongest cues as lines of text; ``kept`` is the checkpoint that the model was taken from, if training went on."""
    if not cues:
        return "No cue found: no word or place holds most of a class's relevance over many rows."
    lines = [f"{len(cues)} cue{'s' if len(cues) > 1 else ''} found, the strongest first:"]
    lines += [
        f"  {cue.text!r}: class {cue.class_name}, in {cue.coverage:.0%} of its rows, {cue.strength:.0%} of their relevance,"
        f" hidden {cue.hidden_rows} times"
        for cue in cues[:SHOWN]
    ]
    if len(cues) > SHOWN:
        lines.append(f"  … and {len(cues) - SHOWN} more in trainer.cues.")
    hardly = any(cue.hidden_rows < FEWEST_ROWS for cue in cues)
    if kept:
        lines.append(f"The model is that of {kept} (load_best_model_at_end), and what was hidden until then is counted.")
        if hardly:
            lines.append(
                "Those that were hardly hidden by then it leans on: where evaluation rows hold the leak too, early checkpoints look"
                " best. Choose by rows without it, or keep the last model."
            )
    elif hardly:
        lines.append("Those that were hardly hidden were found late: train longer, or name the leak.")
    lines.append("Is one a leak? challenge_hide takes it out of every row. Legitimate? challenge_keep leaves it alone.")
    return "\n".join(lines)


def write_cues(cues: Sequence[Cue] | None, folder: str | os.PathLike[str] | None) -> None:
    """``cues.json`` into the folder of a model. None: none were looked for, and what an earlier model left there goes."""
    if folder is None or not os.path.isdir(folder):
        return
    if cues is None:
        Path(folder, CUES_FILE).unlink(missing_ok=True)
    else:
        Path(folder, CUES_FILE).write_text(json.dumps(as_rows(cues), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def memory_file(resumed: Any, output_dir: str | None) -> str | None:
    """The saved memory of the checkpoint that ``train(resume_from_checkpoint=…)`` goes on from; None: there is none."""
    folder = get_last_checkpoint(output_dir) if resumed is True and output_dir and os.path.isdir(output_dir) else resumed
    file = os.path.join(folder, MEMORY_FILE) if isinstance(folder, (str, os.PathLike)) else ""
    return file if os.path.isfile(file) else None
