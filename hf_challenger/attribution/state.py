"""What attribution changes about a model and a process, and how all of it is put back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from .eager_pass import eager_pass


@contextmanager
def attribution_state(model: nn.Module) -> Iterator[None]:
    """Inside: eval mode, no parameter asks for a gradient, no gradient checkpointing. After: everything as it was.

    Gradients are recorded inside, also under ``torch.no_grad`` and ``torch.inference_mode``, and nothing compiled runs: see
    :func:`~.eager_pass.eager_pass`, which also says what is refused.

    Each module's own ``training`` flag and each parameter's own ``requires_grad`` come back, also when the body raises.
    BatchNorm statistics do not move and NEFTune adds no noise, because the modules are in eval mode; the random
    states of torch, numpy and Python are restored, because some models draw in eval mode too (Wav2Vec2 draws for LayerDrop).
    LeViT caches attention biases in eval mode: what is cached here is dropped, or the next evaluation would read stale ones.
    """
    modules, parameters = [*model.modules()], [*model.parameters()]
    training = [(module, module.training) for module in modules]
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    caches = [(module, module.attention_bias_cache) for module in modules if "attention_bias_cache" in vars(module)]
    checkpointing = [module for module in modules if _checkpoints(module)]
    devices = sorted({p.device.index for p in parameters if p.device.type == "cuda"})
    drawn = random.getstate(), np.random.get_state()
    with eager_pass(model), torch.random.fork_rng(devices=devices):
        try:
            # Not model.eval(): a user's own override of train() may do more than set flags.
            for module, flag in training:
                if flag:
                    module.training = False
            for module, _ in caches:
                module.attention_bias_cache = {}  # type: ignore[assignment]
            for parameter in wanted:
                parameter.requires_grad_(False)
            for module in checkpointing:
                module.gradient_checkpointing = False  # type: ignore[assignment]
            yield
        finally:
            random.setstate(drawn[0])
            np.random.set_state(drawn[1])
            for module, cache in caches:
                module.attention_bias_cache = cache
            for module in checkpointing:
                module.gradient_checkpointing = True  # type: ignore[assignment]
            for parameter in wanted:
                parameter.requires_grad_(True)
            for module, flag in training:
                if module.training != flag:  # setting an attribute of a module takes microseconds, and there are hundreds
                    module.training = flag


def _checkpoints(module: nn.Module) -> bool:
    """Looked up past ``nn.Module.__getattr__``, which takes microseconds to find that there is none."""
    return bool(vars(module).get("gradient_checkpointing", getattr(type(module), "gradient_checkpointing", False)))
