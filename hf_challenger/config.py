"""TrainingArguments with the options of the challenge."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import TrainingArguments

from .challenge.options import ChallengeOptions

LOWER_IS_BETTER = ("loss", "ece", "nll", "brier", "mce")


@dataclass
class ChallengerConfig(ChallengeOptions, TrainingArguments):
    """``TrainingArguments`` plus the ``challenge_*`` options of :class:`~hf_challenger.challenge.options.ChallengeOptions`.

    No default of ``TrainingArguments`` is changed, except that ``greater_is_better`` is False where
    ``metric_for_best_model`` is a calibration error (ece, nll, brier, mce). Works with ``HfArgumentParser``.
    """

    def __post_init__(self) -> None:
        self.validate()
        if self.greater_is_better is None and (self.metric_for_best_model or "").endswith(LOWER_IS_BETTER):
            self.greater_is_better = False
        super().__post_init__()
