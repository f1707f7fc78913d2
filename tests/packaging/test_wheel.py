"""What is built for PyPI, and a fresh environment that has nothing but the wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
from email import message_from_string
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

import hf_challenger

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
sys.path.insert(0, str(Path(__file__).parents[2] / "docs"))

import release_notes
from blocks import blocks

ROOT = Path(__file__).parents[2]
VERSION = hf_challenger.__version__
NAME = f"hf_challenger-{VERSION}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution. Built from a copy: setuptools leaves folders behind."""
    pytest.importorskip("build", reason="it is in the extra dev")
    folder = tmp_path_factory.mktemp("built")
    ignored = shutil.ignore_patterns(".git", ".venv", "benchmarks", "outputs", "*.egg-info", "site", ".*_cache", "build")
    shutil.copytree(ROOT, folder / "copy", ignore=ignored)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "copy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


def test_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    with ZipFile(built / f"{NAME}-py3-none-any.whl") as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
        metadata = message_from_string(wheel.read(f"{NAME}.dist-info/METADATA").decode())
    package = ROOT / "hf_challenger"
    sources = [path for path in package.rglob("*") if path.suffix in (".py", ".md") or path.name == "py.typed"]
    assert found == {path.relative_to(ROOT).as_posix() for path in sources}
    assert metadata["Version"] == VERSION
    assert metadata["License-Expression"] == "Apache-2.0" or metadata["License"] == "Apache-2.0"
    assert {"examples", "docs", "test", "benchmarks", "dev"} <= set(metadata.get_all("Provides-Extra", []))
    assert "torchvision" not in str(metadata)


def test_source_distribution_builds_the_package_and_has_no_half_test_suite(built: Path) -> None:
    with tarfile.open(built / f"{NAME}.tar.gz") as archive:
        found = {name.removeprefix(f"{NAME}/") for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "hf_challenger/py.typed"} <= found
    assert not [name for name in found if name.startswith("tests")]


def test_the_version_is_the_same_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert str(citation["version"]) == VERSION == release_notes.version()
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == VERSION


def test_release_notes_are_the_changelogs_section() -> None:
    changelog = "# Changelog\n\n## 0.2.0 (unreleased)\n\nNew.\n\n### Fixed\n\n- A.\n\n## 0.1.0\n\nOld.\n"
    assert release_notes.notes(changelog, "0.2.0") == "New.\n\n### Fixed\n\n- A."
    assert release_notes.notes(changelog, "0.1.0") == "Old."
    with pytest.raises(SystemExit, match=r"no section for 0\.3\.0, but for 0\.2\.0, 0\.1\.0"):
        release_notes.notes(changelog, "0.3.0")
    assert len(release_notes.notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), VERSION)) > 500


def test_public_ci_and_the_hook_run_what_everyone_runs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    job = workflow["jobs"]["test"]
    assert "bash .ci/run" in [step.get("run") for step in job["steps"]]
    assert "3.11" in job["strategy"]["matrix"]["python"]  # the oldest that setup.cfg allows
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert [hook["entry"] for repo in hooks for hook in repo["hooks"]] == ["make quality"]
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert path.name == "config.yml" or {"name", "description", "body"} <= set(form)


@pytest.mark.wheel
def test_fresh_environment_runs_the_quick_start(tmp_path: Path) -> None:
    """The Python of docs/quickstart.md and the command after it, with the wheel of ``make dist``."""
    wheel = ROOT / "dist" / f"{NAME}-py3-none-any.whl"
    assert wheel.is_file(), "make dist builds it"
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), f"{wheel}[examples]"]
    subprocess.run(install, check=True, timeout=1800)
    data = ROOT / "examples" / "text_classification" / "data" / "clinc150"
    for name in ("train.csv", "test.csv"):
        shutil.copy(data / name, tmp_path)
    (block,) = [b for b in blocks("docs/quickstart.md") if b.language == "python"]
    code = block.code.replace("num_train_epochs=15", "max_steps=20")
    assert code != block.code
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    predict = ["-m", "hf_challenger.predict", "my-model", "--file", "test.csv", "--output", "answers.csv"]
    for arguments in (["-c", f"import hf_challenger; print(hf_challenger.__file__)\n{code}"], predict):
        done = subprocess.run(
            [python, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        if arguments is not predict:
            assert done.stdout.startswith(str(tmp_path / "venv"))
    assert (tmp_path / "answers.csv").read_text().startswith("text,given_label,label,confidence\n")
