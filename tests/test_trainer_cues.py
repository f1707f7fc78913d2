"""The cue challenge in real training runs: what is found, named, hidden, kept, reported and saved."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import LEAKS, SPECIAL, WORDS, Trajectory, leaky_data, tiny_bert, tiny_tokenizer
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import BertProcessing
from torch import Tensor
from transformers import GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast, Trainer

from hf_challenger import ChallengerConfig, ChallengerError, ChallengerTrainer, NoEffectWarning
from hf_challenger.challenge import Challenger, Cue
from hf_challenger.challenge.cues import FOLLOWING
from hf_challenger.cue_callback import said, write_cues

Make = Callable[..., Any]
SEED = 1  # with which tiny BERT leans on both words by more than the threshold


def accuracy(run: Trainer) -> float:
    prediction = run.predict(leaky_data(300, held=0, seed=78))
    return float((prediction.predictions.argmax(1) == prediction.label_ids).mean())


def leaky_trainer(
    folder: Path,
    cls: type[Trainer] = ChallengerTrainer,
    data: Any = None,
    model: Any = None,
    callbacks: Any = (),
    more: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    defaults = {
        "output_dir": str(folder),
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "per_device_train_batch_size": 16,
        "num_train_epochs": 20,
        "learning_rate": 3e-3,
        "logging_steps": 6,
        "disable_tqdm": True,
        "calibrate": False,
        "challenge_threshold": 0.7,
        "challenge_share": 0.5,
        "seed": SEED,
    }
    return cls(
        tiny_bert(seed=SEED, num_labels=2) if model is None else model,
        ChallengerConfig(**{**defaults, **options}),
        train_dataset=leaky_data(seed=11) if data is None else data,
        processing_class=tiny_tokenizer(),
        callbacks=list(callbacks),
        **(more or {}),
    )


@dataclass
class Run:
    trainer: Any
    said: str
    folder: Path

    def logged(self, name: str) -> list[float]:
        return [log[name] for log in self.trainer.state.log_history if name in log]


@pytest.fixture(scope="module")
def capture() -> Iterator[Callable[..., Run]]:
    import contextlib
    import io

    def train(folder: Path, **options: Any) -> Run:
        run, out = leaky_trainer(folder, **options), io.StringIO()
        with contextlib.redirect_stdout(out):
            run.train()
        return Run(run, out.getvalue(), folder)

    return train


@pytest.fixture(scope="module")
def leaky(tmp_path_factory: pytest.TempPathFactory, capture: Any) -> Run:
    return capture(tmp_path_factory.mktemp("leaky"), save_strategy="steps", save_steps=30)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, capture: Any) -> Run:
    return capture(tmp_path_factory.mktemp("clean"), data=leaky_data(held=0, seed=11))


def named(cues: list[Cue]) -> set[tuple[str, str]]:
    return {(cue.text, cue.class_name) for cue in cues}


# --- found, hidden, told ----------------------------------------------------------------------------------------------


def test_planted_words_are_found_and_named_with_their_class(leaky: Run) -> None:
    assert named(leaky.trainer.cues) == {(LEAKS[0], "LABEL_0"), (LEAKS[1], "LABEL_1")}
    for cue in leaky.trainer.cues:
        assert cue.coverage > 0.85
        assert FOLLOWING * 0.8 < cue.strength <= 1


def test_a_cue_that_was_found_too_late_is_told_as_such() -> None:
    late, early = Cue(0, 1, (1,), 0.9, 0.9, "late", "A", 3), Cue(1, 2, (2,), 0.9, 0.9, "early", "B", 300)
    assert "hardly hidden" in said([late, early])
    assert "hardly hidden" not in said([early])


def test_what_was_taken_out_is_said_at_the_end(tmp_path: Path, capture: Any) -> None:
    run = capture(tmp_path, challenge_hide=list(LEAKS), num_train_epochs=2, challenge_threshold=None)
    held = [sum(LEAKS[n] in tiny_tokenizer().decode(row["input_ids"]) for row in leaky_data(seed=11)) for n in (0, 1)]
    assert f"visit of a row: {LEAKS[0]!r} {2 * held[0]} times, {LEAKS[1]!r} {2 * held[1]} times." in run.said


def test_they_are_hidden_in_their_share_of_the_rows(leaky: Run) -> None:
    assert leaky.logged("cues_found")[0] == 0
    assert leaky.logged("cues_found")[-1] == 2
    both_known = leaky.logged("cues_found").index(2) + 1
    assert np.mean(leaky.logged("challenged_share")[both_known:]) == pytest.approx(0.5 * 0.95, abs=0.04)
    visits = 20 * 96
    counted = sum(share * 96 for share in leaky.logged("challenged_share"))
    hidden_rows = sum(cue.hidden_rows for cue in leaky.trainer.cues)
    assert hidden_rows == pytest.approx(counted)
    assert 200 < hidden_rows < visits / 2


def test_the_model_is_right_more_often_without_the_word_than_trainers(leaky: Run, tmp_path: Path) -> None:
    plain = leaky_trainer(tmp_path, Trainer)
    plain.train()
    assert accuracy(leaky.trainer) > accuracy(plain) + 0.05


def test_without_a_cue_it_is_trainer_bit_for_bit(clean: Run, tmp_path: Path) -> None:
    plain = leaky_trainer(tmp_path, Trainer, data=leaky_data(held=0, seed=11))
    plain.train()
    assert clean.trainer.cues == []
    assert all(torch.equal(a, b) for a, b in zip(clean.trainer.model.parameters(), plain.model.parameters(), strict=True))
    assert set(clean.logged("challenged_share")) == set(clean.logged("cues_found")) == {0}


def test_the_console_says_what_was_found(leaky: Run, clean: Run) -> None:
    assert "2 cues found, the strongest first:" in leaky.said
    cue = leaky.trainer.cues[0]
    assert f"'{cue.text}': class {cue.class_name}, in {cue.coverage:.0%} of its rows" in leaky.said
    assert f"hidden {cue.hidden_rows} times" in leaky.said
    assert "challenge_hide takes it out of every row" in leaky.said
    assert clean.said.count("No cue found") == 1
    assert "challenge_hide" not in clean.said


def test_cues_json_lies_beside_every_saved_model(leaky: Run, clean: Run) -> None:
    for run in (leaky, clean):
        run.trainer.save_model()
        rows = json.loads((run.folder / "cues.json").read_text())
        assert [(row["cue"], row["class"], row["hidden_rows"]) for row in rows] == [
            (cue.text, cue.class_name, cue.hidden_rows) for cue in run.trainer.cues
        ]
    assert (leaky.folder / "checkpoint-120" / "cues.json").is_file()
    assert (leaky.folder / "checkpoint-120" / "cue_memory.pt").is_file()


def test_no_cues_of_an_earlier_model_lie_beside_one_that_looked_for_none(leaky: Run, tmp_path: Path) -> None:
    for options in ({"challenge_share": 0.0}, {"challenge_selection": "named", "challenge_hide": [LEAKS[0]]}):
        write_cues(leaky.trainer.cues, tmp_path)
        run = leaky_trainer(tmp_path, num_train_epochs=1, **{**DEFAULTS, **options})
        run.train()
        run.save_model()
        assert not (tmp_path / "cues.json").exists()


@pytest.mark.parametrize("best", [6, 60, 120])
def test_what_is_told_is_of_the_checkpoint_that_was_kept(
    leaky: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], best: int
) -> None:
    evaluated = []

    def best_at(prediction: Any) -> dict[str, float]:
        evaluated.append(len(evaluated))
        return {"right": float(6 * len(evaluated) == best)}

    saved = {f"{kind}_{how}": value for kind in ("eval", "save") for how, value in (("strategy", "steps"), ("steps", 6))}
    options = {"load_best_model_at_end": True, "metric_for_best_model": "right", **saved}
    run = leaky_trainer(tmp_path, more={"eval_dataset": leaky_data(32, seed=3), "compute_metrics": best_at}, **options)
    run.train()
    out = capsys.readouterr().out
    assert run.state.best_global_step == best
    memory = torch.load(tmp_path / f"checkpoint-{best}" / "cue_memory.pt")
    hidden = {cue["label"]: cue["hidden_rows"] for cue in memory["cues"]}
    assert {cue.label: cue.hidden_rows for cue in run.cues} == {label: hidden.get(label, 0) for label in (0, 1)}
    assert (run._counter.total.rows, run._counter.total.challenged) == (16 * best, sum(hidden.values()))
    assert (f"The model is that of checkpoint-{best}" in out) == (best < 120)
    assert ("it leans on" in out) == (best == 6)
    if best == 120:
        assert [cue.hidden_rows for cue in run.cues] == [cue.hidden_rows for cue in leaky.trainer.cues]
    run.save_model()
    assert [row["hidden_rows"] for row in json.loads((tmp_path / "cues.json").read_text())] == [
        c.hidden_rows for c in run.cues
    ]


def test_the_card_shows_them(leaky: Run, clean: Run) -> None:
    for run in (leaky, clean):
        run.trainer.create_model_card()
    card = (leaky.folder / "README.md").read_text()
    for cue in leaky.trainer.cues:
        assert f"| `{cue.text}` | {cue.class_name} | {cue.coverage:.0%} | {cue.strength:.2f} | {cue.hidden_rows} |" in card
    card = (clean.folder / "README.md").read_text()
    assert "No cue was found, so that training was plain `Trainer`'s." in card
    assert "| cue |" not in card


# --- one memory, however it is run ------------------------------------------------------------------------------------


def same_cues(a: list[Cue], b: list[Cue]) -> None:
    assert len(a) == len(b) == 2
    for x, y in zip(a, b, strict=True):
        assert (x.text, x.class_name, x.hidden_rows) == (y.text, y.class_name, y.hidden_rows)
        assert (x.coverage, x.strength) == (pytest.approx(y.coverage), pytest.approx(y.strength, rel=1e-4))


def test_16_rows_at_once_are_4_times_4(tmp_path: Path) -> None:
    """In float64, so that rounding does not grow over the steps."""
    found = []
    for size in (16, 4):
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 16 // size}
        run = leaky_trainer(tmp_path, model=tiny_bert(seed=SEED, num_labels=2).double(), **options)
        run.train()
        found.append(run)
    same_cues(found[0].cues, found[1].cues)
    one, other = (run._challenger.memory.state_dict()["rows"] for run in found)
    assert one.keys() == other.keys()
    for label in one:
        assert torch.equal(one[label]["keys"], other[label]["keys"])
        assert torch.equal(one[label]["identities"], other[label]["identities"])
        torch.testing.assert_close(one[label]["shares"], other[label]["shares"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("step", [60, 90, 120])
def test_a_resumed_run_goes_on_with_the_same_memory(leaky: Run, tmp_path: Path, step: int) -> None:
    resumed = leaky_trainer(tmp_path, model=tiny_bert(seed=5, num_labels=2))
    resumed.train(resume_from_checkpoint=str(leaky.folder / f"checkpoint-{step}"))
    assert resumed.cues == leaky.trainer.cues
    for a, b in zip(resumed.model.parameters(), leaky.trainer.model.parameters(), strict=True):
        assert torch.equal(a, b)


# --- what the user names ----------------------------------------------------------------------------------------------


class Seen:
    """The attended token ids of every training batch, with its labels."""

    def __init__(self, model: Any) -> None:
        self.rows: list[tuple[int, list[int]]] = []
        model.register_forward_pre_hook(self.look, with_kwargs=True)

    def look(self, model: Any, args: Any, inputs: dict[str, Tensor]) -> None:
        if model.training:
            for ids, mask, label in zip(inputs["input_ids"], inputs["attention_mask"], inputs["labels"], strict=True):
                self.rows.append((label.tolist(), ids[mask.bool()].tolist()))


def ids_of(words: tuple[str, ...]) -> list[int]:
    return tiny_tokenizer().convert_tokens_to_ids(list(words))


def test_a_cue_to_keep_is_never_hidden_and_no_cue(tmp_path: Path) -> None:
    run = leaky_trainer(tmp_path, challenge_keep=[LEAKS[0]], challenge_threshold=0.6)
    seen, (kept, other) = Seen(run.model), ids_of(LEAKS)
    run.train()
    assert LEAKS[0] not in {cue.text for cue in run.cues}
    assert LEAKS[1] in {cue.text for cue in run.cues}
    held = {word: sum(word in ids for _, ids in seen.rows) for word in (kept, other)}
    in_data = {word: 20 * sum(word in ids for ids in leaky_data(seed=11)["input_ids"]) for word in (kept, other)}
    assert held[kept] == in_data[kept]
    assert held[other] == in_data[other] - run.cues[0].hidden_rows < in_data[other]


@pytest.mark.parametrize("option", ["challenge_keep", "challenge_hide"])
def test_a_cue_that_is_named_when_training_goes_on_is_no_cue_any_more(leaky: Run, tmp_path: Path, option: str) -> None:
    run = leaky_trainer(tmp_path, **{option: [LEAKS[0]]})
    run.train(resume_from_checkpoint=str(leaky.folder / "checkpoint-90"))
    found = {cue.text: cue.coverage for cue in run.cues}
    assert LEAKS[0] not in found
    assert found[LEAKS[1]] > 0.85


def test_a_single_leak_is_hidden_in_every_row(tmp_path: Path) -> None:
    run = leaky_trainer(tmp_path, challenge_hide=[LEAKS[0]], num_train_epochs=2)
    seen, (leak, other) = Seen(run.model), ids_of(LEAKS)
    run.train()
    assert not any(leak in ids for _, ids in seen.rows)
    assert any(other in ids for _, ids in seen.rows)


def test_a_source_that_is_a_special_token_of_its_own_is_found_and_taken_out(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    sources = ["<web>", "<app>"]
    tokenizer.add_special_tokens({"additional_special_tokens": sources})
    added = dict(zip(ids_of(LEAKS), tokenizer.convert_tokens_to_ids(sources), strict=True))
    data = [{**row, "input_ids": [added.get(i, i) for i in row["input_ids"]]} for row in leaky_data(seed=11)]

    def run(**options: Any) -> ChallengerTrainer:
        trained = leaky_trainer(
            tmp_path, data=data, model=tiny_bert(seed=SEED, num_labels=2, vocab_size=len(tokenizer)), **options
        )
        trained.processing_class = trained.data_collator.tokenizer = tokenizer
        return trained

    found = run(challenge_threshold=0.5)
    found.train()
    assert {cue.text for cue in found.cues} & set(sources)
    without = run(challenge_hide=sources[:1], num_train_epochs=2)
    seen = Seen(without.model)
    without.train()
    assert not any(added[ids_of(LEAKS)[0]] in ids for _, ids in seen.rows)


def test_several_leaks_are_exchanged_whatever_the_class(tmp_path: Path) -> None:
    run = leaky_trainer(tmp_path, challenge_hide=list(LEAKS), num_train_epochs=6)
    seen, leaks = Seen(run.model), ids_of(LEAKS)
    run.train()
    for label in range(2):
        rows = [ids for of, ids in seen.rows if of == label]
        shares = [sum(leak in ids for ids in rows) / len(rows) for leak in leaks]
        assert shares == pytest.approx([0.95 / 3] * 2, abs=0.1)  # a third each, and a third hidden
    assert not {cue.text for cue in run.cues} & set(LEAKS)


def test_named_leaks_alone_are_taken_out_without_relevance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("relevance was computed")

    monkeypatch.setattr(Challenger, "_relevance", refuse)
    run = leaky_trainer(
        tmp_path, challenge_selection="named", challenge_hide=[LEAKS[0]], num_train_epochs=4,
        challenge_threshold=None, challenge_share=0.75,
    )  # fmt: skip
    seen, (leak, other) = Seen(run.model), ids_of(LEAKS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.train()
    assert not any(leak in ids for _, ids in seen.rows)
    assert any(other in ids for _, ids in seen.rows)
    (shares,) = {log["challenged_share"] for log in run.state.log_history if "challenged_share" in log}
    assert shares == 0
    assert any(log.get("leak_share", 0) > 0.3 for log in run.state.log_history)
    assert run.cues == []
    run.save_model()
    assert not (tmp_path / "cues.json").exists()
    run.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert f"No cue was looked for. Named as a leak: `{LEAKS[0]}`" in card
    assert "LRP" not in card


def scattered(leaks: tuple[str, str], rows: int = 96) -> Dataset:
    """Rows that begin with their class's leak, of which "?" is any word."""
    tokenizer, rng = tiny_tokenizer(), np.random.default_rng(0)
    found = []
    for i in range(rows):
        leak = leaks[i % 2].replace("?", f"w{rng.integers(30)}")
        text = " ".join([leak, *(f"w{n}" for n in rng.integers(0, 30, 6))])
        found.append({**tokenizer(text, return_token_type_ids=False), "labels": i % 2})
    return Dataset.from_list(found)


