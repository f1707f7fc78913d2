#!/usr/bin/env python
"""Run the notebooks of this folder from start to end and write their outputs into them.

python run_notebooks.py                    # all
python run_notebooks.py lrp_own_model.ipynb
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def executed(notebook: Any, folder: Path = HERE) -> Any:
    """The notebook with the outputs of a run in ``folder``. Raises nbclient's CellExecutionError where a cell fails."""
    # A progress bar of Jupyter is missing, which tqdm warns of; there are no bars to show.
    os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
    client = NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(folder)}}, record_timing=False)
    client.execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
    notebook.metadata.language_info = {"name": "python"}  # not the version of this machine
    return notebook


def _joined(outputs: list[Any]) -> list[Any]:
    """Neighbouring pieces of one stream as one output: where they are cut is chance."""
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream" and output.name == joined[-1].name:
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def main() -> None:
    for path in [Path(name) for name in sys.argv[1:]] or sorted(HERE.glob("*.ipynb")):
        print(path.name, flush=True)
        nbformat.write(executed(nbformat.read(path, as_version=4)), path)


if __name__ == "__main__":
    main()
