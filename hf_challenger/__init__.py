"""Find the cues that a classifier leans on, and train without them: ``ChallengerTrainer`` in place of ``Trainer``.

Public names are imported at first use. The commands check their arguments and files before torch and transformers are
loaded, which takes up to ten seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import ChallengerError, ChallengerWarning, NoEffectWarning
from .version import __version__

if TYPE_CHECKING:
    from .attribution import LRP
    from .challenge import ChallengedBatch, ChallengeOptions, Challenger, Cue
    from .config import ChallengerConfig
    from .picture_callback import PictureCallback
    from .trainer import ChallengerTrainer

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

MODULE_OF = {
    "LRP": "attribution",
    "ChallengeOptions": "challenge",
    "ChallengedBatch": "challenge",
    "Challenger": "challenge",
    "ChallengerConfig": "config",
    "ChallengerTrainer": "trainer",
    "Cue": "challenge",
    "PictureCallback": "picture_callback",
}


if not TYPE_CHECKING:  # else every misspelt name would have the type Any

    def __getattr__(name: str) -> Any:
        if name not in MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f".{MODULE_OF[name]}", __name__), name)
        globals()[name] = value  # found without this function from now on
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
