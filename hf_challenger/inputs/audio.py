"""Audio: a unit is a window of the waveform, or of the frames of a spectrogram over all its bins."""

from __future__ import annotations

from torch import Tensor

from ..errors import NotChallengeable
from .series import Series


class Audio(Series):
    """A waveform ``(rows, samples)`` (Wav2Vec2), or frames: ``(rows, frames, bins)`` (AST) or ``(rows, bins, frames)`` (Whisper).

    Frames and bins are told apart by ``config.num_mel_bins``. Padding is told by ``attention_mask`` or ``lengths``.
    """

    levels = None  # no data were there to measure what it costs
    what = "windows of sound"
    axis_names = ("samples or frames",)

    def axes(self, x: Tensor) -> tuple[int, ...]:
        if x.dim() not in (2, 3):
            raise NotChallengeable(
                f"{self.key} has shape {tuple(x.shape)}, but audio is (rows, samples), (rows, frames, bins) or (rows, bins,"
                " frames). Reshape it, or register an adapter of your own (docs/adapters.md)."
            )
        bins = getattr(self.config, "num_mel_bins", None)
        return (2,) if x.dim() == 3 and x.shape[1] == bins != x.shape[2] else (1,)

    def size(self, x: Tensor) -> tuple[int, ...]:
        # Not a model's patch size: that of AST is over frames and bins.
        return (max(1, round(x.shape[self.axes(x)[0]] / self.windows)),)
