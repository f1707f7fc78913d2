"""Print what CHANGELOG.md says of a version: ``python docs/release_notes.py [VERSION]``. Default: the package's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version() -> str:
    """The version that stands in the package, without importing it."""
    found = re.search(r'__version__ = "(.+)"', (ROOT / "hf_challenger" / "version.py").read_text(encoding="utf-8"))
    assert found is not None
    return found[1]


def notes(changelog: str, version: str) -> str:
    """The section of that version, without its heading.

    Raises:
        SystemExit: there is none.
    """
    sections = re.split(r"^## (.+)$", changelog, flags=re.MULTILINE)[1:]
    for heading, text in zip(sections[::2], sections[1::2], strict=True):
        if heading.split()[0] == version:
            return text.strip()
    listed = ", ".join(heading.split()[0] for heading in sections[::2])
    raise SystemExit(f"CHANGELOG.md has no section for {version}, but for {listed}.")


if __name__ == "__main__":
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    print(notes(changelog, sys.argv[1] if len(sys.argv) > 1 else version()))
