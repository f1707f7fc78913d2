"""TrainingArguments with the options of the challenge and of the calibration."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments

from .challenge.options import ChallengeOptions
from .errors import ChallengerError

LOWER_IS_BETTER = ("loss", "ece", "nll", "brier", "mce")


@dataclass
class ChallengerConfig(ChallengeOptions, TrainingArguments):
    """``TrainingArguments`` plus the ``challenge_*`` options of :class:`~hf_challenger.challenge.options.ChallengeOptions` and ``calibrate``.

    No default of ``TrainingArguments`` is changed, except that ``greater_is_better`` is False where
    ``metric_for_best_model`` is a calibration error (ece, nll, brier, mce). Works with ``HfArgumentParser``.
    """

    calibrate: bool = field(
        default=True,
        metadata={
            "help": "After training, fit a temperature without held-out labels and fold it into the last layer: confidences change,"
            " predicted classes do not. Single-label classification only. Off where challenge_share is 0."
        },
    )

    def __post_init__(self) -> None:
        if not isinstance(self.calibrate, bool):
            raise ChallengerError(f"calibrate={self.calibrate!r} is neither True nor False.")
        self.validate()
        if self.greater_is_better is None and (self.metric_for_best_model or "").endswith(LOWER_IS_BETTER):
            self.greater_is_better = False
        super().__post_init__()
