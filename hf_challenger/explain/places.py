"""Relevance of an image's patches, or of a series' time spans, for a class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ChallengerError
from ..inputs import units_for
from ..inputs.blocks import Blocks
from .decision import decision
from .explanation import PlaceExplanation


def explain_places(
    model: nn.Module,
    x: Tensor,
    file: str = "",
    method: str = "lrp",
    composite: str = "attnlrp",
    *,
    label: str | int | None = None,
) -> tuple[PlaceExplanation, Tensor]:
    """Relevance of the places of an image or a series for a class.

    Args:
        model: a classifier of images or series.
        x: the model's main input without the axis of rows: ``(channels, height, width)`` or ``(time, channels)``.
        file: where it comes from.
        method: see :mod:`hf_challenger.attribution.methods`.
        composite: rules of ``method="lrp"``.
        label: the class, by name or index. None: the one with the highest score.

    Returns:
        The explanation, and relevance of ``x``'s own shape.

    Raises:
        ChallengerError: an input that the model does not take; unknown names; NaN or infinite logits or relevance.
    """
    units = units_for(model)
    if not isinstance(units, Blocks):
        raise ChallengerError(f"{type(model).__name__} reads texts, not images or series. Give it a --text.")
    weights = next(model.parameters())
    batch = {units.key: x.unsqueeze(0).to(weights.device, weights.dtype)}
    try:
        fields, relevance = decision(model, batch, label, method, composite, repr(file))
    except ChallengerError:
        raise
    except (RuntimeError, ValueError, IndexError) as error:
        raise ChallengerError(
            f"{type(model).__name__} does not take an input of shape {tuple(x.shape)} ({str(error).splitlines()[0]}). Give one"
            " of the shape that it was trained on."
        ) from error
    if relevance.shape != x.shape:
        raise ChallengerError(
            f"Method {method!r} gives relevance of shape {tuple(relevance.shape)}, not of the input's {tuple(x.shape)}. Choose"
            " another, such as 'lrp'."
        )
    relevance = relevance.cpu()
    identities: list[int] = units.identities(batch)[0].flatten().tolist()
    values = units.per_unit(relevance.unsqueeze(0))[0].flatten()
    order: list[int] = values.abs().argsort(descending=True, stable=True).tolist()
    places = [units.text_of([identities[i]]) for i in order]
    found = PlaceExplanation(file=file, places=places, relevance=values[order].tolist(), **fields)
    return found, relevance


def pixels_of(image: Any, model: nn.Module, processor: Any = None) -> Tensor:
    """An image as the model takes it, ``(channels, height, width)``.

    Args:
        image: a ``PIL.Image``.
        model: its config tells channels and size where there is no processor; values are then divided by 255.
        processor: the model's image processor, if it has one.
    """
    config: Any = model.config
    channels = getattr(config, "num_channels", 3)
    modes = {1: "L", 3: "RGB", 4: "RGBA"}
    if channels not in modes:
        raise ChallengerError(f"The model takes images of {channels} channels; 1, 3 or 4 can be read from a file.")
    image = image.convert(modes[channels])
    if processor is not None:
        pixels: Tensor = processor(images=image, return_tensors="pt")["pixel_values"][0]
        return pixels
    size = getattr(config, "image_size", None)
    if size is not None:
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        image = image.resize((width, height)) if image.size != (width, height) else image
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return pixels.reshape(image.height, image.width, channels).permute(2, 0, 1).float() / 255


def steps_of(series: Any, model: nn.Module) -> Tensor:
    """A series as the model takes it, ``(time, channels)``; its channels are counted."""
    config: Any = model.config
    expected = getattr(config, "num_input_channels", None) or getattr(config, "num_channels", None)
    if expected is not None and series.shape[1] != expected:
        way = "Transpose it" if series.shape[0] == expected else "Give a series of the set that it was trained on"
        raise ChallengerError(
            f"The series has {len(series)} steps of {series.shape[1]} channels; the model takes {expected} channels. {way}."
        )
    return torch.as_tensor(series)
