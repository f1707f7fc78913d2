"""Calibration errors: is a confidence of .8 right 8 times in 10?"""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import torch

from hf_challenger.calibration import (
    adaptive_calibration_error,
    classwise_calibration_error,
    expected_calibration_error,
    maximum_calibration_error,
)

DESCRIPTION = "Calibration errors: is a confidence of .8 right 8 times in 10?"
CITATION = """@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle={ICML},
  year={2017}
}"""
INPUTS = """
Args:
    predictions: probabilities, a list of one number a class for each row; they sum to 1.
    references: labels, one whole number a row.
    bins: number of bins. Default: 15.
Returns:
    Dictionary with ``ece`` (equal width), ``adaptive_ece`` (equal mass), ``classwise_ece`` and ``mce``, each in [0, 1].
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class CalibrationError(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        # The same for all modules in this repository, so that evaluate.combine takes them together.
        features = datasets.Features(
            {"predictions": datasets.Sequence(datasets.Value("float64")), "references": datasets.Value("int64")}
        )
        return evaluate.MetricInfo(description=DESCRIPTION, citation=CITATION, inputs_description=INPUTS, features=features)

    def _compute(self, predictions: Any, references: Any, bins: int = 15) -> dict[str, float]:
        probabilities, labels = torch.tensor(predictions, dtype=torch.float64), torch.tensor(references)
        return {
            "ece": expected_calibration_error(probabilities, labels, bins),
            "adaptive_ece": adaptive_calibration_error(probabilities, labels, bins),
            "classwise_ece": classwise_calibration_error(probabilities, labels, bins),
            "mce": maximum_calibration_error(probabilities, labels, bins),
        }
