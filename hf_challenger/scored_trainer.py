"""``Trainer`` whose evaluations report calibration, and whose model card tells of it. It trains as ``Trainer`` does."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

from torch import nn

from .calibration.evaluation import CalibrationMetrics
from .compat import FailedUploads, ignored_outputs
from .config import LOWER_IS_BETTER
from .errors import ChallengerWarning
from .model_card import write_model_card


class ScoredTrainer(FailedUploads):
    """``evaluate()`` also reports accuracy, ece, nll and brier; ``create_model_card()`` writes this library's card."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told_card: dict[str, Any] = {}
        self._warned_no_labels = False
        self.compute_metrics = CalibrationMetrics(
            self.compute_metrics,
            self.preprocess_logits_for_metrics,
            self.args.batch_eval_metrics,
            self.args.eval_do_concat_batches,
        )
        if self.preprocess_logits_for_metrics is not None:
            self.preprocess_logits_for_metrics = self.compute_metrics.with_logits
        metric = self.args.metric_for_best_model or ""
        if metric.endswith(LOWER_IS_BETTER) and self.args.greater_is_better:
            warnings.warn(
                f"metric_for_best_model={metric!r} is better when lower, but greater_is_better is True, so the worst model"
                " would be kept. Set greater_is_better=False, or use ChallengerConfig, which does.",
                ChallengerWarning,
                stacklevel=3,
            )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As ``Trainer.evaluate``. Without metrics of the user's own, only the logits are kept in memory."""
        if not isinstance(self.compute_metrics, CalibrationMetrics):
            return super().evaluate(*args, **kwargs)
        with self.compute_metrics.logits_only():
            return super().evaluate(*args, **kwargs)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        metrics = self.compute_metrics
        if not isinstance(metrics, CalibrationMetrics):
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        self._warn_of_labels_not_read(inputs)
        ignored = ignored_outputs(self.model, ignore_keys)
        with metrics.watching(model, ignored):
            loss, predictions, labels = super().prediction_step(model, inputs, prediction_loss_only, ignored)
        return loss, metrics.kept(predictions), labels

    def _warn_of_labels_not_read(self, inputs: dict[str, Any]) -> None:
        """Trainer looks for labels in the signature of ``forward``, which a wrapper with ``**kwargs`` does not tell."""
        if "labels" in inputs and not self.label_names and self.args.label_names is None and not self._warned_no_labels:
            self._warned_no_labels = True
            warnings.warn(
                f"{type(self.model).__name__}.forward names no argument for labels, so that Trainer evaluates without them: there"
                " is no loss, accuracy or other metric. Set label_names=['labels'] in the arguments. This is said once.",
                ChallengerWarning,
                stacklevel=3,
            )

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        if isinstance(self.compute_metrics, CalibrationMetrics):
            output = output._replace(predictions=self.compute_metrics.processed(output.predictions))
        return output

    def create_model_card(
        self,
        *args: Any,
        baseline: dict[str, Any] | None = None,
        reliability_diagram: Any = None,
        heat_maps: Any = None,
        **kwargs: Any,
    ) -> None:
        """Write ``README.md`` into ``output_dir``. What is told is kept for the cards that later saves and pushes write.

        Args:
            baseline: what a plain ``Trainer``'s ``evaluate()`` returned, to stand beside our results.
            reliability_diagram: a matplotlib figure, or the path of a picture.
            heat_maps: a list of such pictures, or a dictionary from captions to them.
            Others: as for ``Trainer``.
        """
        told = inspect.signature(super().create_model_card).bind_partial(*args, **kwargs).arguments
        told |= {"baseline": baseline, "reliability_diagram": reliability_diagram, "heat_maps": heat_maps}
        told = {**self._told_card, **{name: value for name, value in told.items() if value is not None}}
        if self.is_world_process_zero():
            write_model_card(self, told)
        self._told_card = told
