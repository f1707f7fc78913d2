"""Relevance of inputs: LRP by rules on operations, and captum's attributors by name."""

from . import rules
from .composites import COMPOSITES, Composite
from .layer import LayerLRP
from .lrp import LRP
from .positional import PositionalLRP
from .targets import contrastive, log_odds

__all__ = ["COMPOSITES", "LRP", "Composite", "LayerLRP", "PositionalLRP", "contrastive", "log_odds", "rules"]