def test_a_name_with_a_gap_reads_back_as_it_was_shown(tmp_path: Path) -> None:
    data = scattered(("w36 ? w37", "w38 ? w39"))
    options = {"challenge_threshold": None, "challenge_share": 0.75}
    found = leaky_trainer(tmp_path, data=data, **options)
    found.train()
    names = sorted({cue.text for cue in found.cues})
    assert set(names) >= {"w36 w37", "w38 w39"}
    kept = leaky_trainer(tmp_path, data=data, challenge_keep=names, **options)
    kept.train()
    assert not {cue.text for cue in kept.cues} & set(names)
    hidden = leaky_trainer(tmp_path, data=data, challenge_hide=["w36 w37", "w38 w39"], num_train_epochs=20)
    seen, leaks = Seen(hidden.model), [set(ids_of(words)) for words in (("w36", "w37"), ("w38", "w39"))]
    hidden.train()
    for label in (0, 1):  # exchanged whole, and as often for each other in rows of either class
        rows = [set(row) for of, row in seen.rows if of == label]
        assert all(not leak & row or leak <= row for leak in leaks for row in rows)
        held = [sum(leak <= row for row in rows) / len(rows) for leak in leaks]
        assert held == pytest.approx([1 / 3] * 2, abs=0.06)
        assert not any(leaks[0] & row and leaks[1] & row for row in rows)
    assert {log["leak_share"] for log in hidden.state.log_history if "leak_share" in log} == {1.0}


