"""The methods that are compared: a kind with code, and its settings, which the experiment file holds.

plain        Trainer; label smoothing and NEFTune are settings of it
challenger   ChallengerTrainer; random hiding, Gradient×Input and all policies are settings of it
rdrop        R-Drop (Liang et al., NeurIPS 2021): two dropout passes and their symmetric KL divergence, weight alpha
odd_epochs   ChallengerTrainer that challenges in every second epoch only (AD-DROP, Yang et al., NeurIPS 2022)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from transformers import Trainer, TrainerCallback

from hf_challenger import ChallengerTrainer
from hf_challenger.metrics import calibration


class RDropTrainer(Trainer):
    """Cross-entropy of two passes, averaged, plus alpha · (KL(p‖q) + KL(q‖p))/2; alpha = 1 unless set on the class."""

    alpha = 1.0

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"]
        outputs = model(**{k: torch.cat([v, v]) for k, v in inputs.items() if k != "labels"})
        log_p, log_q = outputs.logits.log_softmax(-1).chunk(2)
        nll = (F.nll_loss(log_p, labels) + F.nll_loss(log_q, labels)) / 2
        kl = F.kl_div(log_p, log_q, log_target=True, reduction="batchmean")
        kl = (kl + F.kl_div(log_q, log_p, log_target=True, reduction="batchmean")) / 2
        loss = nll + self.alpha * kl
        return (loss, outputs) if return_outputs else loss


class OddEpochs(TrainerCallback):
    """Switches the challenge on in epochs 1, 3, 5, … (counting from 0) by setting its share."""

    def __init__(self, share: float) -> None:
        self.share = share

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        args.challenge_share = self.share if round(state.epoch or 0) % 2 else 0.0


def make_trainer(kind: str, **parts: Any) -> Trainer:
    """The trainer of that kind; evaluation reports accuracy, ece, nll and brier for all of them."""
    if kind == "challenger":
        return ChallengerTrainer(**parts)
    if kind == "odd_epochs":
        return ChallengerTrainer(**parts, callbacks=[OddEpochs(parts["args"].challenge_share)])
    classes = {"plain": Trainer, "rdrop": RDropTrainer}
    if kind not in classes:
        raise SystemExit(f"Unknown kind of method {kind!r}; known: challenger, odd_epochs, {', '.join(classes)}.")
    return classes[kind](**parts, compute_metrics=calibration)
