"""The folder of a saved model, checked by its json files before torch and transformers are loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import ChallengerError

WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
TEXTS, FLOATS = ("texts",), ("images", "series")  # what commands read
EXPECTED = {
    TEXTS: "whole texts (…ForSequenceClassification, in PEFT SEQ_CLS)",
    FLOATS: "images or series (…ForImageClassification)",
}
OTHER_PEFT_TASKS = ("TOKEN_CLS", "QUESTION_ANS", "CAUSAL_LM", "SEQ_2_SEQ_LM")
OTHER_CLASSIFIERS = {"Image": "images", "TimeSeries": "series", "Audio": "audio", "Video": "videos"}
# Whose audio classifiers end in ForSequenceClassification.
HEARS = ("Wav2Vec2", "Hubert", "WavLM", "UniSpeech", "Data2VecAudio", "SEW")


def json_of(name: str, file: str) -> dict[str, Any] | None:
    """A json file of a folder; None where there is none, or where it is damaged, which transformers tells."""
    try:
        found = json.loads((Path(name) / file).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def check_model_folder(name: str) -> None:
    """Raise :class:`ChallengerError` where ``name`` is a folder without a model, or looks like one that does not exist."""
    folder = Path(name)
    if folder.is_dir():
        config = "adapter_config.json" if (folder / "adapter_config.json").is_file() else "config.json"  # PEFT
        expected = {config: (config,), "weights (model.safetensors)": WEIGHTS}
        missing = [what for what, patterns in expected.items() if not any(any(folder.glob(p)) for p in patterns)]
        if missing:
            raise ChallengerError(
                f"The folder {name!r} holds no {' and no '.join(missing)}, so it is no model of transformers. Give the folder"
                " that trainer.save_model() or save_pretrained() wrote, or a model's name on the Hub."
            )
        base = (json_of(name, "adapter_config.json") or {}).get("base_model_name_or_path")
        if isinstance(base, str) and not Path(base).exists() and _is_path(base):
            raise ChallengerError(
                f"{name!r} holds a PEFT adapter of the model {base!r}, and there is no such folder. Put the model there, or"
                " correct base_model_name_or_path in adapter_config.json."
            )
    elif folder.exists():
        raise ChallengerError(f"{name!r} is a file; the folder of a model, or its name on the Hub, is expected.")
    elif _is_path(name):
        raise ChallengerError(
            f"There is no folder {name!r}. Give the folder of a saved model, or a model's name on the Hub."
        )


def _is_path(name: str) -> bool:
    """Whether it cannot be a model's name on the Hub."""
    return Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1 or "\\" in name


def check_classifier(name: str, reads: tuple[str, ...]) -> None:
    """:func:`check_model_folder`, and raise :class:`ChallengerError` where the folder's files tell another task.

    Args:
        name: a folder, or a name on the Hub, of which nothing is known yet.
        reads: :data:`TEXTS` or :data:`FLOATS`.
    """
    check_model_folder(name)
    adapter = json_of(name, "adapter_config.json")
    if adapter is not None and (task := adapter.get("task_type")):
        check_task(name, task, reads)
    elif adapter is not None:  # its base model may be one without a head
        check_task(name, architecture_of(str(adapter.get("base_model_name_or_path"))), reads, of_base=True)
    else:
        check_task(name, architecture_of(name), reads)


def architecture_of(name: str) -> str:
    """The class of the model in a folder; empty where its config does not tell."""
    found = (json_of(name, "config.json") or {}).get("architectures")
    return str(found[0]) if isinstance(found, list) and found else ""


def check_task(name: str, kind: str, reads: tuple[str, ...], of_base: bool = False) -> None:
    """Raise :class:`ChallengerError` where a model is made for another task than to classify what is read.

    Args:
        name: of the model, for the message.
        kind: the architecture in its config, or PEFT's name of the task; empty: not known.
        reads: :data:`TEXTS` or :data:`FLOATS`.
        of_base: whether the kind is that of an adapter's base model, whose head the adapter may replace.
    """
    task = kind.rpartition("For")[2] if "For" in kind else ""
    if kind == "SEQ_CLS" or ("Classification" in task and not task.startswith("Token")):
        words = [what for start, what in OTHER_CLASSIFIERS.items() if task.startswith(start)]
        found = "series" if task == "Classification" else words[0] if words else "texts"  # PatchTSTForClassification
        found = "audio" if kind.startswith(HEARS) else found
        if found not in reads:
            wanted = " or ".join(reads)
            raise ChallengerError(
                f"{name!r} classifies {found} ({kind}), not {wanted}. Give data of that kind, or a classifier of {wanted}."
            )
    elif kind in OTHER_PEFT_TASKS or (task and not of_base):
        raise ChallengerError(
            f"{name!r} is a model of another task ({kind}); one that classifies {EXPECTED[reads]} is expected, so fine-tune it"
            " with such a head."
        )
