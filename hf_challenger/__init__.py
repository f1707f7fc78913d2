"""Fine-tune on small data with attribution maps: ``ChallengerTrainer`` in place of ``Trainer``."""

from .attribution import LRP
from .challenger import ChallengedBatch, Challenger
from .config import ChallengerConfig
from .errors import ChallengerError, ChallengerWarning, NoEffectWarning
from .options import ChallengeOptions
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
    "NoEffectWarning",
    "PictureCallback",
    "__version__",
]
