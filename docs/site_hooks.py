"""What the site needs beyond docs/: pages link to files anywhere in the repository, as they do on GitHub, and hold equations.

README.md is the site's first page. Every other file that a page links to joins the site, under its path in the repository:
markdown as a page, Python as a page with its source, anything else as it is.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")
BLOCK_EQUATION = re.compile(r"^```math\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE_EQUATION = re.compile(r"\$`([^`\n]+)`\$")
# Sphinx's roles in docstrings, as markdown leaves them: :class:`~.cues.Cue` is shown as Cue.
ROLE = re.compile(r":(?:class|func|meth|attr|mod|data):<code>~?([^<]+)</code>")


def linked(path: str) -> Iterator[str]:
    """Paths, from the repository's root, of the files that a markdown file links to."""
    for target, _ in LINK.findall((ROOT / path).read_text(encoding="utf-8")):
        found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if (ROOT / found / "README.md").is_file():
            yield posixpath.join(found, "README.md")
        elif (ROOT / found).is_file():
            yield found


def place(path: str) -> str:
    """Where a file of the repository lies in the site's sources."""
    if path == "README.md":
        return "index.md"
    inside = path.removeprefix("docs/")
    return f"{inside}.md" if path.endswith(".py") else inside


def on_files(files: Files, config: Any) -> Files:
    known = {f"docs/{file.src_uri}" for file in files}
    waiting = ["README.md", *sorted(path for path in known if path.endswith(".md"))]
    while waiting:
        path = waiting.pop()
        if path not in known:
            known.add(path)
            if path.endswith(".py"):
                source = (ROOT / path).read_text(encoding="utf-8")
                files.append(File.generated(config, place(path), content=f"# {path}\n\n````python\n{source}````\n"))
            else:
                files.append(File.generated(config, place(path), abs_src_path=str(ROOT / path)))
        if path.endswith(".md"):
            waiting += [target for target in linked(path) if target not in known]
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    source = page.file.abs_src_path
    path = Path(source).relative_to(ROOT).as_posix() if source else ""
    markdown = LINK.sub(lambda link: _moved(path, link), markdown) if path else markdown
    markdown = BLOCK_EQUATION.sub(
        lambda found: f'<div class="equation">{convert(found[1].strip(), display="block")}</div>', markdown
    )
    # In a span: markdown takes a line that begins with <math> for a block of its own.
    return INLINE_EQUATION.sub(lambda found: f"<span>{convert(found[1])}</span>", markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Docstrings in the reference: roles as plain code, and "Example::" with one colon."""
    html = ROLE.sub(lambda found: f"<code>{found[1].split('.')[-1]}</code>", html)
    return html.replace("::</p>", ":</p>")


def _moved(path: str, link: re.Match[str]) -> str:
    """The link from one file's place in the site to the other's; unchanged, for mkdocs to complain of, where there is none."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link[1]))
    if (ROOT / target / "README.md").is_file():
        target = posixpath.join(target, "README.md")
    if not (ROOT / target).is_file():
        return link[0]
    return posixpath.relpath(place(target), posixpath.dirname(place(path)) or ".") + (link[2] or "")
