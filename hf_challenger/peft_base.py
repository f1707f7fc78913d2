"""The model inside PEFT's wrapper, whose own class, config and ``forward`` tell nothing of the model."""

from __future__ import annotations

from typing import Any


def without_peft(model: Any) -> Any:
    """The model that PEFT wrapped, with its adapters; any other model as it is."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
