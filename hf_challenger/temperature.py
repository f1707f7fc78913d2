"""Temperature scaling that travels with the model: folded into its last layer, so that any pipeline is calibrated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .attribution.state import attribution_state
from .errors import ChallengerError
from .head import head_of
from .inputs.names import main_input_of
from .outputs import logits_of


def apply_temperature(model: nn.Module, temperature: float, inputs: Mapping[str, Any] | None = None) -> None:
    """Make a classifier return logits / T for good, by dividing the weight and bias of its last linear layer by T.

    The predicted class of every row stays the same (but for near ties where weights are in half precision, whose quotients are
    rounded); softmax then gives calibrated confidences, in ``pipeline`` too, and ``save_pretrained`` keeps it. The model is run on
    ``inputs`` with the layer as it is and halved, to see that its logits really follow; if not, nothing is changed. ``model.config.calibration_temperature`` tells the product of all temperatures
    applied so far; it is absent where there is none.

    Args:
        model: a classifier with a linear layer at its end.
        temperature: T > 0, from :func:`~.calibration.fit_temperature` on *validation* rows.
        inputs: a batch as the model takes it, without labels. None: transformers' own dummy token ids, for text models.

    Raises:
        ChallengerError: where T is no temperature, the model is a regression, or dividing one layer does not divide the logits
            (adapters on the last layer, two heads whose scores are averaged, weights that are used elsewhere too).
    """
    try:
        known = not isinstance(temperature, (bool, str)) and 0 < float(temperature) < math.inf
    except (TypeError, ValueError, RuntimeError):
        known = False
    if not known:
        raise ChallengerError(
            f"temperature={temperature!r} is not a finite number above 0. Use fit_temperature on validation logits."
        )
    temperature = float(temperature)
    config: Any = getattr(model, "config", None)
    if getattr(config, "problem_type", None) == "regression":
        raise ChallengerError(
            f"{type(model).__name__} is a regression (config.problem_type), whose outputs a temperature would change. Only"
            " classifiers are calibrated by it."
        )
    batch = _dummy(model) if inputs is None else inputs
    with attribution_state(model), torch.no_grad():
        before, layer, _ = head_of(model, batch)
        kept = [(p, p.detach().clone()) for p in (layer.weight, layer.bias) if p is not None]
        _divide(kept, 2)  # exact in floating point, in any dtype
        try:
            halved = logits_of(model(**batch), model)
        finally:
            _divide(kept, 1)
        if not torch.allclose(halved * 2, before, rtol=0, atol=1e-5 * float(before.abs().max())):
            raise ChallengerError(
                f"Dividing {type(model).__name__}'s last linear layer does not divide its logits: something comes after it or"
                " shares its weights. Merge adapters first (model.merge_and_unload()), or divide the logits by the temperature"
                " where you use them."
            )
        _divide(kept, temperature)
    if config is not None:
        config.calibration_temperature = getattr(config, "calibration_temperature", 1.0) * temperature
        if math.isclose(config.calibration_temperature, 1, rel_tol=1e-9):  # one was taken back
            del config.calibration_temperature


def _divide(parameters: list[tuple[Tensor, Tensor]], divisor: float) -> None:
    """Each parameter := its original values / divisor."""
    for parameter, original in parameters:
        parameter.copy_(original / divisor)


def _dummy(model: nn.Module) -> dict[str, Any]:
    if main_input_of(model) != "input_ids":
        raise ChallengerError(
            f"The main input of {type(model).__name__} is {main_input_of(model)!r}: pass a batch as inputs=…, on which it can"
            " be checked that the logits come out divided."
        )
    device = next(model.parameters()).device
    # One row, as decoder-only classifiers without a padding token refuse more; BART's reads its answer at the end token.
    end = getattr(getattr(model, "config", None), "eos_token_id", None)
    vocabulary = getattr(getattr(model, "config", None), "vocab_size", None) or 7
    some = [i % vocabulary for i in (4, 5, 6)]
    return {"input_ids": torch.tensor([[*some, *([end] if isinstance(end, int) else [])]], device=device)}
