"""The surroundings that a relevance pass cannot work in, and how it leaves them.

Rules see operations only where torch runs them one by one, with a graph. :func:`eager_pass` leaves ``torch.inference_mode``
and ``torch.compile`` for the pass. It refuses what it cannot leave: weights made under inference mode, and
``torch.utils.checkpoint`` in a model's own ``forward``, which would recompute operations without their rules.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import takewhile
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import disable_saved_tensors_hooks
from torch.utils.checkpoint import CheckpointError

from ..errors import ChallengerError

_REFUSED = "hf_challenger: saved tensors hooks in a relevance pass"
_CHECKPOINT_FILE = torch.utils.checkpoint.__file__


@contextmanager
def eager_pass(model: nn.Module) -> Iterator[None]:
    """Within: gradients are recorded, compiled code runs eagerly, activation checkpoints are refused.

    Raises:
        ChallengerError: for a model whose weights were made under ``torch.inference_mode``, and for a module that calls
            ``torch.utils.checkpoint`` or saves its activations by hooks in eval mode.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        _check_weights(model)
        if "torch._dynamo" in sys.modules:  # nothing is compiled before it is imported, which takes seconds
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        with suppress(RuntimeError):  # raised where the caller has hooks around the pass: these do no harm
            stack.enter_context(disable_saved_tensors_hooks(_REFUSED))
        try:
            yield
        except RuntimeError as error:
            refused = str(error) == _REFUSED
            if not (refused or isinstance(error, CheckpointError) or "use_reentrant" in str(error)):
                raise
            by_hooks = refused and not any(frame.f_code.co_filename == _CHECKPOINT_FILE for frame in _frames(error))
            call = "sets saved-tensors hooks (torch.autograd.graph)" if by_hooks else "calls torch.utils.checkpoint"
            raise ChallengerError(
                f"{_caller(error, model)} {call} in its forward. Relevance cannot pass there: operations may be computed again"
                " without their rules. Guard the call with `if self.training:`, since an attribution runs in eval mode."
            ) from error


def outside_inference(values: Any) -> Any:
    """The same values, with a copy of each tensor that was made under ``torch.inference_mode``.

    Args:
        values: a tensor, or a mapping, tuple or list of values; anything else is returned as it is.
    """
    if isinstance(values, Tensor):
        return values.clone() if values.is_inference() else values
    if isinstance(values, Mapping):
        return {key: outside_inference(value) for key, value in values.items()}
    if type(values) in (tuple, list):
        return type(values)(map(outside_inference, values))
    return values


def _check_weights(model: nn.Module) -> None:
    for name, weight in (*model.named_parameters(), *model.named_buffers()):
        if weight.is_inference():
            raise ChallengerError(
                f"{name} of {type(model).__name__} was made under torch.inference_mode, and autograd refuses such tensors. Build or"
                " load the model outside of it; the attribution itself may be called inside."
            )


def _frames(error: BaseException) -> list[FrameType]:
    """The calls that led to an error, outermost first."""
    return [frame for frame, _ in traceback.walk_tb(error.__traceback__)]


def _caller(error: BaseException, model: nn.Module) -> str:
    """The class of the module that called a checkpoint: told by the traceback, or else by the code of its methods."""
    frames = _frames(error)
    files = [frame.f_code.co_filename for frame in frames]
    if str(error) == _REFUSED:  # raised in the forward pass
        last = files.index(_CHECKPOINT_FILE) if _CHECKPOINT_FILE in files else len(files)
        owners = [frame.f_locals.get("self") for frame in frames[:last]]
        modules = [owner for owner in owners if isinstance(owner, nn.Module)]
        if modules:
            return type(modules[-1]).__name__
    for module in model.modules():
        for kind in takewhile(lambda kind: kind is not nn.Module, type(module).__mro__):
            for name, method in vars(kind).items():
                code = getattr(method, "__code__", None)
                if code is not None and "gradient_checkpointing" not in name and _calls_checkpoint(code):
                    return type(module).__name__
    return f"A module of {type(model).__name__}"


def _calls_checkpoint(code: CodeType) -> bool:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return "checkpoint" in code.co_names or "checkpoint_sequential" in code.co_names or any(map(_calls_checkpoint, inner))
