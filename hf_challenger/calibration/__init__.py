"""Calibration: metrics, temperature scaling, and the callback that calibrates a model after training."""

from .accuracy import expected_accuracy
from .callback import CalibrationCallback
from .evaluation import compute_metrics
from .metrics import (
    BINS,
    Bins,
    adaptive_calibration_error,
    brier_score,
    checked,
    classification_metrics,
    classwise_calibration_error,
    confidence_interval,
    expected_calibration_error,
    maximum_calibration_error,
    negative_log_likelihood,
    reliability_bins,
)
from .temperature import apply_temperature, fit_temperature, temperature_for_accuracy

__all__ = [
    "BINS",
    "Bins",
    "CalibrationCallback",
    "adaptive_calibration_error",
    "apply_temperature",
    "brier_score",
    "checked",
    "classification_metrics",
    "classwise_calibration_error",
    "compute_metrics",
    "confidence_interval",
    "expected_accuracy",
    "expected_calibration_error",
    "fit_temperature",
    "maximum_calibration_error",
    "negative_log_likelihood",
    "reliability_bins",
    "temperature_for_accuracy",
]
