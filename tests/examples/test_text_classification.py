"""The text example, run as a user runs it: as a process of its own, on real text."""

import csv
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "text_classification" / "run_text_classification.py"
DATA = SCRIPT.parent / "data" / "clinc150"


def start(*arguments):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def timed(*arguments):
    """Processor seconds of the script, which other processes hardly stretch."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = start(*arguments)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def run(*arguments):
    done = start(*arguments, "--use_cpu", "true", "--disable_tqdm", "true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Warning" not in done.stderr, done.stderr  # that a user cannot act on
    return done.stdout + done.stderr


def test_compare_prints_a_table_and_saves_models_that_transformers_loads_alone(tiny_encoder, tmp_path):
    out = tmp_path / "out"
    arguments = ["--model_name_or_path", tiny_encoder, "--num_train_epochs", 2, "--eval_strategy", "epoch"]
    printed = run("--compare", *arguments, "--output_dir", out)
    results = json.loads((out / "results.json").read_text())
    assert [r["method"] for r in results] == ["plain", "challenger"]
    assert all(r["train_samples"] == 300 and 0 <= r["test_ece"] <= 1 and r["test_nll"] > 0 for r in results)
    # No cue in two steps, so that both are trained alike.
    assert results[0]["test_accuracy"] == results[1]["test_accuracy"]
    for row in (out / "results.md").read_text().splitlines():
        assert row in printed
    log = json.loads((out / "challenger" / "trainer_state.json").read_text())["log_history"]
    assert {"challenged_share", "cues_found"} <= set(log[0])
    card = (out / "challenger" / "README.md").read_text()
    assert "A model from a local folder, fine-tuned on 300 rows of a subset of CLINC150." in card
    for row, name in (("Accuracy ↑", "test_accuracy"), ("ECE ↓", "test_ece")):
        numbers = [f"{results[method][name]:.4f}" for method in (1, 0)]  # challenger, plain
        assert f"| {row} | {results[1][name.replace('test', 'eval')]:.4f} |" in card
        assert f"| {' | '.join(numbers)} |" in card
    pictures = re.findall(r"\]\((pictures/.+?\.png)\)", card)
    assert pictures == ["pictures/reliability_diagram.png", *(f"pictures/heat_map_{i}.png" for i in (1, 2, 3))]
    assert all((out / "challenger" / picture).read_bytes().startswith(b"\x89PNG") for picture in pictures)
    first = next(csv.DictReader((DATA / "test.csv").open()))["text"]
    assert re.search(rf"^“{re.escape(first)}” → \w+$", card, re.MULTILINE)
    assert not (out / "plain" / "README.md").exists()
    for folder in ("plain", "challenger"):
        board = EventAccumulator(str(next((out / folder / "runs").iterdir()))).Reload()
        tags, texts = board.Tags()["scalars"], board.Tags()["tensors"]
        for metric in ("accuracy", "ece", "nll", "brier", "loss"):
            assert [point.step for point in board.Scalars(f"eval/{metric}")] == [19, 38, 38]  # each epoch, and at the end
            assert [point.step for point in board.Scalars(f"test/{metric}")] == [38]
        assert not [tag for tag in tags if "validation" in tag or tag.startswith("train/test")]
        assert ("train/cues_found" in tags) == (folder == "challenger")
        assert ("train/cues/text_summary" in texts) == (folder == "challenger")
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
    assert 0 < json.loads((tmp_path / "challenger" / "challenger_results.json").read_text())["test_accuracy"] <= 1


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


# --- one file of one's own --------------------------------------------------------------------------------------------


def tickets(folder, name="tickets.csv", header="ticket_id,text,label", rows=30, end=""):
    """Tickets of two classes, with an identifier that is longer than the text."""
    lines = [header]
    for i in range(rows):
        text, label = (("freeze my account", "freeze"), ("send the money back", "refund"))[i % 2]
        lines.append(f"a-very-long-ticket-identifier-{i:05d},{text} {i},{label}")
    path = folder / name
    path.write_text("\n".join(lines) + "\n" + end)
    return path


def test_one_file_is_split_read_by_its_text_column_and_ends_in_a_result(tiny_encoder, tmp_path):
    flags = ["--model_name_or_path", tiny_encoder, "--max_steps", 2, "--output_dir", tmp_path / "out"]
    printed = run("--file", tickets(tmp_path, end=",,\nx, ,freeze\n"), *flags)
    assert "tickets.csv: 1 empty text(s) left out (line 33)." in printed
    assert "There is no test file: 20% of each class is kept for testing, drawn with seed 42." in printed
    assert "Text: column 'text'. Label: column 'label'." in printed
    assert "train: 24 texts, test: 6 texts; 2 classes" in printed
    assert "| `ChallengerTrainer` | " in printed
    assert re.search(r"'(freeze my account|send the money back) \d+' -> (freeze|refund) \(0\.\d\d\); its label is", printed)
    assert "LOAD REPORT" not in printed
    (result,) = json.loads((tmp_path / "out" / "results.json").read_text())
    assert result["train_samples"] == 24


def test_a_file_as_others_export_it(tiny_encoder, tmp_path):
    """Semicolons, Windows-1252, line breaks and quotes in texts, long texts, a class with one row."""
    texts = [f"freeze my “account”\r\nnow; größe {i}" if i % 2 else "send the money back " * 500 + str(i) for i in range(20)]
    rows = [(text, ("refund", "freeze")[i % 2]) for i, text in enumerate(texts)] + [("who are you", "other")]
    path = tmp_path / "tickets.csv"
    with path.open("w", newline="", encoding="cp1252") as file:
        csv.writer(file, delimiter=";").writerows([("Message", "label"), *rows])
    printed = run("--file", path, "--model_name_or_path", tiny_encoder, "--max_steps", 2, "--output_dir", tmp_path / "out")
    assert "1 class(es) with one text are trained on and not tested: other." in printed
    assert "Text: column 'Message'." in printed
    assert "Classes in training: freeze (8), refund (8), other (1)" in printed
    assert "8 training text(s) were cut to 128 tokens (--max_seq_length)." in printed
    predict = [sys.executable, "-m", "hf_challenger.predict", str(tmp_path / "out" / "challenger"), "--file", str(path)]
    predict += ["--output", str(tmp_path / "answers.csv")]
    done = subprocess.run(predict, capture_output=True, text=True, timeout=300, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "answers.csv").open(newline="", encoding="utf-8") as file:
        answers = list(csv.DictReader(file))
    assert [answer["Message"] for answer in answers] == [text for text, _ in rows]
    assert {answer["label"] for answer in answers} <= {"freeze", "refund", "other"}
    assert all(1 / 3 <= float(answer["confidence"]) <= 1 for answer in answers)


def test_seeds_alone_print_a_table_of_means(tiny_encoder, tmp_path):
    flags = ["--model_name_or_path", tiny_encoder, "--max_steps", 1, "--output_dir", tmp_path / "out", "--method", "plain"]
    printed = run("--file", tickets(tmp_path), *flags, "--seeds", 1, 2)
    assert re.search(r"^\| `Trainer` \| \d\.\d{3} ± ", printed, re.MULTILINE)
    assert (tmp_path / "out" / "seed1" / "plain" / "model.safetensors").is_file()


# --- mistakes are told at once, in a sentence -------------------------------------------------------------------------


def mistake(folder, case):
    """Flags with one mistake in them, and the words that are expected."""
    file, out = tickets(folder), folder / "bad.csv"
    lines = file.read_text().splitlines()

    def with_line(number, line):
        changed = folder / f"line{number}.csv"
        changed.write_text("\n".join([*lines[: number - 1], line, *lines[number:]]) + "\n")
        return ["--file", changed]

    cases = {
        "no file": (["--file", folder / "ticket.csv"], "There is no file"),
        "empty label": (with_line(5, "T-5,where is my card,"), "line5.csv, line 5: the label (column 'label') is empty"),
        "columns": (
            with_line(6, "T-6,where is my card, please,refund"),
            "line6.csv, line 6: 4 columns, but the header has 3",
        ),
        "misspelt header": (
            with_line(1, "ticket_id,text,lable"),
            "line 1: there is no column 'label' among ticket_id, text, lable",
        ),
        "text column": (["--file", file, "--text_column", "txt"], "Did you mean --text_column text?"),
        "label column": (["--label_column", "intent"], "there is no column 'intent' among text, label"),
        "unknown flag": (["--file", file, "--lerning_rate", "1"], "did you mean --learning_rate?"),
        "method": (["--method", "both"], "invalid choice"),
        "empty file": (["--file", out], "bad.csv is empty"),
        "no model": (["--file", file, "--model_name_or_path", folder], "holds no config.json"),
        "no folder": (["--file", file, "--model_name_or_path", folder / "nowhere"], "There is no folder"),
        "output": (["--output_dir", file / "x"], "cannot be written"),
        "unknown label": (["--file", file, "--test_file", out], "bad.csv, line 2: the label 'refunds' does not occur"),
    }
    if case == "empty file":
        out.write_text("")
    if case == "unknown label":
        out.write_text("text,label\nwhere is my money,refunds\n")
    return cases[case]


@pytest.mark.parametrize(
    "case",
    [
        "no file",
        "empty label",
        "columns",
        "misspelt header",
        "text column",
        "label column",
        "unknown flag",
        "method",
        "empty file",
        "no model",
        "no folder",
        "output",
        "unknown label",
    ],
)
def test_a_mistake_is_told_at_once_in_a_sentence(case, tmp_path):
    arguments, words = mistake(tmp_path, case)
    done, seconds = timed(*arguments)
    assert seconds < 5
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert "error: " in last
    assert words in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8"), (",", "latin-1")])
def test_other_delimiters_and_encodings_are_read_and_told(delimiter, encoding, tmp_path):
    """Up to the model, which is no model: nothing is trained."""
    path = tickets(tmp_path)
    path.write_bytes(path.read_text().replace(",", delimiter).replace("money", "Gebühr").encode(encoding))
    done = start("--file", path, "--model_name_or_path", tmp_path)
    assert (
        "separated by a semicolon" if delimiter == ";" else "no UTF-8 (line 3) and was read as Windows-1252"
    ) in done.stdout
    assert "train: 24 texts, test: 6 texts; 2 classes" in done.stdout


def test_columns_of_two_files_may_differ_in_upper_case(tmp_path):
    train, test = tickets(tmp_path), tickets(tmp_path, "test.csv", header="id,Text,LABEL", rows=4)
    done = start("--train_file", train, "--test_file", test, "--model_name_or_path", tmp_path)
    assert "train: 30 texts, test: 4 texts; 2 classes" in done.stdout
    assert "4 test text(s) are also training texts: results on them are too good." in done.stdout
