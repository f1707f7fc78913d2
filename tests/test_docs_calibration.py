"""The code in docs/calibration.md runs."""

import re
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "calibration.md"


def test_code_blocks_run_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    assert names["temperature"] > 1
    assert (tmp_path / "reliability.png").stat().st_size > 1000
