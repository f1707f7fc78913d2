"""Which input of a model is the main one, before any batch is seen."""

from __future__ import annotations

import inspect

from torch import nn


def main_input_of(model: nn.Module) -> str:
    """``model.main_input_name`` if its ``forward`` takes it, or else the first argument of ``forward``.

    ``PreTrainedModel.main_input_name`` is ``"input_ids"`` unless a class says otherwise, which a class of floats may not.
    """
    parameters = inspect.signature(model.forward).parameters.values()
    named = [p.name for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    name = getattr(model, "main_input_name", None)
    if isinstance(name, str) and (name in named or not named):  # a wrapper's forward(*args, **kwargs) names nothing
        return name
    return named[0] if named else "input_ids"
