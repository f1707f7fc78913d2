"""Temperature scaling: fit a temperature, and fold it into the model's last layer, so that any pipeline is calibrated."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..attribution.state import attribution_state
from ..errors import ChallengerError, ChallengerWarning
from ..inputs.main_input import main_input_of
from ..last_layer import last_layer_of
from ..logits import logits_of
from .metrics import Array, labelled, negative_log_likelihood

LOG_RANGE = (-math.log(100), math.log(100))  # of log T: a temperature outside tells that the rows do not determine it


def fit_temperature(logits: Array, labels: Array) -> float:
    """The temperature T > 0 that minimises the NLL of logits / T (Guo et al. 2017, section 4.2), on held-out rows.

    Found in log T by golden-section search in float64 (the NLL has a single minimum in 1/T), between 1/100 and 100.

    Args:
        logits: ``(rows, classes)``.
        labels: ``(rows,)`` classes; rows labelled -100 are left out.

    Raises:
        ChallengerError: for other shapes, no labelled row, NaN or infinite logits, and labels that are no classes.

    Warns:
        ChallengerWarning: at either end of that range, or where every row is right beyond doubt: the minimum is not among
            these rows, so more of them are needed.
    """
    logits, labels = labelled(logits, labels)

    def nll(log_t: float) -> float:
        return negative_log_likelihood(logits / math.exp(log_t), labels)

    (low, high), ratio = LOG_RANGE, (math.sqrt(5) - 1) / 2
    while high - low > 1e-6:
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, right) if nll(left) < nll(right) else (left, high)
    found = (low + high) / 2
    if abs(found) > LOG_RANGE[1] - 1e-3 or nll(found) < 1e-12:
        warnings.warn(
            f"No temperature fits these {len(labels)} rows: the best of those from .01 to 100 is {math.exp(found):.3g}, as all"
            " rows are right, or no better than chance. Fit it on more held-out rows, ones that the model was not trained on.",
            ChallengerWarning,
            stacklevel=2,
        )
    return math.exp(found)


def temperature_for_accuracy(logits: Array, accuracy: float) -> float:
    """The temperature T at which the mean confidence of logits / T equals ``accuracy``. Needs no labels.

    Found by bisection in log T, between 1/100 and 100: the confidence, a row's largest probability, falls as T grows.

    Args:
        logits: ``(rows, classes)``.
        accuracy: the share of new rows on which the model is expected to be right, above chance and below 1.

    Raises:
        ChallengerError: if the accuracy is no better than chance, or no temperature in the range gives it.
    """
    scores = torch.as_tensor(logits).double()
    chance = 1 / scores.shape[1] if scores.dim() == 2 and len(scores) else 1.0
    if not chance < accuracy < 1:
        raise ChallengerError(
            f"An accuracy between chance and 1, and logits of shape (rows, classes), are expected; got {accuracy:.3g} and"
            f" {tuple(scores.shape)}."
        )
    if not scores.isfinite().all():
        raise ChallengerError("The logits hold NaN or infinity: the model's training has diverged. Lower the learning rate.")

    def too_confident(log_t: float) -> bool:
        return float((scores / math.exp(log_t)).softmax(1).amax(1).mean()) > accuracy

    low, high = LOG_RANGE
    if too_confident(high) or not too_confident(low):
        raise ChallengerError(f"No temperature between .01 and 100 gives these logits a mean confidence of {accuracy:.3g}.")
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if too_confident(middle) else (low, middle)
    return math.exp((low + high) / 2)


def apply_temperature(model: nn.Module, temperature: float, inputs: Mapping[str, Any] | None = None) -> float:
    """Make a classifier return logits / T for good, by dividing the weight and bias of its last linear layer by T.

    The predicted classes stay the same, and softmax gives calibrated confidences, in ``pipeline`` too. ``save_pretrained``
    keeps it. In half precision (fp16, bf16) other divisors than powers of two would round the weights, and could change the
    class of a near tie. There T becomes the nearest power of two, with a warning that says what is left to divide by.

    The model is run on ``inputs`` with the layer as it is and halved. Nothing is changed if its logits do not follow.
    ``model.config.calibration_temperature`` holds the product of all temperatures applied so far, if any.

    Args:
        model: a classifier with a linear layer at its end.
        temperature: T > 0, from :func:`fit_temperature` on *validation* rows.
        inputs: a batch as the model takes it, without labels. None: transformers' own dummy token ids, for text models.

    Raises:
        ChallengerError: where T is no temperature, the model is a regression, or dividing one layer does not divide the logits
            (adapters on the last layer, two heads whose scores are averaged, weights that are used elsewhere too), or where
            PEFT would not save the layer.

    Returns:
        The temperature by which the layer was divided.
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
        before, layer, _ = last_layer_of(model, batch)
        _refuse_unsaved(model, layer)
        if layer.weight.dtype in (torch.float16, torch.bfloat16):
            temperature = _power_of_two(temperature, str(layer.weight.dtype).removeprefix("torch."))
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
    return temperature


def _power_of_two(temperature: float, dtype: str) -> float:
    """The nearest power of two, by which half precision is divided without rounding."""
    exact = float(2 ** round(math.log2(temperature)))
    if exact != temperature:
        warnings.warn(
            f"The last layer is {dtype}, so that it is divided by {exact:g} and not by {temperature:.3g}, which would round its"
            f" weights and could change predicted classes. Divide the logits by the remaining {temperature / exact:.3g} where you"
            " use them, or convert the model to float32 first.",
            ChallengerWarning,
            stacklevel=3,
        )
    return exact


def _refuse_unsaved(model: nn.Module, layer: nn.Module) -> None:
    """PEFT saves adapters and ``modules_to_save``: a temperature in any other layer would be lost."""
    if not hasattr(model, "peft_config"):
        return
    saved = [m for m in model.modules() if type(m).__name__ in ("ModulesToSaveWrapper", "AuxiliaryTrainingWrapper")]
    if not any(layer is part for module in saved for part in module.modules()):
        raise ChallengerError(
            f"PEFT does not save the last layer of {type(model).__name__} with the adapter, so that a temperature in it would be"
            " lost. Set modules_to_save to the classifier's name or task_type='SEQ_CLS', or merge the adapters first"
            " (model.merge_and_unload())."
        )


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
