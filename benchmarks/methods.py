"""The methods that are compared: a kind with code, and its settings, which the experiment file holds.

plain        Trainer; label smoothing and NEFTune (Jain et al., ICLR 2024) are settings of it
challenger   ChallengerTrainer; random hiding, Gradient×Input and all selections are settings of it
rdrop        R-Drop (Liang et al., NeurIPS 2021): two dropout passes and their symmetric KL divergence; setting "alpha"
mixup        mixup (Zhang et al., ICLR 2018) of float inputs; setting "alpha"
setfit       SetFit (setfit_method.py); setting "num_iterations"; texts
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer

from hf_challenger import ChallengerTrainer
from hf_challenger.calibration import compute_metrics
from hf_challenger.logits import logits_of


class _Rival(Trainer):
    """A training loss of its own, with one setting or more, on batches of one tensor input or of tokens."""

    def __init__(self, *args: Any, settings: dict[str, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs, compute_metrics=compute_metrics)
        self.settings = settings

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = dict(inputs)
        labels = inputs.pop((self.label_names or ["labels"])[0])
        loss, outputs = self.training_loss(model, inputs, labels)
        return (loss, outputs) if return_outputs else loss


class RDropTrainer(_Rival):
    """Cross-entropy of two passes, averaged, plus alpha · (KL(p‖q) + KL(q‖p))/2."""

    def training_loss(self, model: Any, inputs: dict[str, Tensor], labels: Tensor) -> Any:
        outputs = model(**{k: torch.cat([v, v]) for k, v in inputs.items()})
        log_p, log_q = logits_of(outputs).log_softmax(-1).chunk(2)
        nll = (F.nll_loss(log_p, labels) + F.nll_loss(log_q, labels)) / 2
        kl = F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")
        kl = (kl + F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")) / 2
        return nll + self.settings.get("alpha", 1.0) * kl, outputs


class MixupTrainer(_Rival):
    """Inputs and labels of two rows, mixed with a share from Beta(alpha, alpha), one share a batch."""

    def training_loss(self, model: Any, inputs: dict[str, Tensor], labels: Tensor) -> Any:
        alpha = self.settings.get("alpha", 0.2)
        share = float(torch.distributions.Beta(alpha, alpha).sample())
        other = torch.randperm(len(labels))
        # Masks of padded series are those of the longer part: both were padded with the mean, 0.
        mixed = {k: v | v[other] if v.dtype == torch.bool else share * v + (1 - share) * v[other] for k, v in inputs.items()}
        outputs = model(**mixed)
        logits = logits_of(outputs)
        return share * F.cross_entropy(logits, labels) + (1 - share) * F.cross_entropy(logits, labels[other]), outputs


RIVALS = {"rdrop": RDropTrainer, "mixup": MixupTrainer}
OWN_SETTINGS = {"rdrop": ("alpha",), "mixup": ("alpha",), "setfit": ("num_iterations",)}


def own_settings(kind: str, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the method's own code, and those that are training arguments."""
    own = OWN_SETTINGS.get(kind, ())
    return {k: v for k, v in settings.items() if k in own}, {k: v for k, v in settings.items() if k not in own}


def make_trainer(kind: str, settings: dict[str, Any], **parts: Any) -> Trainer:
    """The trainer of that kind; evaluation reports accuracy, ece, nll and brier for all of them."""
    if kind == "plain":
        return Trainer(**parts, compute_metrics=compute_metrics)
    if kind == "challenger":
        return ChallengerTrainer(**parts)
    if kind == "setfit":
        from setfit_method import SetFitRival  # a package of its own, which the other methods do without

        return SetFitRival(**parts, settings=settings)
    if kind in RIVALS:
        return RIVALS[kind](**parts, settings=settings)
    raise SystemExit(f"Unknown kind of method {kind!r}; known: plain, challenger, setfit, {', '.join(RIVALS)}.")
