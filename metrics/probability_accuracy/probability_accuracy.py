"""Accuracy of the most probable class, from probabilities, so that it can be combined with the others."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import torch

from hf_challenger.calibration import checked

DESCRIPTION = "Accuracy of the most probable class, from probabilities, so that it can be combined with the others."
CITATION = """"""
INPUTS = """
Args:
    predictions: probabilities, a list of one number a class for each row; they sum to 1.
    references: labels, one whole number a row.
Returns:
    Dictionary with ``accuracy`` in [0, 1].
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class ProbabilityAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # The same for all modules in this repository, so that evaluate.combine takes them together.
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(description=DESCRIPTION, citation=CITATION, inputs_description=INPUTS, features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        probabilities, labels = torch.tensor(predictions, dtype=torch.float64), torch.tensor(references)
        probabilities, labels = checked(probabilities, labels)
        return {"accuracy": float((probabilities.argmax(1) == labels).double().mean())}
