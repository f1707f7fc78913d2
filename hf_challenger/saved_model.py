"""Saved classifiers of texts, images and series, with checks that they are trained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
)

from . import small_models
from .errors import ChallengerError
from .model_folder import FLOATS, TEXTS, check_classifier, check_task, json_of

HEAD = re.compile(r"\b(classifier|score|classification_head|head)\b.*\bweight$")


def load_text_classifier(name: str) -> tuple[nn.Module, Any]:
    """A classifier of texts and its tokenizer.

    Args:
        name: a folder, also of a PEFT adapter, or a name on the Hub.

    Raises:
        ChallengerError: a model of another task, one without a trained head, or an empty tokenizer.
    """
    check_classifier(name, TEXTS)
    with _loading(name):
        model = _load(AutoModelForSequenceClassification, name, TEXTS)
        tokenizer = AutoTokenizer.from_pretrained(name)
    # Where the files are missing, transformers makes a tokenizer of special tokens only: every word would be unknown to it.
    if len(tokenizer) <= len(tokenizer.all_special_ids) < (getattr(model.config, "vocab_size", None) or 0):
        raise ChallengerError(
            f"{name!r} holds no tokenizer, or an empty one of {len(tokenizer)} special tokens. Save it into the folder"
            " (tokenizer.save_pretrained), or train with processing_class=tokenizer, which saves it with the model."
        )
    # Trainer set it when training started; the base model of an adapter does not know.
    config = model.config.get_text_config()
    adapted = json_of(name, "adapter_config.json") is not None
    if tokenizer.pad_token_id is not None and (adapted or getattr(config, "pad_token_id", None) is None):
        config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def load_float_classifier(name: str) -> tuple[nn.Module, Any]:
    """A classifier of images or series, of transformers or of :mod:`.small_models`, and its image processor or None.

    Args:
        name: a folder, also of a PEFT adapter, or a name on the Hub.

    Raises:
        ChallengerError: a model of another task, or one without a trained head.
    """
    check_classifier(name, FLOATS)
    base = (json_of(name, "adapter_config.json") or {}).get("base_model_name_or_path") or name
    with _loading(name):
        architecture = (PreTrainedConfig.get_config_dict(base)[0].get("architectures") or [""])[0]
        kind: Any = AutoModelForImageClassification
        if "Classification" in architecture or base == name:
            check_task(name, architecture, FLOATS)
            kind = getattr(small_models, architecture, None) or getattr(transformers, architecture, kind)
        model = _load(kind, name, FLOATS)
        places = [place for place in (name, base) if (Path(place) / "preprocessor_config.json").is_file()]
        on_hub = not Path(base).is_dir() and model.main_input_name == "pixel_values"
        processor = AutoImageProcessor.from_pretrained(places[0] if places else base) if places or on_hub else None
    return model, processor


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """What transformers, safetensors and PEFT raise becomes one sentence with the way out."""
    try:
        yield
    except ChallengerError:
        raise
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        if not Path(name).is_dir():
            raise ChallengerError(
                f"There is no folder {name!r}, and no model of that name could be loaded from the Hub ({reason}). Give the"
                " folder that trainer.save_model() wrote, or a model's name on the Hub."
            ) from error
        base = (json_of(name, "adapter_config.json") or {}).get("base_model_name_or_path")
        of = "" if base is None else f", a PEFT adapter of {base!r},"
        raise ChallengerError(
            f"The model in {name!r}{of} could not be loaded ({reason}). Give a folder as trainer.save_model() writes it, with"
            " all of its files."
        ) from error


def _load(kind: Any, name: str, reads: tuple[str, ...]) -> Any:
    """The model, in evaluation mode.

    Raises:
        ChallengerError: where it is of another task, or lacks trained weights.
    """
    adapter = json_of(name, "adapter_config.json")
    if adapter is None:
        model, info = kind.from_pretrained(name, output_loading_info=True)
        missing = sorted(info["missing_keys"])
        check_task(name, (getattr(model.config, "architectures", None) or [""])[0], reads)
    else:  # its base model may be of any task
        classes, saved = _adapter_head(name)
        model, info = kind.from_pretrained(adapter["base_model_name_or_path"], output_loading_info=True, **classes)
        missing = sorted(key for key in info["missing_keys"] if not any(part in saved for part in key.split(".")))
        model.load_adapter(name)
    if missing:
        raise ChallengerError(
            f"{name!r} holds no trained classification head (missing: {', '.join(missing[:3])}), so its answers would be random."
            " Fine-tune it first."
        )
    return model.eval()


def _adapter_head(name: str) -> tuple[dict[str, Any], set[str]]:
    """The classes of a PEFT folder, whose base model's config does not know them, and the heads that it holds.

    There are as many classes as the saved head has outputs. Their names come from a config.json beside the adapter, if there is
    one. Nothing where it saves no head.
    """
    with safe_open(Path(name) / "adapter_model.safetensors", "pt") as file:
        shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}  # noqa: SIM118
    heads = {key: found[1] for key in shapes if (found := HEAD.search(key)) and ".lora_" not in key}
    outputs = [key for key in heads if "dense" not in key]
    if not outputs:
        return {}, set()
    classes: dict[str, Any] = {"num_labels": shapes[outputs[-1]][0], "ignore_mismatched_sizes": True}  # of the base's head
    names = {int(i): label for i, label in ((json_of(name, "config.json") or {}).get("id2label") or {}).items()}
    if len(names) == classes["num_labels"]:
        classes |= {"id2label": names, "label2id": {label: i for i, label in names.items()}}
    return classes, set(heads.values())
