"""The text example, run as a user runs it: as a process of its own, on real text."""

import csv
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "text_classification" / "run_text_classification.py"
DATA = SCRIPT.parent / "data" / "clinc150"


def run(*arguments):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments), "--use_cpu", "true", "--disable_tqdm", "true"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def tiny_encoder(tmp_path_factory):
    """A two-layer BERT with the words of the bundled texts as its vocabulary."""
    words = {w for row in csv.DictReader((DATA / "train.csv").open()) for w in row["text"].split()}
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    folder = tmp_path_factory.mktemp("encoder")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    ).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    BertModel(config).save_pretrained(folder)
    return folder


def test_compare_prints_a_table_and_saves_models_that_transformers_loads_alone(tiny_encoder, tmp_path):
    out = tmp_path / "out"
    # A model this small is never sure of a row, so it would never be challenged at the default threshold.
    arguments = ["--model_name_or_path", tiny_encoder, "--num_train_epochs", 2, "--challenge_threshold", 0]
    arguments += ["--challenge_share", 0.5]
    printed = run("--compare", *arguments, "--output_dir", out)
    results = json.loads((out / "comparison.json").read_text())
    assert [r["method"] for r in results] == ["plain", "challenger"]
    assert all(r["train_samples"] == 300 and 0 <= r["test_ece"] <= 1 and r["test_nll"] > 0 for r in results)
    assert results[0]["test_nll"] != results[1]["test_nll"]
    for row in (out / "comparison.md").read_text().splitlines():
        assert row in printed
    log = json.loads((out / "challenger" / "trainer_state.json").read_text())["log_history"]
    assert {"challenged_share", "removed_relevance", "clean_loss", "challenged_loss"} <= set(log[0])
    card = (out / "challenger" / "README.md").read_text()
    assert "A model from a local folder, fine-tuned on a subset of CLINC150." in card
    for row, name in (("Accuracy ↑", "test_accuracy"), ("ECE ↓", "test_ece")):
        numbers = [f"{results[method][name]:.4f}" for method in (1, 0)]  # challenger, plain
        assert f"| {row} | {results[1][name.replace('test', 'validation')]:.4f} |" in card
        assert f"| {' | '.join(numbers)} |" in card
    pictures = re.findall(r"\]\((pictures/.+?\.png)\)", card)
    assert pictures == ["pictures/reliability_diagram.png", *(f"pictures/heat_map_{i}.png" for i in (1, 2, 3))]
    assert all((out / "challenger" / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    first = next(csv.DictReader((DATA / "test.csv").open()))["text"]
    assert re.search(rf"^“{re.escape(first)}” → \w+$", card, re.MULTILINE)
    assert not (out / "plain" / "README.md").exists()
    for folder in ("plain", "challenger"):
        curves = EventAccumulator(str(next((out / folder / "runs").iterdir()))).Reload().Tags()["scalars"]
        assert ("train/removed_relevance" in curves) == (folder == "challenger")
    alone = (
        "import sys; sys.modules['hf_challenger'] = None\n"
        "from transformers import pipeline\n"
        f"print(pipeline('text-classification', model={str(out / 'challenger')!r}, device='cpu')('freeze my account')[0]['label'])"
    )
    label = subprocess.run(
        [sys.executable, "-c", alone], capture_output=True, text=True, check=True, timeout=120
    ).stdout.strip()
    assert label in {row["label"] for row in csv.DictReader((DATA / "train.csv").open())}


def test_the_default_encoder_is_a_real_pretrained_one(tmp_path):
    printed = run("--output_dir", tmp_path, "--max_steps", 3, "--max_train_samples", 48, "--max_eval_samples", 32)
    assert "=== challenger: 48 texts, 30 classes" in printed
    config = json.loads((tmp_path / "challenger" / "config.json").read_text())
    assert (config["hidden_size"], config["num_hidden_layers"], len(config["id2label"])) == (384, 6, 30)
    results = json.loads((tmp_path / "challenger" / "challenger_results.json").read_text())
    assert 1 / 30 < results["expected_accuracy"] <= 1
    assert config.get("calibration_temperature", 1) == pytest.approx(results["calibration_temperature"])


def test_an_own_test_file_goes_with_the_bundled_training_texts(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    script = runpy.run_path(str(SCRIPT))
    splits = script["load_splits"](script["Arguments"](test_file=str(DATA / "validation.csv")))
    assert {name: len(split) for name, split in splits.items()} == {"train": 300, "validation": 600, "test": 600}


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_own_files_with_sentence_pairs_and_number_labels(kind, tiny_encoder, tmp_path):
    files = {split: tmp_path / f"{split}.{kind}" for split in ("train", "test")}
    for split, n in (("train", 24), ("test", 12)):
        rows = [{"premise": f"freeze my account {i}", "hypothesis": "null", "label": i % 2} for i in range(n)]
        with files[split].open("w", newline="") as file:
            if kind == "json":
                file.writelines(json.dumps(row) + "\n" for row in rows)
            else:
                writer = csv.DictWriter(file, ["premise", "hypothesis", "label"])
                writer.writeheader()
                writer.writerows(rows)
    run(
        *("--model_name_or_path", tiny_encoder, "--train_file", files["train"], "--test_file", files["test"]),
        *(
            "--text_column",
            "premise",
            "--text_pair_column",
            "hypothesis",
            "--output_dir",
            tmp_path / "out",
            "--max_steps",
            2,
        ),
    )
    result = json.loads((tmp_path / "out/challenger/challenger_results.json").read_text())
    assert result["train_samples"] == 24
    assert "heat_map" not in (tmp_path / "out/challenger/README.md").read_text()  # pairs are not explained
    assert 0 <= result["test_accuracy"] <= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--train_file", "absent.csv"], "There is no file 'absent.csv'"),
        (["--label_column", "intent"], "no column 'intent' in ['text', 'label']"),
        (["--challenge_rate", "2"], "challenge_rate=2.0 is outside (0, 1]"),
        (["--challenge_composite", "gamma2"], "'attnlrp'"),
        (["--method", "both"], "invalid choice"),
        (["--output_dir", str(SCRIPT) + "/x"], "cannot be written"),
    ],
)
def test_bad_arguments_are_named(arguments, words, tiny_encoder, tmp_path, monkeypatch, capsys):
    base = [] if "--output_dir" in arguments else ["--output_dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--model_name_or_path", str(tiny_encoder), *base, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert words in f"{ended.value} {capsys.readouterr().err}"
