"""A classifier whose cues are reported: how it reads a batch, and what its classes and units are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..attribution.state import attribution_state
from ..challenge.perturbation import perturbation_for
from ..errors import ChallengerError
from ..inputs import units_for
from ..inputs.main_input import LABEL_KEYS, taken_by
from ..inputs.places import Places
from ..keyed_random import Draw
from ..logits import logits_of


class Classifier:
    """A single-label classifier, its tokenizer or None, and its units.

    Args:
        model: comes back as it was.
        tokenizer: of a model of texts.
        units: the adapter of its input; None: the one that its main input tells.
        label_names: of the labels in a batch.
    """

    def __init__(
        self, model: nn.Module, tokenizer: Any = None, units: Any = None, label_names: Sequence[str] = LABEL_KEYS
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.units: Any = units or units_for(model, tokenizer)
        self.label_names = tuple(label_names)
        self.reads_tokens = bool(self.units.is_sequence_of_tokens)
        self.places: Places | None = getattr(self.units, "places", None)
        self.device = next(model.parameters()).device
        self._perturb = perturbation_for("auto", self.units)
        self._names = getattr(getattr(model, "config", None), "id2label", None) or {}

    def class_name(self, label: int) -> str:
        return str(self._names.get(label, label))

    def most_probable(self, probabilities: Tensor) -> tuple[str, float]:
        """The class of a row and its probability; ``probabilities`` are ``(classes,)``."""
        label = int(probabilities.argmax())
        return self.class_name(label), float(probabilities[label])

    def probabilities(self, logits: Tensor) -> Tensor:
        """``(rows, classes)``, in float32.

        Raises:
            ChallengerError: the logits are NaN or infinite.
        """
        logits = logits.flatten(1).float()
        if not logits.isfinite().all():
            raise ChallengerError(
                "The model's logits are NaN or infinite: its weights are damaged. Load another checkpoint."
            )
        return logits.softmax(-1)

    def predict(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, classes)`` probabilities."""
        with attribution_state(self.model), torch.no_grad():
            return self.probabilities(logits_of(self.model(**taken_by(self.model, inputs)), self.model))

    def hide(self, inputs: Mapping[str, Any], drop_mask: Tensor, rows: Tensor) -> dict[str, Any]:
        """The batch without the marked units.

        Args:
            inputs: as the model takes them.
            drop_mask: ``(rows, *grid)`` bool.
            rows: ``(rows,)`` int64: a number of each row, for perturbations that draw.
        """
        return self._perturb(dict(inputs), drop_mask, self.units, Draw(0, 0, 0, rows))
