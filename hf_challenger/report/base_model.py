"""Which published model a classifier was fine-tuned from, and under which licence, as far as this machine can tell."""

from __future__ import annotations

import os
import re
from pathlib import Path

from huggingface_hub import ModelCard, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
from yaml import YAMLError

from ..command_line import ENCODER_NAME, packaged_encoder
from ..errors import ChallengerError

IN_CACHE = re.compile(r"models--([^/\\]+)[/\\]snapshots[/\\]")


def base_and_licence(name_or_path: str) -> tuple[str | None, str | None]:
    """A name on the Hub and a licence; None for what is not known.

    Args:
        name_or_path: as ``from_pretrained`` took it: a name on the Hub, the folder of the packaged encoder, a folder in the
            Hub's cache, or any other one, whose own card then tells.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        if not _is_repo_id(name_or_path):
            return None, None
        cached = try_to_load_from_cache(name_or_path, "README.md")
        return name_or_path, _card(Path(cached))[1] if isinstance(cached, str) else None
    base, licence = _card(folder / "README.md")
    if found := IN_CACHE.search(f"{folder.absolute()}{os.sep}"):
        base = found[1].replace("--", "/")
    elif _is_packaged(folder):
        base = ENCODER_NAME
    return base if base and _is_repo_id(base) else None, licence


def _card(path: Path) -> tuple[str | None, str | None]:
    try:
        data = ModelCard.load(path).data if path.is_file() else None
    except (YAMLError, ValueError):
        data = None
    found = (data.get("base_model"), data.get("license")) if data else (None, None)
    base, licence = (value[0] if isinstance(value, list) and value else value for value in found)
    return (base if isinstance(base, str) else None), (licence if isinstance(licence, str) else None)


def _is_packaged(folder: Path) -> bool:
    try:
        return folder.samefile(packaged_encoder())
    except (ChallengerError, OSError):
        return False


def _is_repo_id(name: str) -> bool:
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(name)