def test_each_name_that_no_row_holds_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from transformers.utils import logging

    logging.enable_propagation()
    try:
        options = {"challenge_hide": [LEAKS[0], "w1 w28"], "challenge_keep": ["w0 w29"]}
        leaky_trainer(tmp_path, num_train_epochs=1, **options).train()
    finally:
        logging.disable_propagation()
    told = [record.message for record in caplog.records if "no row of this training" in record.message]
    assert [text.split(",")[0] for text in told] == ["challenge_hide names 'w1 w28'", "challenge_keep names 'w0 w29'"]


def dated_data(rows: int = 96, held: float = 0.95, seed: int = 0) -> tuple[Dataset, PreTrainedTokenizerFast]:
    """:func:`tiny.leaky_data` with dates in place of words: "12 / 7 / 3" or "12 - 7 - 3"; no number is in a fifth of them."""
    core = Tokenizer(
        WordLevel({w: i for i, w in enumerate([*SPECIAL, *WORDS, "/", "-", *map(str, range(20))])}, unk_token="[UNK]")
    )
    core.pre_tokenizer = WhitespaceSplit()
    core.post_processor = BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=32, **names)
    rng = np.random.default_rng(seed)
    found = []
    for row in leaky_data(rows, held=held, seed=seed):
        words = tiny_tokenizer().decode(row["input_ids"], skip_special_tokens=True)
        for leak, sign in zip(LEAKS, "/-", strict=True):
            words = words.replace(leak, f" {sign} ".join(map(str, rng.integers(20, size=3))))
        found.append({**tokenizer(words, return_token_type_ids=False), "labels": row["labels"]})
    return Dataset.from_list(found), tokenizer


