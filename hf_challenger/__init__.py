"""Fine-tune on small data with attribution maps: ``ChallengerTrainer`` in place of ``Trainer``."""

from .attribution import LRP
from .challenge import ChallengedBatch, ChallengeOptions, Challenger, Cue
from .config import ChallengerConfig
from .errors import ChallengerError, ChallengerWarning, NoEffectWarning
from .picture_callback import PictureCallback
from .trainer import ChallengerTrainer
from .version import __version__

__all__ = [
    "LRP",
    "ChallengeOptions",
    "ChallengedBatch",
    "Challenger",
    "ChallengerConfig",
    "ChallengerError",
    "ChallengerTrainer",
    "ChallengerWarning",
    "Cue",
    "NoEffectWarning",
    "PictureCallback",
    "__version__",
]
