"""The explain command on a saved tiny classifier, and its page in a real browser."""

import io
import json
import math
import os
import re
import resource
import runpy
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from matplotlib.colors import to_rgb
from peft import LoraConfig, get_peft_model
from tiny import pieces_tokenizer, tiny_bert, tiny_config, tiny_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    BertForMaskedLM,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForTokenClassification,
    BertModel,
    PreTrainedTokenizerFast,
)
from transformers.utils.logging import disable_progress_bar, enable_progress_bar

from hf_challenger import LRP, ChallengerError, visualize
from hf_challenger.colours import AGAINST, FOR
from hf_challenger.explain import explain, in_terminal
from hf_challenger.explain.command import main
from hf_challenger.explain.lengths import longest_input
from hf_challenger.explain.terminal import wants_colours
from hf_challenger.heatmap_html import html_page
from hf_challenger.saved_model import load_text_classifier

sys.path.append(str(Path(__file__).parent / "attribution"))
from families import build

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny_bert(id2label={0: "refund", 1: "card", 2: "other"}, label2id={"refund": 0, "card": 1, "other": 2}).save_pretrained(
        folder
    )
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def test_explanation_is_the_models_answer_and_lrps_relevance():
    model, tokenizer = tiny_bert().eval(), tiny_tokenizer()
    found = explain(model, tokenizer, "w1 w7 w20")
    batch = tokenizer("w1 w7 w20", return_tensors="pt")
    logits = model(**batch).logits[0].detach()
    relevance = LRP(model).attribute(batch, target=int(logits.argmax()))[0].sum(-1)
    assert found.words == ["w1", "w7", "w20"]
    assert found.relevance == pytest.approx(relevance[1:-1].tolist())
    assert found.elsewhere == pytest.approx(float(relevance[0] + relevance[-1]), abs=1e-6)
    assert found.label == f"LABEL_{int(logits.argmax())}"
    assert found.confidence == pytest.approx(float(logits.softmax(0).max()))
    assert found.score == pytest.approx(float(logits.max()))
    assert not found.cut


def test_word_pieces_are_merged_and_their_relevance_added():
    model, tokenizer = tiny_bert().eval(), pieces_tokenizer()
    text = "w1w2w3 w2?"
    batch = tokenizer(text, return_tensors="pt")
    relevance = LRP(model).attribute(batch)[0].sum(-1).tolist()
    assert len(relevance) == 7  # [CLS] w1 ##w2 ##w3 w2 ? [SEP]
    found = explain(model, tokenizer, text)
    assert found.words == ["w1w2w3", "w2", "?"]
    assert found.relevance == pytest.approx([sum(relevance[1:4]), relevance[4], relevance[5]], abs=1e-6)


def test_unknown_words_are_shown_as_they_were_written():
    assert explain(tiny_bert(), tiny_tokenizer(), "w1 zebra").words == ["w1", "zebra"]


def test_long_texts_are_cut_and_say_so():
    found = explain(tiny_bert(), tiny_tokenizer(), " ".join(["w1"] * 50))
    assert found.cut
    assert len(found.words) == 30
    assert "cut to the model's length" in found.note


def test_multi_label_and_regression_confidence():
    multi = explain(tiny_bert(problem_type="multi_label_classification"), tiny_tokenizer(), "w1 w2")
    assert multi.confidence == pytest.approx(1 / (1 + math.exp(-multi.score)), abs=1e-6)
    regression = explain(tiny_bert(num_labels=1), tiny_tokenizer(), "w1 w2")
    assert math.isnan(regression.confidence)
    assert "confidence" not in regression.heading


