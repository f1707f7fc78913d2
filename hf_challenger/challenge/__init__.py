"""The challenge: which cues a classifier leans on, and batches without them. Knows nothing of ``transformers.Trainer``."""

from .challenger import ChallengedBatch, Challenger
from .cues import Cue, CueMemory
from .options import ChallengeOptions

__all__ = ["ChallengeOptions", "ChallengedBatch", "Challenger", "Cue", "CueMemory"]
