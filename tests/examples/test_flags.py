"""Flags of the example scripts: help comes at once, and so does a mistake, in one sentence and with exit code 2."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
SCRIPTS = {
    name: ROOT / "examples" / name / f"run_{name}.py"
    for name in ("text_classification", "image_classification", "time_series_classification", "leaky_data", "plain_loop")
}
TRAINED = [name for name in SCRIPTS if name != "plain_loop"]  # whose flags are also those of training


def start(name, *arguments):
    """The script's output, and its processor seconds, which other processes hardly stretch."""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(SCRIPTS[name]), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def check_mistake(done, seconds, words):
    assert done.returncode == 2, done.stdout + done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "error: " in last
    assert words in last
    assert "Traceback" not in done.stderr
    assert seconds < 1.5  # torch alone takes longer to import


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_comes_at_once(name):
    done, seconds = start(name, "--help")
    assert done.returncode == 0
    assert seconds < 1.5
    assert ("--challenge_share" if name in TRAINED else "--share") in done.stdout


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--challenge_rate", "2"], "challenge_rate=2.0 is outside (0, 1]"),
        (["--challenge_rate=2"], "challenge_rate=2.0 is outside (0, 1]"),
        (["--challenge-rate=0"], "challenge_rate=0.0 is outside (0, 1]"),
        (["--challenge-share", "-1"], "challenge_share=-1.0 is outside [0, 1]"),
        (["--challenge_threshold=nan"], "challenge_threshold=nan is outside [0, 1]"),
        (["--challenge_rat=2"], "unknown flag --challenge_rat=2; did you mean --challenge_rate?"),
        (["--challenge_composite", "gamma2"], "challenge_composite='gamma2' is unknown. Choose one of: 'attnlrp'"),
        (["--challenge_selection=cue"], "challenge_selection='cue' is unknown. Choose one of: 'cues', 'named', 'sample'"),
        (
            ["--challenge_perturbation=erase"],
            "challenge_perturbation='erase' is unknown. Choose one of: 'auto', 'delete'",
        ),
        (["--learning_rate", "fast"], "argument --learning_rate: invalid float value: 'fast'"),
        (["--max-steps=1e3"], "argument --max_steps: invalid int value: '1e3'"),
        (["--num_train_epochs", "--use_cpu", "true"], "argument --num_train_epochs: expected one argument"),
        (["--seed"], "argument --seed: expected one argument"),
    ],
)
@pytest.mark.parametrize("name", TRAINED)
def test_a_wrong_option_of_training_is_told_at_once(name, flags, words, tmp_path):
    done, seconds = start(name, "--output_dir", tmp_path, *flags)
    check_mistake(done, seconds, words)


def test_names_of_options_are_those_that_the_library_knows():
    """Which it reads from the source before anything is imported."""
    from hf_challenger.attribution.composites import COMPOSITES
    from hf_challenger.attribution.methods import METHODS
    from hf_challenger.challenge.perturbation import PERTURBATIONS
    from hf_challenger.challenge.selection import SELECTIONS
    from hf_challenger.command_line import CHOICES, keys_of
    from hf_challenger.inputs import ADAPTERS

    tables = {"METHODS": METHODS, "COMPOSITES": COMPOSITES, "PERTURBATIONS": PERTURBATIONS}
    tables |= {"SELECTIONS": SELECTIONS, "ADAPTERS": ADAPTERS}
    assert {table: keys_of(file, table) for _, file, table in CHOICES.values()} == {k: list(v) for k, v in tables.items()}


def bad_data(folder):
    """Data with one mistake each: flags and words, by script and mistake."""
    npz, text, small = folder / "bad.npz", folder / "text.npz", folder / "images"
    np.savez(npz, x_train=np.zeros((4, 8, 2), np.float32), y_train=np.arange(4))
    text.write_text("no arrays")
    for part, side in (("train", 8), ("test", 9)):
        (small / part / "cat").mkdir(parents=True)
        Image.new("RGB", (side, side)).save(small / part / "cat" / "a.png")
    series = folder / "series"
    series.mkdir()
    (series / "Set_TRAIN.csv").write_text("a,1,2\nb,1,x\n")
    (series / "Set_TEST.csv").write_text("a,1,2\n")
    return {
        "image_classification": [
            (["--data_dir", folder / "nowhere"], "nowhere does not exist"),
            (["--data_dir", folder], "nor the folders train/ and test/"),
            (["--data_dir", npz], "but not x_test, y_test"),
            (["--data_dir", text], "cannot be read as an npz file"),
            (["--data_dir", small], "bring all images to one size first"),
            (["--max_train_samples_per_class", "-1"], "'-1' is no whole number from 0 on"),
            (["--model", "alexnet"], "invalid choice: 'alexnet'"),
            (["--output_dir", npz], "cannot be written"),
        ],
        "time_series_classification": [
            (["--data_dir", folder / "nowhere"], "nowhere does not exist"),
            (["--data_dir", folder], "nor a pair NAME_TRAIN and NAME_TEST"),
            (["--data_dir", npz], "but not x_test, y_test"),
            (["--data_dir", series], "Set_TRAIN.csv, line 2: 'x' is no number"),
            (["--set", "motions"], "invalid choice: 'motions'"),
            (["--max_train_samples_per_class", "0"], "'0' is no whole number from 1 on"),
            (["--output_dir", npz], "cannot be written"),
        ],
        "leaky_data": [
            (["--data_dir", folder], "There is no file"),
            (["--leak_share", "2"], "'2' is no number from 0 to 1"),
            (["--model_name_or_path", folder], "holds no config.json"),
            (["--max_test_samples", "none"], "'none' is no whole number from 1 on"),
            (["--output_dir", npz], "cannot be written"),
        ],
        "text_classification": [(["--max_seq_length", "0"], "'0' is no whole number from 1 on")],
        "plain_loop": [
            (["--share", "2"], "'2' is no number from 0 to 1"),
            (["--model", folder], "holds no config.json"),
            (["--epochs", "many"], "'many' is no whole number from 1 on"),
        ],
    }  # more of texts in test_text_classification.py


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_mistake_in_flags_or_data_is_told_at_once(name, tmp_path):
    for flags, words in bad_data(tmp_path)[name]:
        check_mistake(*start(name, *flags), words)


def test_options_that_do_not_go_together_end_in_a_sentence(tmp_path):
    """transformers tells these, so that it is imported first."""
    flags = ["--load_best_model_at_end", "true", "--eval_strategy", "steps", "--output_dir", tmp_path]
    done, seconds = start("image_classification", *flags)
    assert done.returncode == 2
    assert re.match(r"error: --load_best_model_at_end requires the save and eval strategy to match.*\n$", done.stderr)
    assert seconds < 20
