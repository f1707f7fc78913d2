"""The command that classifies a file, with a tiny model and as a user calls it."""

from __future__ import annotations

import csv
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_bert, tiny_tokenizer

from hf_challenger import ChallengerError
from hf_challenger.predict import main, predict

ROOT = Path(__file__).parents[1]
TEXTS = ["w1 w2 w3", "w7 w8 w9 w6", "w12 w13"]


@pytest.fixture
def saved(tmp_path: Path) -> str:
    model = tiny_bert(id2label={0: "billing", 1: "refund", 2: "freeze"})
    model.save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def table(folder: Path, content: str, name: str = "new.csv") -> str:
    (folder / name).write_text(content)
    return str(folder / name)


def test_label_and_confidence_are_those_of_the_model(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "\n".join(f"{i},{text},old" for i, text in enumerate(TEXTS))
    main([saved, "--file", table(tmp_path, f"ticket_id,text,label\n{rows}\n"), "--output", str(tmp_path / "answers.csv")])
    answers = list(csv.DictReader((tmp_path / "answers.csv").open(encoding="utf-8")))
    assert list(answers[0]) == ["ticket_id", "text", "given_label", "label", "confidence"]
    model = tiny_bert(id2label={0: "billing", 1: "refund", 2: "freeze"}).eval()
    for i, (text, answer) in enumerate(zip(TEXTS, answers, strict=True)):
        with torch.no_grad():  # one by one: padding and sorting change nothing
            probabilities = model(**tiny_tokenizer()(text, return_tensors="pt")).logits[0].softmax(0)
        assert answer["ticket_id"] == str(i)
        assert answer["label"] == model.config.id2label[int(probabilities.argmax())]
        assert float(answer["confidence"]) == pytest.approx(float(probabilities.max()), abs=6e-5)
        assert answer["given_label"] == "old"
    printed = capsys.readouterr().out
    assert "Text: column 'text'." in printed
    assert "3 texts classified" in printed


def test_empty_texts_keep_their_row_and_get_no_label(saved: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([saved, "--file", table(tmp_path, "text,n\nw1,1\n,2\nw2,3\n"), "--output", str(tmp_path / "answers.csv")])
    answers = list(csv.DictReader((tmp_path / "answers.csv").open()))
    assert [bool(a["label"]) for a in answers] == [True, False, True]
    assert answers[1]["confidence"] == ""
    assert "1 texts are empty; they get no label" in capsys.readouterr().out


def test_pairs_and_many_rows(saved: str, tmp_path: Path) -> None:
    rows = "\n".join(f"w{i % 40} w1,w{i % 7}" for i in range(70))
    file = table(tmp_path, f"premise,hypothesis\n{rows}\n")
    flags = ["--text_column", "premise", "--text_pair_column", "hypothesis"]
    main([saved, "--file", file, "--output", str(tmp_path / "answers.csv"), *flags])
    assert len(list(csv.DictReader((tmp_path / "answers.csv").open()))) == 70


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--text_column": "txt"}, "no column 'txt' among text, label"),
        ({"--file": "absent.csv"}, "There is no file 'absent.csv'"),
        ({"--output": "nowhere/answers.csv"}, "there is no folder 'nowhere'"),
        ({"--output": "."}, "is a folder"),
        ({"--output": "new.csv"}, "is the file that is read"),
        ({"model": "."}, "The folder '.' holds no config.json"),
        ({"--file": "empty.csv"}, "empty.csv is empty"),
    ],
)
def test_mistakes_end_with_one_sentence(
    changes: dict[str, str],
    words: str,
    saved: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path, "text,label\nw1,a\n")
    table(tmp_path, "", "empty.csv")
    flags = {"--file": "new.csv", "--output": "answers.csv", **changes}
    model = flags.pop("model", saved)
    with pytest.raises(SystemExit) as ended:
        main([model, *(word for pair in flags.items() for word in pair)])
    assert ended.value.code == 2
    assert re.search(words, capsys.readouterr().err)
    assert not (tmp_path / "answers.csv").exists()


def test_a_mistake_is_told_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hf_challenger.predict", str(tmp_path), "--file", "absent.csv", "--output", "a.csv"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime  # other processes hardly stretch it
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: There is no file 'absent.csv'."]


def test_heads_with_no_single_label_and_broken_weights_are_refused() -> None:
    with pytest.raises(ChallengerError, match=r"1 output of a regression.*a classifier with one label a row is expected"):
        predict(tiny_bert(num_labels=1), tiny_tokenizer(), TEXTS)
    with pytest.raises(ChallengerError, match=r"several labels .multi_label_classification."):
        predict(tiny_bert(problem_type="multi_label_classification"), tiny_tokenizer(), TEXTS)
    broken = tiny_bert()
    torch.nn.init.constant_(broken.classifier.bias, float("nan"))
    with pytest.raises(ChallengerError, match="NaN or infinite: its weights are damaged"):
        predict(broken, tiny_tokenizer(), TEXTS)


def test_a_row_that_is_empty_keeps_its_place_and_a_file_of_ours_can_be_read_again(saved: str, tmp_path: Path) -> None:
    first, second = str(tmp_path / "answers.csv"), str(tmp_path / "again.csv")
    main([saved, "--file", table(tmp_path, "text,label\nw1,a\n,\nw2,b\n"), "--output", first])
    main([saved, "--file", first, "--text_column", "text", "--output", second])
    answers = list(csv.DictReader(Path(second).read_text().splitlines()))
    assert [row["text"] for row in answers] == ["w1", "", "w2"]
    assert [row["given_label"] for row in answers] == ["a", "", "b"]
    assert len({*answers[0]}) == 6
    main([saved, "--file", second, "--text_column", "text", "--output", first])
