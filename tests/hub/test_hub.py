"""Uploads with the real huggingface_hub client, from processes of their own, to a Hub on loopback."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub.errors import OfflineModeIsEnabled
from local_hub import LocalHub, Repository, card_errors
from safetensors.torch import load as load_safetensors

from hf_challenger.hub import how_to_retry

TESTS = Path(__file__).parents[1]
MODEL = {
    "README.md",
    "config.json",
    "cues.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "training_args.bin",
}


def push(hub: LocalHub, folder: Path, *scenarios: str, **environment: str) -> dict[str, Any]:
    """Run scenarios of push.py against the hub; what they said."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "http", "HTTP", "all_", "ALL_"))}
    done = subprocess.run(
        [sys.executable, str(TESTS / "hub" / "push.py"), *scenarios, str(folder)],
        env={
            **clean,
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "said.json").read_text())


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two Hubs, one that takes all files in the commit itself and one with git LFS, after processes that pushed to them."""
    one, two = tmp_path_factory.mktemp("regular"), tmp_path_factory.mktemp("lfs")
    with LocalHub(lfs=False) as regular, LocalHub(lfs=True) as lfs, ThreadPoolExecutor() as both:
        lfs.refuse = {'repos/create .*"late"': 1, "models/somebody/refused/commit": 3}
        first = both.submit(push, regular, one, "every_save")
        second = both.submit(push, lfs, two, "all_checkpoints", "only_the_end", "refused", HF_HUB_DISABLE_XET="1")
        yield (regular, first.result(), one), (lfs, second.result(), two)


@pytest.fixture
def regular(pushed: Any) -> Any:
    return pushed[0]


@pytest.fixture
def lfs(pushed: Any) -> Any:
    return pushed[1]


def metadata(repository: Repository) -> dict[str, Any]:
    return yaml.safe_load(repository.files["README.md"].decode().split("---\n")[1])


def test_card_weights_config_and_pictures_arrive(regular: Any) -> None:
    hub, said, folder = regular
    repository = hub.repositories["somebody/every-save"]
    pictures = {"pictures/reliability_diagram.png", "pictures/heat_map_1.png"}
    assert set(repository.files) == MODEL | pictures
    for name, content in repository.files.items():
        if name != "README.md":  # rewritten by the last, refused, upload
            assert content == (folder / "every-save" / name).read_bytes(), name
    assert not repository.through_lfs
    data = metadata(repository)
    assert (data["language"], data["license"], data["datasets"]) == ("en", "mit", ["me/words"])
    values = {m["type"]: m["value"] for m in data["model-index"][0]["results"][0]["metrics"]}
    assert values["ece"] == said["every_save"]["results"]["eval_ece"]
    assert values["accuracy"] == said["every_save"]["results"]["eval_accuracy"]


def test_uploads_happen_when_trainer_makes_them(regular: Any, lfs: Any) -> None:
    commits = regular[0].repositories["somebody/every-save"].commits
    # A save during an upload in progress is skipped, as in Trainer; the first one never is.
    assert commits[0] == "Training in progress, step 2"
    assert commits[-1] == "Model save"
    assert set(commits) <= {"Training in progress, step 2", "Training in progress, step 4", "Model save"}
    assert lfs[0].repositories["somebody/end"].commits == ["End of training"]
    assert "Training in progress, step 2, checkpoint" in lfs[0].repositories["team/all"].commits


def test_nothing_new_makes_no_commit(regular: Any) -> None:
    hub, said, _ = regular
    assert said["every_save"]["again"] == hub.repositories["somebody/every-save"].sha


def test_metadata_that_the_hub_refuses_stays_an_error_that_tells_how_to_go_on(regular: Any) -> None:
    bad = regular[1]["every_save"]["bad"]
    assert bad["type"] == "ValueError"
    assert '"license" must be a string' in bad["shown"]
    assert "trainer.push_to_hub()" in bad["notes"]


def test_large_files_go_through_lfs(lfs: Any) -> None:
    hub, said, folder = lfs
    repository = hub.repositories["team/all"]
    assert {"model.safetensors", "training_args.bin", "checkpoint-2/model.safetensors"} <= repository.through_lfs
    assert "config.json" not in repository.through_lfs
    assert {"checkpoint-2/optimizer.pt", "checkpoint-2/trainer_state.json", "README.md"} <= set(repository.files)
    assert repository.files["model.safetensors"] == (folder / "out" / "model.safetensors").read_bytes()
    assert load_safetensors(repository.files["model.safetensors"])["classifier.weight"].shape == (3, 16)
    assert said["all_checkpoints"]["equal"]
    assert {"mine", "hf-challenger"} <= set(metadata(repository)["tags"])


def test_a_refused_repository_leaves_the_model_saved(lfs: Any) -> None:
    _, said, folder = lfs
    create = said["refused"]["create"]
    assert create["type"] == "HfHubHTTPError"
    assert "You may not write here" in create["shown"]
    assert f"The model is saved in {str(folder / 'late')!r}" in create["notes"]
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= set(said["refused"]["saved"])


def test_a_refused_upload_leaves_local_files_whole_and_says_how_to_retry(lfs: Any) -> None:
    _, said, folder = lfs
    commit = said["refused"]["commit"]
    out = folder / "refused"
    assert commit["type"] == "HfHubHTTPError"
    assert f"The model and its card are whole in {str(out)!r}" in commit["notes"]
    assert f"hf upload somebody/refused {out} . --exclude '_*' --exclude 'checkpoint-*'" in commit["notes"]
    assert commit["notes"] in commit["shown"]  # tracebacks show it
    assert set(said["refused"]["whole"]) == MODEL
    assert load_safetensors((out / "model.safetensors").read_bytes())["classifier.weight"].shape == (3, 16)


def test_a_retry_uploads_everything(lfs: Any) -> None:
    hub, said, folder = lfs
    assert said["refused"]["retry"]["type"] == "none"
    repository = hub.repositories["somebody/refused"]
    assert repository.commits == ["End of training"]
    assert set(repository.files) == MODEL
    assert all(content == (folder / "refused" / name).read_bytes() for name, content in repository.files.items())


def test_failed_uploads_in_the_background_are_told(lfs: Any) -> None:
    warned = lfs[1]["refused"]["warned"]
    assert sum(int(words.split()[0]) for words in warned) == 2  # together or one by one
    for words in warned:
        assert "uploads during training failed: " in words
        assert "403 Forbidden" in words
        assert "trainer.push_to_hub()" in words


def test_errors_of_other_kinds_are_left_alone(lfs: Any) -> None:
    bug = lfs[1]["refused"]["bug"]
    assert (bug["type"], bug["notes"]) == ("TypeError", "")


def test_without_a_network_the_model_is_saved_and_the_error_tells_how_to_upload_it(trainer: Any) -> None:
    run = trainer(hub_model_id="me/mine")
    with pytest.raises(OfflineModeIsEnabled) as caught:
        run.push_to_hub()
    (note,) = caught.value.__notes__
    assert note.startswith(f"The model is saved in {run.args.output_dir!r}.")
    assert f"hf upload me/mine {run.args.output_dir}" in note
    assert Path(run.args.output_dir, "model.safetensors").is_file()


def test_the_command_to_retry_makes_nothing_public_and_can_be_pasted(trainer: Any) -> None:
    run = trainer(hub_model_id="me/mine", hub_private_repo=True, hub_revision="dev", hub_strategy="all_checkpoints")
    run.args.output_dir = "my out"
    assert "hf upload me/mine 'my out' . --exclude '_*' --private --revision dev (" in how_to_retry(run)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("# no metadata", "no metadata"),
        ("---\na: [\n---\n", "not YAML"),
        ("---\ndatasets: [null]\n---\n", '"datasets" must be'),
        ("---\nmodel-index: [{name: a, results: [{task: {type: x}, dataset: {type: y}}]}]\n---\n", "dataset.name"),
    ],
)
def test_the_local_hub_refuses_bad_cards(content: str, words: str) -> None:
    assert words in " ".join(card_errors(content))
