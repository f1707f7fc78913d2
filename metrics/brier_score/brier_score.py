"""Brier score over all classes: the mean over rows of Σ_k (p_k - [k = label])²."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import torch

from hf_challenger.calibration import brier_score, checked

DESCRIPTION = "Brier score over all classes: the mean over rows of Σ_k (p_k - [k = label])²."
CITATION = """@article{brier1950verification,
  title={Verification of forecasts expressed in terms of probability},
  author={Brier, Glenn W.},
  journal={Monthly Weather Review},
  year={1950}
}"""
INPUTS = """
Args:
    predictions: probabilities, a list of one number a class for each row; they sum to 1.
    references: labels, one whole number a row.
Returns:
    Dictionary with ``brier`` in [0, 2].
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class BrierScore(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # The same for all modules in this repository, so that evaluate.combine takes them together.
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(description=DESCRIPTION, citation=CITATION, inputs_description=INPUTS, features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        probabilities, labels = torch.tensor(predictions, dtype=torch.float64), torch.tensor(references)
        return {"brier": brier_score(*checked(probabilities, labels))}
