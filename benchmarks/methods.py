"""The methods that are compared: a kind with code, and its settings, which the experiment file holds.

plain        Trainer; label smoothing and NEFTune (Jain et al., ICLR 2024) are settings of it
challenger   ChallengerTrainer; random hiding, Gradient×Input and all selections are settings of it
counts       the cue memory filled by counts of words, without relevance (counts.py); texts
jtt          Just Train Twice (jtt.py); settings "first", "upweight"
masktune     MaskTune (masktune.py); setting "rate_factor"
reldrop      RelDrop (arXiv 2505.21595): relevance- and chance-guided masks, loss on the masked batch only; settings "alpha",
             "beta"
rdrop        R-Drop (Liang et al., NeurIPS 2021): two dropout passes and their symmetric KL divergence; setting "alpha"
setfit       SetFit (setfit_method.py); setting "num_iterations"; texts
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from counts import CountsTrainer
from hiding import Hiding
from jtt import JTTTrainer
from masktune import MaskTuneTrainer
from torch import Tensor
from transformers import Trainer

from hf_challenger import ChallengerTrainer
from hf_challenger.calibration import compute_metrics
from hf_challenger.logits import logits_of


class _Rival(Trainer):
    """A training loss of its own, with one setting or more."""

    def __init__(self, *args: Any, settings: dict[str, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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


class RelDropTrainer(_Rival):
    """Every row is masked where alpha · noise + (1 - alpha) · scaled relevance ≥ 1 - beta; something is left of each row."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hiding = Hiding(self.model, self.processing_class)
        self.noise = torch.Generator().manual_seed(self.args.seed)

    def training_loss(self, model: Any, inputs: dict[str, Tensor], labels: Tensor) -> Any:
        relevance, maskable = self.hiding.relevance(self.model, inputs, labels)
        low, high = relevance.amin(1, keepdim=True), relevance.amax(1, keepdim=True)
        scaled = (relevance - low) / (high - low).clamp(min=1e-12)
        noise = torch.rand(relevance.shape, generator=self.noise).to(relevance.device)
        alpha, beta = self.settings["alpha"], self.settings["beta"]
        mask = (alpha * noise + (1 - alpha) * scaled >= 1 - beta) & maskable
        mask &= (maskable & ~mask).any(1, keepdim=True)
        outputs = model(**self.hiding.hide(inputs, mask))
        return F.cross_entropy(logits_of(outputs), labels), outputs


RIVALS = {"jtt": JTTTrainer, "masktune": MaskTuneTrainer, "reldrop": RelDropTrainer, "rdrop": RDropTrainer}
OWN_SETTINGS = {
    "jtt": ("first", "upweight"),
    "masktune": ("rate_factor",),
    "reldrop": ("alpha", "beta"),
    "rdrop": ("alpha",),
    "setfit": ("num_iterations",),
}


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
    if kind == "counts":
        return CountsTrainer(**parts)
    if kind == "setfit":
        from setfit_method import SetFitRival  # a package of its own, which the other methods do without

        return SetFitRival(**parts, settings=settings)
    if kind in RIVALS:
        return RIVALS[kind](**parts, settings=settings, compute_metrics=compute_metrics)
    known = ", ".join(["plain", "challenger", "counts", *RIVALS, "setfit"])
    raise SystemExit(f"Unknown kind of method {kind!r}; known: {known}.")
