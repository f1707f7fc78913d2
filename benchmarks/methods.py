"""The methods that are compared: a kind with code, and its settings, which the experiment file holds.

plain        Trainer; label smoothing and NEFTune (Jain et al., ICLR 2024) are settings of it
challenger   ChallengerTrainer; random hiding, Gradient×Input and all policies are settings of it
rdrop        R-Drop (Liang et al., NeurIPS 2021): two dropout passes and their symmetric KL divergence; setting "alpha"
mixup        mixup (Zhang et al., ICLR 2018) of float inputs; setting "alpha"
reldrop      RelDrop (arXiv 2505.21595): relevance- and chance-guided masks, loss on the masked batch only; settings "alpha",
             "beta"
odd_epochs   ChallengerTrainer that challenges in every second epoch only (AD-DROP, Yang et al., NeurIPS 2022)
warm_up      ChallengerTrainer that begins to challenge after a share of the steps; setting "warm_up"
controller   ChallengerTrainer whose rate follows the gold probability of challenged rows; setting "keeps"
opposite     ChallengerTrainer that hides units in proportion to their lack of relevance, in a share of the rows; setting "share"
weights      ChallengerTrainer with hard labels, whose challenged rows weigh the share of relevance that is left to them
setfit       SetFit (setfit_method.py); setting "num_iterations"; texts
consistency  ChallengerTrainer whose challenged rows are trained on the clean prediction (KL divergence) in place of the label

Perturbation "attenuate": hidden patches and time steps keep half of their difference from the mean.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer, TrainerCallback

from hf_challenger import Challenger, ChallengerTrainer
from hf_challenger.calibration import compute_metrics
from hf_challenger.inputs.patches import Patches
from hf_challenger.inputs.series import Series
from hf_challenger.logits import logits_of
from hf_challenger.perturbation import PERTURBATIONS
from hf_challenger.perturbation.fills import fill_mean


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


class _RelDropChallenger(Challenger):
    settings: dict[str, float]

    def _select(self, relevance: Tensor, maskable: Tensor, noise: Tensor, span: int, grid: Any) -> Tensor:
        low, high = relevance.amin(1, keepdim=True), relevance.amax(1, keepdim=True)
        scaled = (relevance - low) / (high - low).clamp(min=1e-12)
        alpha, beta = self.settings["alpha"], self.settings["beta"]
        mask: Tensor = (alpha * noise + (1 - alpha) * scaled >= 1 - beta) & maskable
        return mask & ~mask.logical_and(maskable).eq(maskable).all(1, keepdim=True)  # something is left


class RelDropTrainer(ChallengerTrainer):
    """Every row is masked where alpha · noise + (1 - alpha) · scaled relevance ≥ 1 - beta; hard labels."""

    def __init__(self, *args: Any, settings: dict[str, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings

    def _challenger_for(self, model: Any, options: Any) -> Challenger:
        challenger = super()._challenger_for(model, options)
        challenger.__class__, challenger.settings = _RelDropChallenger, self.settings  # type: ignore[attr-defined]
        return challenger


class _OppositeChallenger(Challenger):
    settings: dict[str, float]

    def _select(self, relevance: Tensor, maskable: Tensor, noise: Tensor, span: int, grid: Any) -> Tensor:
        positive = relevance.clamp(min=0) * maskable
        lacking = positive.amax(1, keepdim=True) - positive
        number = torch.arange(len(relevance), device=relevance.device).unsqueeze(1)
        share = self.settings["share"]
        opposite = ((number + 1) * share).floor() > (number * share).floor()
        return super()._select(torch.where(opposite, lacking, relevance), maskable, noise, span, grid)


class OppositeTrainer(ChallengerTrainer):
    """The relevant tokens are kept: in ``share`` of the challenged rows, what is hidden is what matters least."""

    def __init__(self, *args: Any, settings: dict[str, float], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings = settings

    def _challenger_for(self, model: Any, options: Any) -> Challenger:
        challenger = super()._challenger_for(model, options)
        challenger.__class__, challenger.settings = _OppositeChallenger, self.settings  # type: ignore[attr-defined]
        return challenger


class _WeightingChallenger(Challenger):
    def _mix(self, *parts: Any) -> Any:
        mixed = super()._mix(*parts)
        mixed.weights = mixed.weights * (1 - mixed.removed)
        return mixed


class WeightsTrainer(ChallengerTrainer):
    """A row that lost its evidence teaches less, in place of being taught to be unsure; use it with softening 0."""

    def _challenger_for(self, model: Any, options: Any) -> Challenger:
        challenger = super()._challenger_for(model, options)
        challenger.__class__ = _WeightingChallenger
        return challenger


class ConsistencyTrainer(ChallengerTrainer):
    """Challenged rows: KL divergence from the model's own clean prediction, which gets no gradient; clean rows: their labels.

    Costs a forward pass more.
    """

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = dict(inputs)
        labels = inputs.pop((self.label_names or ["labels"])[0])
        mixed = self._challenger_for(model, self.options).challenge(
            inputs, labels, self.state.global_step, self._first_row()
        )
        with torch.no_grad():
            wanted = logits_of(model(**inputs)).softmax(-1)
        outputs = model(**mixed.inputs)
        log_p = logits_of(outputs).log_softmax(-1)
        to_clean = F.kl_div(log_p, wanted, reduction="none").sum(-1)
        losses = torch.where(mixed.challenged, to_clean, F.nll_loss(log_p, labels, reduction="none"))
        return (losses.mean(), outputs) if return_outputs else losses.mean()


def attenuate(inputs: dict[str, Any], drop_mask: Tensor, units: Any, draw: Any) -> dict[str, Any]:
    """Half of the way from the input to its mean."""
    filled = fill_mean(inputs, drop_mask, units, draw)
    return {**filled, units.key: (filled[units.key] + inputs[units.key]) / 2}


PERTURBATIONS["attenuate"] = attenuate
for adapter in (Series, Patches):
    adapter.perturbations = (*adapter.perturbations, "attenuate")


class OddEpochs(TrainerCallback):
    """Switches the challenge on in epochs 1, 3, 5, … (counting from 0) by setting its share."""

    def __init__(self, share: float) -> None:
        self.share = share

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        args.challenge_share = self.share if round(state.epoch or 0) % 2 else 0.0


class WarmUp(TrainerCallback):
    """No challenge in the first ``warm_up`` of all steps."""

    def __init__(self, share: float, warm_up: float) -> None:
        self.share, self.warm_up = share, warm_up

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        args.challenge_share = self.share if state.global_step >= self.warm_up * state.max_steps else 0.0


class Controller(TrainerCallback):
    """Adapts the rate so that challenged rows keep a set share of the clean rows' (geometric mean) gold probability.

    Needs hard labels (softening 0) and logging every few steps.
    """

    def __init__(self, keeps: float, lowest: float = 0.02, highest: float = 0.6) -> None:
        self.keeps, self.lowest, self.highest = keeps, lowest, highest

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "challenged_loss" in logs and "clean_loss" in logs:
            kept = math.exp(logs["clean_loss"] - logs["challenged_loss"])
            factor = 1.1 if kept > self.keeps else 1 / 1.1
            args.challenge_rate = min(self.highest, max(self.lowest, args.challenge_rate * factor))


RIVALS = {"rdrop": RDropTrainer, "mixup": MixupTrainer, "reldrop": RelDropTrainer, "opposite": OppositeTrainer}
OWN_SETTINGS = {
    "rdrop": ("alpha",),
    "mixup": ("alpha",),
    "reldrop": ("alpha", "beta"),
    "opposite": ("share",),
    "warm_up": ("warm_up",),
    "controller": ("keeps",),
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
    if kind in ("consistency", "weights"):
        return {"consistency": ConsistencyTrainer, "weights": WeightsTrainer}[kind](**parts)
    if kind == "setfit":
        from setfit_method import SetFitRival  # a package of its own, which the other methods do without

        return SetFitRival(**parts, settings=settings)
    if kind in RIVALS:
        return RIVALS[kind](**parts, settings=settings)
    share = parts["args"].challenge_share
    callbacks = {
        "odd_epochs": lambda: OddEpochs(share),
        "warm_up": lambda: WarmUp(share, settings["warm_up"]),
        "controller": lambda: Controller(settings["keeps"]),
    }
    if kind not in callbacks:
        raise SystemExit(
            f"Unknown kind of method {kind!r}; known: plain, challenger, setfit, weights, consistency, {', '.join([*RIVALS, *callbacks])}."
        )
    return ChallengerTrainer(**parts, callbacks=[callbacks[kind]()])