def test_dates_that_each_class_writes_in_its_own_way_are_found_and_named_and_their_name_is_read(tmp_path: Path) -> None:
    data, tokenizer = dated_data(seed=11)

    def run(**options: Any) -> Any:
        model = tiny_bert(seed=SEED, num_labels=2, vocab_size=len(tokenizer))
        trainer = leaky_trainer(tmp_path, data=data, model=model, **options)
        trainer.processing_class = trainer.data_collator.tokenizer = tokenizer
        trainer.train()
        return trainer

    found = run()
    names = {(" ".join(sorted(set(cue.text.split()))), cue.class_name) for cue in found.cues}
    assert names == {("/ [number]", "LABEL_0"), ("- [number]", "LABEL_1")}
    assert all(cue.hidden_rows > 300 for cue in found.cues)
    read = []

    def look(model: Any, args: Any, inputs: dict[str, Tensor]) -> None:
        if model.training:
            read.extend(inputs["input_ids"][inputs["attention_mask"].bool()].tolist())

    named = run(
        challenge_hide=[cue.text for cue in found.cues], challenge_selection="named", challenge_threshold=None, max_steps=1
    )
    named.model.register_forward_pre_hook(look, with_kwargs=True)
    named.train()
    assert read
    assert max(read) < len(SPECIAL + WORDS)  # no sign and no number


