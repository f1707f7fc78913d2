"""How diverse a trained network is: the effective rank of its last hidden features, and how alike its filters are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

ROWS = 500


def diversity(model: nn.Module, predict: Callable[[], Any]) -> dict[str, float]:
    """Both measures of a network of convolutions; {} for others.

    Args:
        model: a classifier whose last ``nn.Linear`` reads the last hidden features.
        predict: calls the model in eval mode; the first 500 rows count.
    """
    filters = [m.weight.detach() for m in model.modules() if isinstance(m, (nn.Conv1d, nn.Conv2d)) and len(m.weight) > 1]
    heads = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not filters or not heads:
        return {}
    seen: list[Tensor] = []
    hook = heads[-1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().flatten(1)))
    try:
        predict()
    finally:
        hook.remove()
    alike = [filter_cosine(weight) for weight in filters]
    return {"effective_rank": effective_rank(torch.cat(seen)[:ROWS]), "filter_cosine": sum(alike) / len(alike)}


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values of centred ``(rows, features)`` (Roy & Vetterli, EUSIPCO 2007)."""
    values = torch.linalg.svdvals((features - features.mean(0)).double())
    share = values / values.sum().clamp(min=torch.finfo(values.dtype).tiny)
    return float(torch.special.entr(share).sum().exp())


def filter_cosine(weight: Tensor) -> float:
    """Mean absolute cosine between the different filters of one layer, ``(filters, …)``."""
    unit = nn.functional.normalize(weight.flatten(1).double(), dim=1)
    n = len(unit)
    return float(((unit @ unit.T).abs().sum() - n) / (n * (n - 1)))
