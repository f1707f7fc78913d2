"""The documentation as a reader finds it: links that lead somewhere, on GitHub and on the site, and papers that are listed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from blocks import FENCE, ROOT, pages

import hf_challenger

DOCS = [*pages(), "CHANGELOG.md"]
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(path: Path) -> set[str]:
    """As GitHub makes them from headings: lower case, punctuation dropped, hyphens for spaces."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", DOCS)
def test_links_lead_somewhere_on_github(page: str) -> None:
    for target in LINK.findall(FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))):
        url = urlsplit(target)
        if url.scheme:
            assert url.scheme == "https", target
            continue
        found = (ROOT / page).parent / unquote(url.path) if url.path else ROOT / page
        assert found.exists(), target
        if url.fragment:
            assert url.fragment in anchors(found), target


class Fetched(HTMLParser):
    """What a browser would fetch to show a page: scripts, styles, pictures; and what links on it point to."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag in ("script", "img", "iframe") and found.get("src"):
            self.fetched.append(found["src"])
        if tag == "link" and found.get("rel") != "canonical":
            self.fetched.append(found.get("href", ""))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])


def build(where: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_site_builds_strictly_with_every_page(site: Path) -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert (site / f"{page.stem}.html").is_file()
    for path in ("index.html", "benchmarks/attribution/index.html", "examples/plain_loop/run_plain_loop.py.html"):
        assert (site / path).is_file()
    assert not list(site.rglob("*.py"))


def test_site_fetches_nothing_from_elsewhere_and_its_links_work(site: Path) -> None:
    for path in site.rglob("*.html"):
        page = Fetched()
        page.feed(path.read_text(encoding="utf-8"))
        assert page.fetched
        for target in page.fetched + page.links:
            url = urlsplit(target)
            if url.scheme in ("https", "http", "mailto"):
                assert target in page.links, f"{path.name} fetches {target}"
            elif url.path and path.name != "404.html":
                assert (path.parent / unquote(url.path)).exists(), f"{path.relative_to(site)} → {target}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(?:@import|url\()\s*[\"']?(?:https?:)?//", style.read_text(encoding="utf-8"))


def test_equations_are_mathml_and_code_is_code(site: Path) -> None:
    rules = (site / "rules.html").read_text(encoding="utf-8")
    assert rules.count("<math ") > 15
    assert "```" not in rules
    assert "$`" not in rules
    assert "\\varepsilon" not in rules
    method = (site / "method.html").read_text(encoding="utf-8")
    assert method.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') == 6
    assert not re.search(r"<p>\s*\.\s*</p>", method), "an equation in a line of text does not end its paragraph"
    loop = (site / "examples" / "plain_loop" / "run_plain_loop.py.html").read_text(encoding="utf-8")
    assert "accelerator" in loop


def test_reference_is_made_from_the_docstrings(site: Path) -> None:
    page = (site / "reference.html").read_text(encoding="utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    for name in hf_challenger.__all__:
        if isinstance(getattr(hf_challenger, name), type):
            assert re.search(rf'<h\d id="hf_challenger\.[\w.]*{name}"', page), name
    assert "share of the class's rows that hold it, in [0, 1]" in " ".join(text.split())
    assert not re.search(r":(?:class|func|meth|attr|data):", text), "Sphinx's roles are shown as code"
    assert ":::" not in text


@pytest.mark.parametrize("target", ["../LICENSE", "a.md#here", "../no-such-file.md", "no-such-page.md", "a.md#nowhere"])
def test_a_broken_link_ends_the_build(target: str, tmp_path: Path) -> None:
    config = (ROOT / "mkdocs.yml").read_text()
    (tmp_path / "mkdocs.yml").write_text(re.sub(r"^nav:.*?^(?=plugins)", "", config, flags=re.MULTILINE | re.DOTALL))
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "site_hooks.py", tmp_path / "docs")
    for name, text in {"README.md": "# Home", "LICENSE": "Free", "docs/a.md": "# A\n\n## Here"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "docs" / "b.md").write_text(f"# B\n\n[a link]({target})\n")
    done = build(tmp_path, tmp_path / "site")
    broken = "no" in target
    assert (done.returncode != 0) == broken, done.stderr
    assert (target.partition("#")[0] in done.stderr) == broken


def test_papers_are_listed() -> None:
    listed = set(re.findall(r"\d{4}\.\d{5}", (ROOT / "docs" / "papers.md").read_text()))
    places = ("hf_challenger", "examples", "benchmarks", "metrics", "docs")
    files = [path for place in places for path in (ROOT / place).rglob("*") if path.suffix in (".py", ".md")]
    cited = {
        number
        for path in [*files, ROOT / "README.md"]
        for number in re.findall(r"arxiv[^\d\n]{0,12}(\d{4}\.\d{5})", path.read_text(encoding="utf-8"), re.IGNORECASE)
    }
    assert len(cited) > 5
    assert cited == listed
