"""Random numbers that are a pure function of their key, so that the order of drawing never matters.

A challenge must pick the same rows and the same units whether a batch of 16 comes as 16, as 4 micro-batches of 4, or as
8 on each of two processes, and after a resume. A running stream cannot do that; a hash of (seed, step, row, unit) can.
Torch's own generators are not touched, so dropout and shuffling are those of a plain run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

# splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014), as signed 64-bit integers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX_1 = 0xBF58476D1CE4E5B9 - (1 << 64)
_MIX_2 = 0x94D049BB133111EB - (1 << 64)


def _shift_right(x: Tensor, bits: int) -> Tensor:
    """Logical shift: torch's ``>>`` on int64 copies the sign bit, which splitmix64 must not."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def hashed(*keys: int | Tensor) -> Tensor:
    """int64 numbers, one per combination of keys: integers or tensors that broadcast against each other."""
    state = torch.zeros((), dtype=torch.int64)
    for key in keys:
        key = torch.as_tensor(key, dtype=torch.int64)
        state = _mix(state ^ (key + _GOLDEN)) + _GOLDEN
    return _mix(state)


def keyed_uniform(*keys: int | Tensor) -> Tensor:
    """Uniform numbers in (0, 1), one per combination of keys.

    Args:
        keys: integers or int64 tensors that broadcast against each other, for example
            ``(seed, stream, step, rows[:, None], units[None, :])``.

    Returns:
        float32 tensor of the broadcast shape. Equal keys give equal numbers on every device and in every batch layout.
    """
    # 23 bits, placed in the middle of their cell: float32 then holds neither 0 nor 1, and -log(-log(u)) stays finite.
    return (_shift_right(hashed(*keys), 41).to(torch.float32) + 0.5) / (1 << 23)


@dataclass(frozen=True)
class Draw:
    """Random numbers for the rows of one batch.

    Attributes:
        seed, stream, step: parts of every key.
        rows: ``(rows,)`` int64: each row's position among all rows of the step.
    """

    seed: int
    stream: int
    step: int
    rows: Tensor

    def uniform(self, *shape: int, salt: int = 0) -> Tensor:
        """``(rows, *shape)`` uniform numbers in (0, 1)."""
        elements = torch.arange(math.prod(shape), device=self.rows.device)
        numbers = keyed_uniform(self.seed, self.stream, self.step, salt, self.rows[:, None], elements)
        return numbers.reshape(len(self.rows), *shape)

    def other_rows(self) -> Tensor:
        """``(rows,)`` int64: for each row the index of another one of the batch, which has two rows or more."""
        rows = len(self.rows)
        return (torch.arange(rows, device=self.rows.device) + 1 + (self.uniform() * (rows - 1)).long()) % rows

    def normal(self, *shape: int) -> Tensor:
        """``(rows, *shape)`` standard normal numbers (Box and Muller, 1958)."""
        radius = (-2 * self.uniform(*shape, salt=1).log()).sqrt()
        return radius * (2 * math.pi * self.uniform(*shape, salt=2)).cos()
