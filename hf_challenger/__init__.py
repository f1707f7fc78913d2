"""Find the cues that a classifier leans on, and train without them: ``ChallengerTrainer`` in place of ``Trainer``.

Public names are imported at first use. The commands check their arguments and files before torch and transformers are
loaded, which takes up to ten seconds.
"""

from typing import TYPE_CHECKING

from .errors import ChallengerError, ChallengerWarning, NoEffectWarning
from .names_on_use import names_on_use
from .version import __version__

if TYPE_CHECKING:
    from .attribution import LRP
    from .challenge import ChallengedBatch, ChallengeOptions, Challenger, Cue
    from .config import ChallengerConfig
    from .picture_callback import PictureCallback
    from .trainer import ChallengerTrainer
else:  # to a type checker every misspelt name would have the type Any
    __getattr__, __dir__ = names_on_use(
        __name__,
        {
            "LRP": "attribution",
            "ChallengeOptions": "challenge",
            "ChallengedBatch": "challenge",
            "Challenger": "challenge",
            "ChallengerConfig": "config",
            "ChallengerTrainer": "trainer",
            "Cue": "challenge",
            "PictureCallback": "picture_callback",
        },
    )

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
