"""Mean of -log p(label), in nats."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import torch

from hf_challenger.calibration import checked, negative_log_likelihood

DESCRIPTION = "Mean of -log p(label), in nats."
CITATION = """"""
INPUTS = """
Args:
    predictions: probabilities, a list of one number a class for each row; they sum to 1.
    references: labels, one whole number a row.
Returns:
    Dictionary with ``nll``, at least 0; infinite where a label had probability 0.
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class NegativeLogLikelihood(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # The same for all modules in this repository, so that evaluate.combine takes them together.
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(description=DESCRIPTION, citation=CITATION, inputs_description=INPUTS, features=features)

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        probabilities, labels = torch.tensor(predictions, dtype=torch.float64), torch.tensor(references)
        probabilities, labels = checked(probabilities, labels)
        # The logarithm of probabilities that sum to 1 is a set of logits for them.
        return {"nll": negative_log_likelihood(probabilities.log(), labels)}