@pytest.mark.parametrize("method", ["lrp", "input_x_gradient", "attention_rollout"])
def test_command_prints_class_confidence_and_words(saved, capsys, tmp_path, method):
    page, picture = tmp_path / "why.html", tmp_path / "why.png"
    main([saved, "--text", "w1 w7", "--method", method, "--html", str(page), "--png", str(picture)])
    printed = capsys.readouterr().out
    assert re.search(r"-> (refund|card|other), confidence 0\.\d\d, score", printed)
    assert re.search(r"[+-]\d\.\d{3}.*w1\n.*w7\n", printed)
    assert "\x1b" not in printed  # not a terminal
    assert "w7" in page.read_text()
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_file_gives_one_text_a_line_and_colours_are_for_terminals(saved, capsys, tmp_path):
    texts = tmp_path / "texts.txt"
    texts.write_text("w1 w2\n\nw3\n")
    main([saved, "--file", str(texts), "--composite", "cp_lrp"])
    assert capsys.readouterr().out.count("->") == 2
    assert "\x1b[38;5;" in in_terminal(explain(tiny_bert(), tiny_tokenizer(), "w1 w2"), colours=True)


def test_a_csv_file_gives_its_column_of_texts(saved, capsys, tmp_path):
    (tmp_path / "texts.csv").write_text("id,text\n1,w1 w2\n2,\n3,w3\n")
    main([saved, "--file", str(tmp_path / "texts.csv")])
    printed = capsys.readouterr().out
    assert printed.count("->") == 2
    assert printed.startswith("w1 w2\n")
    (tmp_path / "texts.csv").write_text("text,id\n,1\n")
    assert "holds no text" in refused([saved, "--file", str(tmp_path / "texts.csv")], capsys)


def test_a_long_text_is_not_repeated_whole(saved, capsys):
    main([saved, "--text", "w1 " * 10_000])
    first = capsys.readouterr().out.splitlines()[0]
    assert len(first) == 300
    assert first.endswith("…")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("shown", ["terminal", "file", "switched off", "quick"])
def test_long_work_shows_a_bar_on_a_terminal(shown, saved, tmp_path, monkeypatch, capsys):
    (tmp_path / "texts.txt").write_text("w1 w2\nw3\nw4 w5\n")
    monkeypatch.setattr("hf_challenger.explain.command.MOMENT", 60.0 if shown == "quick" else 1e-9)
    monkeypatch.setattr(
        "hf_challenger.saved_model.load_text_classifier", lambda name: (tiny_bert(), tiny_tokenizer())
    )  # which has a bar, too
    monkeypatch.setattr("hf_challenger.explain.texts.explain", lambda *args, **kw: time.sleep(0.15) or explain(*args, **kw))
    stderr = io.StringIO() if shown == "file" else Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    if shown == "switched off":
        disable_progress_bar()
    try:
        main([saved, "--file", str(tmp_path / "texts.txt")])
    finally:
        enable_progress_bar()
    assert ("explaining:  33%" in stderr.getvalue()) == (shown == "terminal")
    assert "explaining" not in capsys.readouterr().out


