"""What the commands of this package are: ``python -m hf_challenger``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from .version import __version__

COMMANDS = {
    "cues": "what a saved classifier leans on over a data set, and what it predicts without that",
    "explain": "why a saved classifier decided so on one text, image or series",
    "predict": "classify the texts of a file",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a command, or list them."""
    width = max(map(len, COMMANDS))
    parser = argparse.ArgumentParser(
        prog="python -m hf_challenger",
        description="ChallengerTrainer finds cues while it trains. These commands ask any saved classifier:\n\n"
        + "\n".join(f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()),
        epilog="python -m hf_challenger cues --help (or hf_challenger.cues) tells the options of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, help="followed by its own arguments")
    parser.add_argument("--version", action="version", version=f"hf_challenger {__version__}")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        parser.print_help()
        return
    command = parser.parse_args(arguments[:1]).command
    place = "explain.command" if command == "explain" else command
    import_module(f"hf_challenger.{place}").main(arguments[1:])


if __name__ == "__main__":
    main()