@pytest.mark.parametrize("padding_side", ["left", "right"])
@pytest.mark.parametrize("ends", ["", "pad"])
def test_a_leak_at_the_end_is_taken_out_of_decoders_too(tmp_path: Path, padding_side: str, ends: str) -> None:
    """Whose tokenizers add no end token, or one that is the padding too: the last word is where the answer is read."""
    words = ["<pad>", "<unk>", *(f"w{i}" for i in range(40))]
    core = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", unk_token="<unk>", padding_side=padding_side, model_max_length=32
    )
    rng, leaks, rows = np.random.default_rng(0), ("w36 w37", "w38 w39"), []
    for i in range(32):
        text = " ".join([*(f"w{n}" for n in rng.integers(0, 30, rng.integers(3, 8))), leaks[i % 2], "<pad>" if ends else ""])
        rows.append({**tokenizer(text, return_token_type_ids=False), "labels": i % 2})
    config = GPT2Config(
        vocab_size=len(words), n_positions=32, n_embd=16, n_layer=1, n_head=2, pad_token_id=0, bos_token_id=0, eos_token_id=0
    )
    answers: list[list[float]] = []
    for names in (list(leaks), [leaks[0]]):
        args = {"challenge_selection": "named", "challenge_share": 0.75, "challenge_threshold": None, "max_steps": 12}
        run = leaky_trainer(tmp_path, data=rows, model=GPT2ForSequenceClassification(config), challenge_hide=names, **args)
        run.processing_class = run.data_collator.tokenizer = tokenizer
        ended: list[str] = []

        def look(model: Any, args: Any, inputs: dict[str, Tensor], ended: list[str] = ended) -> None:
            for ids in inputs["input_ids"] if model.training else ():
                ended.append(tokenizer.decode([i for i in ids.tolist() if i])[-7:])

        run.model.register_forward_pre_hook(look, with_kwargs=True)
        run.train()
        answers.append([np.mean([text == leak for text in ended]) for leak in leaks])
    assert answers[0] == pytest.approx([1 / 3, 1 / 3], abs=0.1)  # whatever the class; and a third has none
    assert answers[1] == [0, 0.5]


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_named_leaks_are_taken_out_whatever_the_task(tmp_path: Path, problem: str) -> None:
    labels = {"multi_label_classification": [1.0, 0.0], "regression": 0.5}[problem]
    data = leaky_data(seed=11).map(lambda row: {"target": labels}).remove_columns("labels").rename_column("target", "labels")
    model = tiny_bert(num_labels=1 if problem == "regression" else 2, problem_type=problem)
    run = leaky_trainer(
        tmp_path, data=data, model=model, challenge_selection="named", challenge_hide=[LEAKS[0]], num_train_epochs=1
    )
    seen, (leak, other) = Seen(run.model), ids_of(LEAKS)
    with pytest.warns(NoEffectWarning, match="challenge_threshold has no effect"):
        run.train()
    assert not any(leak in ids for _, ids in seen.rows)
    assert any(other in ids for _, ids in seen.rows)


