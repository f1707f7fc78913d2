"""Why a saved classifier decided so: ``explain`` for texts, and the command ``python -m hf_challenger.explain``.

Public names are imported at first use: the command checks its arguments and files before torch and transformers are loaded.
"""

from typing import TYPE_CHECKING

from ..names_on_use import names_on_use

if TYPE_CHECKING:
    from .explanation import Explanation
    from .terminal import in_terminal
    from .texts import explain
else:  # to a type checker every misspelt name would have the type Any
    __getattr__, __dir__ = names_on_use(
        __name__, {"Explanation": "explanation", "explain": "texts", "in_terminal": "terminal"}
    )

__all__ = ["Explanation", "explain", "in_terminal"]