def refused(arguments, capsys):
    """What the command says on stderr when it ends with exit code 2."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["MODEL", "--text", "w1", "--class", "cart"], "no class 'cart'; its classes are 'refund', 'card', 'other'"),
        (["MODEL", "--text", "w1", "--class", "card", "--top", "2"], "without --class"),
        (["MODEL", "--text", "w1", "--text-pair", "w2", "--text-pair", "w3"], "1 texts and 2 second ones"),
        (["MODEL", "--text", "w1", "--text-pair", " "], "The second text is empty"),
        (["/no/such/model", "--text", "w1"], "There is no folder '/no/such/model'"),
        (["MODEL", "--text", "  "], "The text is empty"),
        (["MODEL"], "Give --text, or a --file .* --image or --series"),
        (["MODEL", "--file", "no/such.txt"], "cannot be read"),
        (["MODEL", "--text", "w1", "--method", "tea_leaves"], "--method='tea_leaves' is unknown.*'lrp'"),
        (["MODEL", "--text", "w1", "--composite", "mine"], "--composite='mine' is unknown.*'attnlrp'"),
        (["MODEL", "--text", "w1", "--method", "captum_lrp"], "captum's LRP needs float inputs"),
        (["no/such/model", "--text", "w1"], "There is no folder 'no/such/model'"),
        (["MODEL", "--text", "w1", "--png", "picture.xyz"], "expected to end with .png"),
        (["MODEL", "--text", "w1", "--html", "/no/such/folder/x.html"], "cannot be written"),
    ],
)
def test_bad_arguments_end_with_the_way_out(saved, arguments, words, capsys):
    assert re.search(words, refused([saved if a == "MODEL" else a for a in arguments], capsys))


def test_a_model_without_a_trained_head_is_refused(tmp_path, capsys):
    BertModel(tiny_config()).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    assert re.search(r"no trained classification head .*classifier", refused([str(tmp_path), "--text", "w1"], capsys))


@pytest.mark.parametrize("kind", [BertForTokenClassification, BertForQuestionAnswering, BertForMaskedLM])
def test_a_model_of_another_task_is_refused_before_and_after_it_is_loaded(tmp_path, capsys, kind):
    kind(tiny_config()).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    said = refused([str(tmp_path), "--text", "w1"], capsys)
    assert f"is a model of another task ({kind.__name__}); one that classifies whole texts" in said
    with pytest.raises(ChallengerError, match=f"another task .{kind.__name__}"):  # as for a name on the Hub
        load_text_classifier(str(tmp_path))


def test_an_adapter_is_of_its_own_task_not_its_base_models(tmp_path, capsys):
    BertForPreTraining(tiny_config()).save_pretrained(tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=2)
    get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=2)).save_pretrained(tmp_path / "lora")
    tiny_tokenizer().save_pretrained(tmp_path / "lora")
    main([str(tmp_path / "lora"), "--text", "w1"])
    assert "confidence" in capsys.readouterr().out
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    (tmp_path / "lora" / "adapter_config.json").write_text(json.dumps({**config, "task_type": "TOKEN_CLS"}))
    assert "another task (TOKEN_CLS)" in refused([str(tmp_path / "lora"), "--text", "w1"], capsys)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path, capsys):
    tiny_bert().save_pretrained(tmp_path)
    assert re.search(r"holds no tokenizer, or an empty one", refused([str(tmp_path), "--text", "w1"], capsys))


def test_damaged_weights_are_told_from_a_reason(saved, tmp_path, capsys):
    shutil.copytree(saved, tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    assert re.search("The model in .* could not be loaded", refused([str(tmp_path / "cut"), "--text", "w1"], capsys))
    model = tiny_bert()
    model.classifier.weight.data.fill_(float("nan"))
    with pytest.raises(ChallengerError, match="NaN or infinite for 'w1 w2'"):
        explain(model, tiny_tokenizer(), "w1 w2")


def test_a_model_that_trains_goes_on_training():
    model = tiny_bert().train()
    explain(model, tiny_tokenizer(), "w1 w2")
    assert all(module.training for module in model.modules())


def test_a_byte_order_mark_is_no_word(saved, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("w1 w2\n", encoding="utf-8-sig")
    main([saved, "--file", str(tmp_path / "texts.txt")])
    assert "\ufeff" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "epsilon_gamma.*--html"),
        ([".", "--text", "w1"], 2, "holds no config.json"),
        ([".", "--file", "absent.txt"], 2, "'absent.txt' cannot be read"),
    ],
)
def test_help_and_mistakes_are_told_before_torch_is_loaded(tmp_path, arguments, code, words):
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime  # other processes hardly stretch it
    command = [sys.executable, "-m", "hf_challenger.explain", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300, check=False)
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 5
    assert done.returncode == code
    assert re.search(words, done.stdout + done.stderr, re.DOTALL)


def test_it_runs_as_a_module(saved, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["explain", saved, "--text", "w1 w2"])
    runpy.run_module("hf_challenger.explain", run_name="__main__")
    assert "confidence" in capsys.readouterr().out


# --- classes, pairs and heads ----------------------------------------------------------------------------------------------


def test_another_class_is_explained_by_name_or_index():
    model, tokenizer = tiny_bert(id2label={0: "refund", 1: "card", 2: "other"}).eval(), tiny_tokenizer()
    batch = tokenizer("w1 w7", return_tensors="pt")
    logits = model(**batch).logits[0].detach()
    other = int(logits.argmin())
    found = explain(model, tokenizer, "w1 w7", label=model.config.id2label[other].upper())
    assert found.relevance == pytest.approx(LRP(model).attribute(batch, target=other)[0].sum(-1)[1:-1].tolist())
    assert found.score == pytest.approx(float(logits[other]))
    assert f"(predicted: {model.config.id2label[int(logits.argmax())]}, 0." in found.heading
    assert explain(model, tokenizer, "w1 w7", label=str(other)).label == found.label


def test_top_explains_the_most_probable_classes_and_json_holds_all_numbers(saved, tmp_path, capsys):
    main([saved, "--text", "w1 w7", "--top", "2", "--json", str(tmp_path / "why.json")])
    first, second = json.loads((tmp_path / "why.json").read_text())
    assert [first["label"], second["label"]] == [label for label, _ in first["ranking"][:2]]
    assert sum(p for _, p in first["ranking"]) == pytest.approx(1)
    assert len(second["relevance"]) == len(second["words"]) == 2
    assert capsys.readouterr().out.count("->") == 2


def test_pairs_are_told_apart(saved, capsys):
    found = explain(tiny_bert(), tiny_tokenizer(), "w1 w7", pair="w3")
    assert (found.words, found.second) == (["w1", "w7", "w3"], 2)
    assert found.shown()[0] == ["w1", "w7", "‖", "w3"]
    main([saved, "--text", "w1 w7", "--text-pair", "w3"])
    assert re.search(r"w7\n  second text:\n.*w3\n", capsys.readouterr().out)


def test_the_key_and_the_score_are_told():
    found = explain(tiny_bert(), tiny_tokenizer(), "w1 w7")
    printed = in_terminal(found, colours=False)
    assert printed.index("Orange (+) speaks for the class") < printed.index("w1\n")
    rest = found.score - sum(found.relevance) - found.elsewhere
    assert f"Words sum to {sum(found.relevance):+.2f}" in found.note
    assert f"the remaining {rest:+.2f}" in found.note


def test_the_terminal_the_page_and_pictures_have_the_same_two_colours():
    assert (visualize.ORANGE, visualize.BLUE) == (FOR, AGAINST)
    page = html_page(ROWS, "x")
    for name, colour in (("for", FOR), ("against", AGAINST)):
        assert re.findall(rf"--{name}: ([\d, ]+);", page) == [", ".join(str(round(255 * c)) for c in to_rgb(colour))]
    found = explain(tiny_bert(), tiny_tokenizer(), "w1 w2 w3 w4 w5 w6")
    signs = re.findall(r"\x1b\[38;5;(\d+)m *([+-])", in_terminal(found, colours=True))
    assert {sign: index for index, sign in signs} == {"+": "172", "-": "68"}  # #d78700 and #5f87d7


def test_no_color_is_respected(monkeypatch):
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert wants_colours()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colours()


def test_one_sigmoid_output_is_a_probability():
    model = tiny_bert(num_labels=1, problem_type="multi_label_classification", id2label={0: "toxic"})
    found = explain(model, tiny_tokenizer(), "w1 w2")
    assert found.confidence == pytest.approx(1 / (1 + math.exp(-found.score)), abs=1e-6)
    assert "toxic, probability 0." in found.heading
    assert ("below 0.5" in found.heading) == (found.score < 0)


@pytest.mark.parametrize("classes", [2, 5])
def test_a_lora_folder_has_the_classes_of_its_saved_head(tmp_path, classes):
    model = tiny_bert(num_labels=classes)
    tiny_bert(num_labels=3).bert.save_pretrained(tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=classes)
    base.classifier.load_state_dict(model.classifier.state_dict())
    trained = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False)).eval()
    trained.save_pretrained(tmp_path / "lora")
    tiny_tokenizer().save_pretrained(tmp_path / "lora")
    expected = trained(**tiny_tokenizer()("w1 w2", return_tensors="pt")).logits[0].detach()
    found = explain(*load_text_classifier(str(tmp_path / "lora")), "w1 w2")
    assert len(found.ranking) == classes
    assert found.score == pytest.approx(float(expected.max()), abs=1e-5)


# --- words and lengths -----------------------------------------------------------------------------------------------------


def test_scripts_without_spaces_are_told_by_token():
    pieces = ["我想", "冻结", "我的", "账户", "card", "##s"]
    vocabulary = {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *pieces])}
    vocabulary |= {f"##{w}": len(vocabulary) + i for i, w in enumerate(pieces[:4])}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=32, **names)
    assert explain(tiny_bert(), tokenizer, "我想冻结我的账户 cards").words == ["我想", "冻结", "我的", "账户", "cards"]


FAMILIES = [
    "bert",
    "roberta",
    "camembert",
    "esm",
    "ibert",
    "mpnet",
    "longformer",
    "bart",
    "opt",
    "gpt2",
    "ctrl",
    "nystromformer",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_the_longest_input_is_the_longest_that_runs(name):
    model = build("text", name)
    limit = longest_input(model, SimpleNamespace(model_max_length=10**30))
    for length, runs in ((limit, True), (limit + 1, False)):
        ids = torch.full((1, length), 7)
        ids[0, -1] = 2
        with nullcontext() if runs else pytest.raises((IndexError, RuntimeError)), torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("name", ["t5", "xlnet", "bloom"])
def test_a_text_of_ten_thousand_words_is_cut_where_nothing_limits_it(name):
    model, tokenizer = build("text", name), tiny_tokenizer()
    tokenizer.model_max_length = 10**30
    assert longest_input(model, tokenizer) == 10**6
    found = explain(model, tokenizer, "w1 " * 10_000, "input_x_gradient")
    assert (found.tokens_read, found.tokens_given) == (2048, 10_002)
    assert "2048 of 10002 tokens were read" in found.note


# --- the page -------------------------------------------------------------------------------------------------------------

ROWS = [(["<script>alert(1)</script>", '"&', "blocked"], [0.5, -1.0, 2.0], "label <b>", "note & more")]


def test_page_escapes_text_and_needs_nothing_from_outside():
    page = html_page(ROWS, "Why </title><script>")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "label &lt;b&gt;" in page
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page


def test_page_scales_colours_to_the_largest_relevance():
    found = re.findall(r'class="(for|against)" style="--a:([\d.]+)">(?!orange|blue)', html_page(ROWS, "x"))
    assert found == [("for", "0.250"), ("against", "0.500"), ("for", "1.000")]


def test_page_refuses_bad_relevance():
    with pytest.raises(ChallengerError, match="NaN"):
        html_page([(["a"], [float("nan")], "", "")], "x")
    with pytest.raises(ChallengerError, match="2 for 1 words"):
        html_page([(["a"], [1.0, 2.0], "", "")], "x")


def screenshot(page, picture, dark):
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--window-size=900,500",
        f"--user-data-dir={picture.parent / 'profile'}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--screenshot={picture}",
        page.as_uri(),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome on the PATH")
def test_a_browser_paints_the_page_light_and_dark(tmp_path):
    from matplotlib.image import imread

    page = tmp_path / "page.html"
    page.write_text(html_page(ROWS, "Why"), encoding="utf-8")
    corner, orange, blue = {}, {}, {}
    for dark in (False, True):
        screenshot(page, tmp_path / f"{dark}.png", dark)
        pixels = torch.tensor(imread(tmp_path / f"{dark}.png"))[..., :3]
        red, green, azure = pixels.unbind(-1)
        corner[dark] = float(pixels[5, 5].mean())
        orange[dark] = int(((red > azure + 0.35) & (green < red)).sum())
        blue[dark] = int((azure > red + 0.2).sum())
    assert corner[False] > 0.95
    assert corner[True] < 0.15
    assert min(orange.values()) > 500
    assert min(blue.values()) > 200