@pytest.mark.parametrize("option", ["challenge_keep", "challenge_hide"])
def test_an_unknown_word_is_named(tmp_path: Path, option: str) -> None:
    run = leaky_trainer(tmp_path, **{option: ["w38", "nonsense"]})
    with pytest.raises(ChallengerError, match=rf"{option} names 'nonsense'.*\[UNK\].*as trainer.cues shows it"):
        run.train()


@pytest.mark.parametrize("selection", ["cues", "named", "random"])
def test_a_leak_that_no_row_holds_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, selection: str) -> None:
    from transformers.utils import logging

    logging.enable_propagation()
    try:
        options = {**DEFAULTS, "challenge_selection": selection, "challenge_hide": ["w39"], "num_train_epochs": 1}
        leaky_trainer(tmp_path, data=leaky_data(held=0), **options).train()
    finally:
        logging.disable_propagation()
    assert "challenge_hide names 'w39', but no row of this training holds it" in caplog.text


def test_a_name_in_both_lists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ChallengerError, match="'w38' is in challenge_keep and in challenge_hide"):
        leaky_trainer(tmp_path, challenge_keep=["w38"], challenge_hide=["w39", "w38"])


# --- odd data and options -----------------------------------------------------------------------------------------------


def test_one_class_only_trains_and_finds_nothing_to_tell_classes_by(tmp_path: Path) -> None:
    data = leaky_data(seed=11).filter(lambda row: row["labels"] == 0)
    run = leaky_trainer(tmp_path, data=data, num_train_epochs=5)
    run.train()
    assert {cue.label for cue in run.cues} <= {0}
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_more_classes_than_rows(tmp_path: Path) -> None:
    data = Dataset.from_list([{**row, "labels": 37 * i} for i, row in enumerate(list(leaky_data(8)))])
    run = leaky_trainer(tmp_path, data=data, model=tiny_bert(num_labels=300), max_steps=40)
    run.train()
    assert run.cues == []


