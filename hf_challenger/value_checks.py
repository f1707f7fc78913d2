"""Checks that need the values of tensors, made so that no training step waits for an accelerator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

Refusal = Callable[[], Exception]  # the error to raise; called only where one is


class Expect(Protocol):
    """``expect(holds, refusal)``: raise ``refusal()`` unless ``holds``, a boolean tensor of one element."""

    def __call__(self, holds: Tensor, refusal: Refusal, /) -> None: ...


def on_host(tensor: Tensor) -> bool:
    """Whether reading a value of it makes nobody wait."""
    return tensor.device.type == "cpu"


def at_once(holds: Tensor, refusal: Refusal) -> None:
    """Raise the refusal now. Waits for the device."""
    if not holds:
        raise refusal()


def to_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Values on their way to the host, and the event of their arrival; None: whoever reads them waits (not on CUDA)."""
    if values.device.type != "cuda":
        return values, None
    found = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return found, arrived


class DeferredChecks:
    """Checks of one training loop. Those on the CPU raise at once; those on an accelerator once their outcome has arrived.

    :meth:`send` copies outcomes to the host without waiting. :meth:`read` raises the first refusal among those that have
    arrived. A refusal may keep the batch that it speaks of, until it is read.
    """

    def __init__(self) -> None:
        self._made: list[tuple[Tensor, Refusal]] = []
        self._sent: list[tuple[Tensor, torch.cuda.Event | None, list[Refusal]]] = []

    def expect(self, holds: Tensor, refusal: Refusal) -> None:
        """Check that ``holds``, a boolean tensor of one element."""
        if on_host(holds):
            at_once(holds, refusal)
        else:
            self._made.append((holds, refusal))

    def send(self) -> None:
        """Start the copy of all outcomes to the host."""
        if not self._made:
            return
        outcomes, refusals = torch.stack([holds for holds, _ in self._made]), [refusal for _, refusal in self._made]
        self._made = []
        self._sent.append((*to_host(outcomes), refusals))

    def read(self, wait: bool = False) -> None:
        """Raise the first refusal that has arrived.

        Args:
            wait: also for those that are on their way. Accelerators other than CUDA always wait.
        """
        while self._sent:
            outcomes, arrived, refusals = self._sent[0]
            if arrived is not None and wait:
                arrived.synchronize()
            if arrived is not None and not arrived.query():
                return
            del self._sent[0]
            for holds, refusal in zip(outcomes.tolist(), refusals, strict=True):
                if not holds:
                    self._sent = []
                    raise refusal()
