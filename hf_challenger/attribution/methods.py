"""Attribution by name, for training and for comparison: our LRP, captum's attributors, and controls.

Every method has the signature of :data:`Method`, attributes token ids at their embeddings, and leaves the model as it was.
Only ``"lrp"`` looks at the composite. Cost is in forward and backward passes of the batch:

    lrp                     LRP by rules on operations; with strict=True no warning but an error           1 + 1
                            where no rule covers an operation
    input_x_gradient        captum.attr.InputXGradient: embedding times gradient                           1 + 1
    saliency                captum.attr.Saliency: absolute gradient (Simonyan et al. 2014)                 1 + 1
    integrated_gradients    captum.attr.IntegratedGradients, 50 steps from a zero baseline                50 + 50
    deep_lift               captum.attr.DeepLift from a zero baseline; the rescale rule holds for the activation *modules*
                            that captum knows (ReLU, Tanh, ...), any other operation has its plain gradient   2 + 2
    captum_lrp              captum.attr.LRP: float inputs, plain networks                                  2 + 1
    attention_rollout       Abnar & Zuidema 2020                                                           1 + 0
    random                  noise that is a function of the row's content: a fixed, meaningless map        0
    none                    every unit equally relevant                                                    0
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import captum.attr
import torch
from torch import Tensor, nn

from ..errors import ChallengerError
from ..inputs.main_input import main_input_in
from ..keyed_random import keyed_uniform
from .composites import Composite
from .lrp import LRP
from .rollout import attention_rollout
from .score_model import ScoreModel
from .state import attribution_state
from .targets import Target

# (model, batch, target, composite, main_input=key) -> relevance, in the shape that LRP.attribute returns (hidden may be 1).
# main_input names the key of the batch that is attributed; without it the model's main input is.
Method = Callable[..., Tensor]
Composites = str | Composite


def lrp(
    model: nn.Module,
    batch: Mapping[str, Any],
    target: Target,
    composite: Composites = "attnlrp",
    *,
    strict: bool = False,
    main_input: str | None = None,
) -> Tensor:
    """:class:`~.lrp.LRP` as a method. For training that refuses what no rule covers:
    ``METHODS["strict_lrp"] = partial(lrp, strict=True)`` and ``challenge_attribution="strict_lrp"``."""
    return LRP(model, composite, strict).attribute(batch, target=target, main_input=main_input)


def _with_captum(
    attributor: Callable[[nn.Module], Any],
    model: nn.Module,
    batch: Mapping[str, Any],
    target: Target,
    composite: Composites,
    *,
    main_input: str | None = None,
    **options: Any,
) -> Tensor:
    """One of captum's attributors on the scores of a batch."""
    with attribution_state(model), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Setting forward, backward hooks")  # DeepLift's; it removes them itself
        scores = ScoreModel(model, batch, target, main_input)
        values = scores.values.requires_grad_()
        if "internal_batch_size" in options:
            options["internal_batch_size"] = len(values)
        return attributor(scores).attribute(values, **options).detach()


def integrated_gradients(
    model: nn.Module,
    batch: Mapping[str, Any],
    target: Target,
    composite: Composites = "",
    *,
    n_steps: int = 50,
    baseline: str = "zero",
    main_input: str | None = None,
) -> Tensor:
    """captum's IntegratedGradients (Sundararajan et al. 2017), ``n_steps`` passes of the batch's own size.

    Args:
        baseline: where the path starts: ``"zero"``, or ``"pad"``, the embedding of the padding token at every place. An
            RMS norm sees only the direction of an embedding, so that the scores of LLaMA's kin jump at 0: there the
            attribution from zero does not sum to the difference of the scores, and ``"pad"`` is the one to take.
    """
    if baseline not in ("zero", "pad"):
        raise ChallengerError(f"baseline={baseline!r} is unknown. Choose one of: 'zero', 'pad'.")
    start: Any = 0.0
    if baseline == "pad":
        with attribution_state(model):
            start = _pad_embedding(model, ScoreModel(model, batch, target, main_input))
    return _with_captum(
        captum.attr.IntegratedGradients,
        model,
        batch,
        target,
        composite,
        baselines=start,
        n_steps=n_steps,
        internal_batch_size=0,
        main_input=main_input,
    )


