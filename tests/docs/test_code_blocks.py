"""Every code block of the documentation runs, page by page, as a reader would run it from top to bottom."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from blocks import FENCE, ROOT, RUN, SHOWN, Block, blocks, pages, run
from surroundings import SURROUNDINGS, nothing

from hf_challenger.challenge.perturbation import PERTURBATIONS
from hf_challenger.challenge.selection import SELECTIONS
from hf_challenger.inputs import ADAPTERS

mpl.use("agg")

ALL = {page: list(blocks(page)) for page in pages()}
NOT_RUN = {
    ("benchmarks/README.md", "trains for hours, on data that is not bundled"),
    ("benchmarks/attribution/README.md", "trains for hours, on data that is not bundled"),
    ("docs/explain.md", "an image and a series of your own"),
    ("docs/support.md", "needs several GPUs and machines"),
    ("examples/plain_loop/README.md", "needs four GPUs"),
    ("examples/plain_loop/README.md", "needs several machines"),
    ("examples/text_classification/README.md", "needs the Hub"),
}


def runnable(page: str) -> list[Block]:
    return [block for block in ALL[page] if block.language in RUN and block.not_run is None]


@pytest.mark.parametrize("page", [page for page in ALL if runnable(page)])
def test_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("examples", "metrics"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    registries: tuple[dict[str, Any], ...] = (ADAPTERS, PERTURBATIONS, SELECTIONS)  # pages may add to them
    for registry in registries:
        for name in list(registry):
            monkeypatch.setitem(registry, name, registry[name])
    known = [(registry, set(registry)) for registry in registries]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    surroundings = SURROUNDINGS.get(page, nothing)(tmp_path)
    names = next(surroundings)
    try:
        for block in runnable(page):
            run(block, names, environment)
        assert next(surroundings, None) is None  # its own checks
    finally:
        for registry, before in known:
            for name in set(registry) - before:
                del registry[name]


def test_what_does_not_run_is_marked_and_known() -> None:
    """A block joins this list for a reason that a reader can check; there should be few."""
    marked = [(page, block.not_run) for page, found in ALL.items() for block in found if block.not_run]
    assert sorted(marked) == sorted(NOT_RUN)


@pytest.mark.parametrize("page", list(ALL))
def test_no_code_hides_from_this_test(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert {block.language for block in ALL[page]} <= {*RUN, *SHOWN}, "each fence names one of these languages"
    outside = FENCE.sub("", text)
    assert "```" not in outside, "a fence is not closed, or not at the start of a line"
    assert not re.search(r"^\s*\n {4,}\S", outside, re.MULTILINE), "code is fenced, not indented"
    if any(block.language == "bash" for block in ALL[page]):
        return
    assert not re.search(r"^(?:make|python|pip|torchrun) ", outside, re.MULTILINE), "commands are fenced"


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("Text.\n\n```python\nx = 1\nraise ValueError('broken')\n```\n", ValueError, "broken"),
        ("```python\nx = (\n```\n", SyntaxError, "never closed"),
        ('```bash\npython -c "raise SystemExit(3)"\n```\n', AssertionError, "page.md, line 1: python -c"),
        ("```bash\nmake coffee\n```\n", AssertionError, "coffee"),
        ('```bash\npip install -e ".[none]"\n```\n', AssertionError, "no extra 'none'"),
        ("```bash\nrm -rf x\n```\n", AssertionError, "'rm' is not known"),
        ("```bash\ngit push\n```\n", AssertionError, "'git' is not known"),
        ("```bash\ncd nowhere\n```\n", AssertionError, "nowhere"),
    ],
)
def test_a_broken_block_is_noticed(text: str, error: type[BaseException], words: str) -> None:
    (block,) = blocks("page.md", text)
    with pytest.raises(error, match=re.escape(words)) as raised:
        run(block, {}, {**os.environ, "PYTHONPATH": str(ROOT)})
    if error is ValueError:
        assert (str(raised.traceback[-1].path), raised.traceback[-1].lineno + 1) == ("page.md", 5)
