"""The notebooks: short runs of all their cells, and what the committed outputs may show."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "notebooks"))

import run_notebooks

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
# What makes a run short: a line of the notebook and what stands there instead. The whole runs: make notebooks.
QUICK = {
    "leaky_data.ipynb": [("num_train_epochs=8", "max_steps=20"), ('read("test")', 'read("test")[:16]')],
    "calibration.ipynb": [
        ("num_train_epochs=15", "max_steps=30"),
        (
            'train, test = read("train", per_intent=2), read("test")',
            'train, test = read("train", per_intent=2), read("test")[::9]',
        ),
        ("[:100]))", "[:10]))"),
    ],
    "lrp_own_model.ipynb": [("range(20)", "range(1)")],
}


EXPECTED = {"challenge_hide"}  # the log says how the option's names were read


def said_on_stderr(notebook: Any) -> set[str]:
    """The first word of each line."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"]
    return {line.split(":")[0] for output in outputs for line in output.text.splitlines() if line.strip()}


def short(name: str) -> Any:
    notebook = nbformat.read(FOLDER / name, as_version=4)
    for before, after in QUICK[name]:
        cells = [cell for cell in notebook.cells if cell.cell_type == "code" and before in cell.source]
        assert cells, f"{name} has no {before!r} any more"
        for cell in cells:
            cell.source = cell.source.replace(before, after)
    return notebook


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A place for notebooks to run in, from which they find the bundled texts."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "text_classification").symlink_to(FOLDER.parent / "text_classification")
    return tmp_path / "notebooks"


@pytest.fixture(autouse=True)
def of_this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONWARNINGS", "")  # the runner sets it; restored afterwards


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_every_cell_runs_offline_and_without_warnings(name: str, folder: Path) -> None:
    notebook = run_notebooks.executed(short(name), folder)
    assert said_on_stderr(notebook) <= EXPECTED


def test_a_cell_that_fails_is_noticed(folder: Path) -> None:
    notebook = short("lrp_own_model.ipynb")
    notebook.cells = notebook.cells[:2]
    notebook.cells[1].source += "\nLRP(nn.Linear(2, 2)).attribute(torch.zeros(1, 2), target=5)"
    with pytest.raises(CellExecutionError, match="ChallengerError"):
        run_notebooks.executed(notebook, folder)
    assert not list(folder.iterdir())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_committed_outputs_are_those_of_one_whole_run(name: str) -> None:
    notebook = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(notebook)
    assert 10 <= len(notebook.cells) <= 18
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run make notebooks"
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell.outputs)
    text = "\n".join(
        output.get("text", "") + output.get("data", {}).get("text/plain", "") for c in code for output in c.outputs
    )
    assert not re.search(r"/(?:home|root|tmp|work|Users|usr)/|[Ww]arning|\d+%\|", text), (
        "a path, a warning or a progress bar"
    )
    assert said_on_stderr(notebook) <= EXPECTED


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_links_lead_somewhere(name: str) -> None:
    notebook = nbformat.read(FOLDER / name, as_version=4)
    told = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(r"\]\(([^)]+)\)", told)
    assert links
    assert all((FOLDER / link).exists() for link in links)