def _pad_embedding(model: nn.Module, scores: ScoreModel) -> Tensor:
    pad = getattr(getattr(model, "config", None), "pad_token_id", None)
    if scores.table is None or pad is None:
        raise ChallengerError(
            f"baseline='pad' needs token ids, model.get_input_embeddings() and config.pad_token_id (got {pad!r})."
            " Set it, or use baseline='zero'."
        )
    return scores.table[pad].detach().expand_as(scores.values).to(scores.values.dtype).clone()


def captum_lrp(
    model: nn.Module,
    batch: Mapping[str, Any],
    target: Target,
    composite: Composites = "",
    *,
    main_input: str | None = None,
) -> Tensor:
    """captum's own LRP, on a copy of the model: it exchanges weights and deletes every ``module.rule``.

    Raises:
        ChallengerError: where captum cannot: integer inputs, modules it has no rule for, a target that is not one class.
    """
    key = main_input_in(model, batch, main_input)
    if not batch[key].is_floating_point():
        raise ChallengerError(
            f"captum's LRP needs float inputs, but {key!r} holds {batch[key].dtype} ids and captum has no rule for an"
            " embedding. Use attribution 'lrp'."
        )
    if callable(target) or (isinstance(target, Tensor) and target.is_floating_point()):
        raise ChallengerError(
            "captum's LRP explains one class a row: give a class index, (rows,) indices or None, not a callable or float"
            " target. Use attribution 'lrp'."
        )
    with attribution_state(model):
        scores = ScoreModel(copy.deepcopy(model), batch, target, key)
        try:
            result = captum.attr.LRP(scores).attribute(scores.values.requires_grad_())
        except (TypeError, RuntimeError, AssertionError) as error:
            raise ChallengerError(
                f"captum's LRP cannot serve {type(model).__name__}: {' '.join(str(error).split())} Use attribution 'lrp'."
            ) from error
        return result.detach()


def _attention_rollout(
    model: nn.Module, batch: Mapping[str, Any], target: Target, composite: Composites, *, main_input: str | None = None
) -> Tensor:
    with attribution_state(model):
        return attention_rollout(model, batch, target, main_input=main_input)


def random_relevance(
    model: nn.Module,
    batch: Mapping[str, Any],
    target: Target = None,
    composite: Composites = "",
    *,
    seed: int = 0,
    main_input: str | None = None,
) -> Tensor:
    """Uniform numbers in (0, 1), 0 on padding: a pure function of the seed and the row's own content.

    Like a real attribution, a row's map is the same in every epoch, batch and process; nothing is drawn from torch's
    generators. For a fresh choice each time use ``"none"`` and a selection that draws.
    """
    x = batch[main_input_in(model, batch, main_input)].detach()
    content = (x.double() if x.is_floating_point() else x).flatten(1)
    if x.is_floating_point():
        content = content.contiguous().view(torch.int64)
    place = torch.arange(content.shape[1], device=x.device)
    attended = batch.get("attention_mask")
    attended = torch.ones_like(content) if attended is None or attended.shape != x.shape else attended.long()
    # 23 random bits a unit: their sum tells rows apart, and padding does not change it.
    row = ((keyed_uniform(seed, place, content) * (1 << 24)).long() * attended).sum(1, keepdim=True)
    noise = keyed_uniform(seed + 1, row, place) * attended
    return noise.reshape(x.shape) if x.is_floating_point() else noise.unsqueeze(-1)


def _none(
    model: nn.Module, batch: Mapping[str, Any], target: Target, composite: Composites, *, main_input: str | None = None
) -> Tensor:
    """Every unit equally relevant: with it, any selection is a random one, at no cost."""
    x = batch[main_input_in(model, batch, main_input)]
    return torch.ones_like(x, dtype=torch.float32) if x.is_floating_point() else torch.ones((*x.shape, 1), device=x.device)


METHODS: dict[str, Method] = {
    "lrp": lrp,
    "input_x_gradient": partial(_with_captum, captum.attr.InputXGradient),
    "saliency": partial(_with_captum, captum.attr.Saliency),
    "integrated_gradients": integrated_gradients,
    "deep_lift": partial(_with_captum, captum.attr.DeepLift),
    "captum_lrp": captum_lrp,
    "attention_rollout": _attention_rollout,
    "random": random_relevance,
    "none": _none,
}
