"""Arrays as the rows that a model takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset


class Rows(Dataset[dict[str, Tensor]]):
    """Rows of a split as a model takes them, under the names that it uses.

    Args:
        name: of the input, the model's ``main_input_name``.
        label_name: of the class.
        lengths: adds ``past_observed_mask``, of the input's shape.
        largest_shift: images are moved by up to that many pixels each time, along both axes, the border repeated.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        name: str,
        label_name: str = "labels",
        lengths: np.ndarray | None = None,
        largest_shift: int = 0,
    ) -> None:
        self.x, self.y = torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y, dtype=torch.int64)
        self.name, self.label_name, self.lengths, self.largest_shift = name, label_name, lengths, largest_shift

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        x = self.x[i]
        if self.largest_shift:
            m = self.largest_shift
            down, right = torch.randint(0, 2 * m + 1, (2,)).tolist()
            padded = torch.nn.functional.pad(x.unsqueeze(0), (m,) * 4, mode="replicate")[0]
            x = padded[:, down : down + x.shape[1], right : right + x.shape[2]]
        row = {self.name: x, self.label_name: self.y[i]}
        if self.lengths is not None:
            row["past_observed_mask"] = (torch.arange(len(x)) < int(self.lengths[i])).unsqueeze(-1).expand_as(x).contiguous()
        return row