DEFAULTS = {"challenge_threshold": None, "challenge_share": 0.75}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"challenge_rate": 0.5}, "challenge_rate has no effect: it is for row-level selections"),
        ({"challenge_selection": "top", "challenge_keep": ["w1"]}, "challenge_keep has no effect: it is for challenge_sel"),
        ({"challenge_selection": "top", "challenge_threshold": 0.5}, "challenge_threshold has no effect"),
        ({"challenge_selection": "named"}, "challenge_selection has no effect: it hides what challenge_hide names"),
        (
            {"challenge_selection": "named", "challenge_hide": ["w38"], "challenge_share": 0.5},
            "challenge_share has no effect: challenge_selection='named' takes a leak out of every row",
        ),
        (
            {"challenge_selection": "random", "challenge_attribution": "saliency"},
            "challenge_attribution has no effect: challenge_selection='random' reads no relevance",
        ),
        (
            {"challenge_attribution": "input_x_gradient", "challenge_composite": "cp_lrp"},
            "challenge_composite has no effect: challenge_attribution='input_x_gradient' knows no LRP rules",
        ),
    ],
)
def test_an_option_without_effect_is_told_once(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    run = leaky_trainer(tmp_path, max_steps=3, **{**DEFAULTS, **options})
    with pytest.warns(NoEffectWarning) as caught:
        run.train()
    said = [str(w.message) for w in caught if isinstance(w.message, NoEffectWarning)]
    assert len(said) == 1
    assert said[0].startswith(words)


def test_options_of_a_run_without_a_challenge_have_no_effect(tmp_path: Path) -> None:
    run = leaky_trainer(tmp_path, max_steps=2, **{**DEFAULTS, "challenge_share": 0.0, "challenge_hide": ["w38"]})
    with pytest.warns(NoEffectWarning, match="challenge_hide has no effect: .*Trainer; challenge_selection='named'"):
        run.train()


def test_defaults_warn_of_nothing(tmp_path: Path) -> None:
    run = leaky_trainer(tmp_path, max_steps=4, **DEFAULTS, callbacks=[Trajectory()])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.train()
