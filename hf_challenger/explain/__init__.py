"""Why a saved classifier decided so: ``explain`` for texts, and the command ``python -m hf_challenger.explain``.

Public names are imported at first use: the command checks its arguments and files before torch and transformers are loaded.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .command import main
    from .explanation import Explanation
    from .lengths import longest_input
    from .loading import load
    from .terminal import in_terminal, wants_colours
    from .texts import explain

__all__ = ["Explanation", "explain", "in_terminal", "load", "longest_input", "main", "wants_colours"]

MODULE_OF = {
    "Explanation": "explanation",
    "explain": "texts",
    "in_terminal": "terminal",
    "load": "loading",
    "longest_input": "lengths",
    "main": "command",
    "wants_colours": "terminal",
}


if not TYPE_CHECKING:  # else every misspelt name would have the type Any

    def __getattr__(name: str) -> Any:
        if name not in MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
