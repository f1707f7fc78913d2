"""Rows of images or series from files and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset

from .classes import class_indices
from .data.images import channels_first, read_image
from .errors import ChallengerError
from .inputs import Patches, units_for
from .peft_base import without_peft


class FloatRows(Dataset[dict[str, Any]]):
    """Images or series as a model takes them; files are read when a row is asked for.

    Args:
        model: tells the input's name, and the size and number of channels of its images.
        processor: an image processor; None: images in [0, 1], scaled to the model's size where it has one. With one they may be too.
        data: paths of images, or one array: uint8 or floats for images, floats for series.
        labels: names of the model's classes, or indices; None: none.
        lengths: of series, before padding.

    Raises:
        ChallengerError: data of another kind than the model takes.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        data: Sequence[Path] | np.ndarray,
        labels: Sequence[str | int] | None,
        lengths: np.ndarray | None = None,
    ) -> None:
        base = without_peft(model)
        units = units_for(base)
        self.model, self.key, self.processor, self.is_image = base, units.key, processor, isinstance(units, Patches)
        if not self.is_image and not isinstance(data, np.ndarray):
            raise ChallengerError(f"The model takes {self.key!r}, not images. Give its own kind of data, as an npz file.")
        self.data, self.lengths = data, lengths
        self.in_unit_range = False
        if isinstance(data, np.ndarray) and data.dtype.kind == "f" and len(data) and getattr(processor, "do_rescale", False):
            self.in_unit_range = bool(data.min() >= 0 and data.max() <= 1)
        self.labels = None if labels is None else class_indices(labels, model)
        if isinstance(data, np.ndarray) and self.is_image and processor is None:
            self.data = channels_first(data, "the images")
        elif isinstance(data, np.ndarray) and not self.is_image and data.ndim not in (2, 3):
            raise ChallengerError(f"The series have shape {data.shape}; (rows, time, channels) is expected.")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: Any) -> dict[str, Any]:
        row: dict[str, Any] = {self.key: self._input(self.data[i])}
        if self.labels is not None:
            row["label"] = self.labels[i]
        if self.lengths is not None:
            steps = torch.arange(len(row[self.key])) < int(self.lengths[i])
            row["past_observed_mask"] = steps.unsqueeze(-1).expand_as(row[self.key]).contiguous()
        return row

    def _input(self, one: Any) -> torch.Tensor:
        if isinstance(one, Path):
            config: Any = self.model.config
            size, grey = getattr(config, "image_size", None), getattr(config, "num_channels", 3) == 1
            if self.processor is None:
                height, width = size if isinstance(size, (list, tuple)) else (size, size)
                one = channels_first(read_image(one, grey, height and (width, height))[None], str(one))[0]
            else:
                one = read_image(one)
        if self.is_image and self.processor is not None:
            if self.in_unit_range:  # the processor divides by 255
                one = one * 255
            one = self.processor(one, return_tensors="pt")["pixel_values"][0]
        return torch.as_tensor(one, dtype=next(self.model.parameters()).dtype)
