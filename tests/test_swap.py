"""ChallengerTrainer in Trainer's place where a model or a task cannot be challenged: it trains as Trainer, or says why not."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from tiny import CLASSES, tiny_batch, tiny_bert, tiny_config, tiny_data, tiny_rows, tiny_tokenizer
from torch import Tensor, nn
from transformers import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainingArguments,
    default_data_collator,
)

from hf_challenger import (
    ChallengeOptions,
    Challenger,
    ChallengerConfig,
    ChallengerError,
    ChallengerTrainer,
    ChallengerWarning,
)
from hf_challenger.inputs import Tokens

Make = Callable[..., Any]
# Of the options that the fixture sets.
DEFAULTS = {name: getattr(ChallengeOptions(), name) for name in ("challenge_selection", "challenge_share")}


# --- tasks that are not challenged ------------------------------------------------------------------------------------


class Toy(nn.Module):
    """Regression on one number, as in transformers' own tests of Trainer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.tensor(0.5)), nn.Parameter(torch.tensor(0.2))

    def forward(self, input_x: Tensor, labels: Tensor | None = None) -> Any:
        y = input_x * self.a + self.b
        return (y,) if labels is None else (nn.functional.mse_loss(y, labels), y)


class NeedsLabels(nn.Module):
    """A classifier whose forward cannot do without labels."""

    main_input_name = "input_ids"

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(45, 8), nn.Linear(8, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.head((self.embedding(input_ids) * attention_mask.unsqueeze(-1)).mean(1))
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class NoMask(nn.Module):
    """Token ids, but no attention mask, and a tokenizer without a mask token: no way to hide a word."""

    main_input_name = "input_ids"

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(45, 8), nn.Linear(8, CLASSES)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None, **kwargs: Any) -> dict[str, Any]:
        logits = self.head(self.embedding(input_ids).mean(1))
        return {"loss": None if labels is None else nn.functional.cross_entropy(logits, labels), "logits": logits}


class OwnTagger(nn.Module):
    """A label a token, in a class that transformers does not know."""

    main_input_name = "input_ids"

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(45, 8), nn.Linear(8, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Any]:
        logits = self.head(self.embedding(input_ids))
        loss = None if labels is None else nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss, "logits": logits}


def without_labels() -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "labels"} for row in tiny_rows(16)]


def tagged() -> list[dict[str, Any]]:
    return [{**row, "labels": [i % CLASSES for i in row["input_ids"]]} for row in tiny_rows(16)]


def gpt2() -> GPT2Config:
    return GPT2Config(vocab_size=45, n_positions=32, n_embd=16, n_layer=1, n_head=2, num_labels=CLASSES, pad_token_id=0)


def t5() -> T5Config:
    return T5Config(vocab_size=45, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)


def no_mask_token() -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = None
    return tokenizer


def quantized() -> nn.Module:
    model = tiny_bert()
    model.bert.encoder.layer[0].is_quantized = True  # as transformers marks the layers; on the model Trainer refuses
    return model


TASKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any], dict[str, Any]]] = {
    "input_x": (Toy, lambda: [{"input_x": i / 16, "labels": 2.0 * i / 16} for i in range(16)], {"data_collator": default_data_collator}),
    "token_classification": (
        lambda: BertForTokenClassification(tiny_config()),
        tagged,
        {"data_collator": DataCollatorForTokenClassification(tiny_tokenizer())},
    ),
    "own_tagger": (OwnTagger, tagged, {"data_collator": DataCollatorForTokenClassification(tiny_tokenizer())}),
    "question_answering": (
        lambda: BertForQuestionAnswering(tiny_config(num_labels=2)),
        lambda: Dataset.from_list([{**row, "start_positions": 1, "end_positions": 2} for row in without_labels()]),
        {},
    ),
    "masked_lm": (
        lambda: BertForMaskedLM(tiny_config()),
        without_labels,
        {"data_collator": DataCollatorForLanguageModeling(tiny_tokenizer(), mlm_probability=0.3)},
    ),
    "causal_lm": (
        lambda: GPT2LMHeadModel(gpt2()),
        without_labels,
        {"data_collator": DataCollatorForLanguageModeling(tiny_tokenizer(), mlm=False)},
    ),
    "generation": (
        lambda: T5ForConditionalGeneration(t5()),
        lambda: [{"input_ids": [7, 8, 9], "attention_mask": [1, 1, 1], "labels": [9, 8]} for _ in range(16)],
        {"data_collator": default_data_collator},
    ),
    "multiple_choice": (
        lambda: BertForMultipleChoice(tiny_config()),
        lambda: [{"input_ids": [[2, 7, 3], [2, 8, 3]], "attention_mask": [[1, 1, 1]] * 2, "labels": i % 2} for i in range(16)],
        {"data_collator": default_data_collator},
    ),
    "multi_label": (
        lambda: tiny_bert(problem_type="multi_label_classification"),
        lambda: tiny_data(16, "multi_label_classification"),
        {},
    ),
    "regression": (lambda: tiny_bert(num_labels=1), lambda: tiny_data(16, "regression"), {}),
    "needs_labels": (NeedsLabels, lambda: tiny_data(16), {}),
    "no_mask_token": (NoMask, lambda: tiny_data(16), {"processing_class": no_mask_token()}),
    "quantized": (quantized, lambda: tiny_data(16), {}),
}  # fmt: skip
CHALLENGED_BY_ROW = ("multi_label", "regression")


def trained(cls: type[Trainer], name: str, args: TrainingArguments) -> tuple[Trainer, list[str]]:
    """A run, and what it warned of."""
    model, data, others = TASKS[name]
    torch.manual_seed(0)
    kwargs = {"processing_class": tiny_tokenizer(), **others}
    run = cls(model=model(), args=args, train_dataset=data(), **kwargs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.train()
    return run, [str(w.message) for w in caught if issubclass(w.category, ChallengerWarning)]


@pytest.mark.parametrize("calibrate", [False, True])
@pytest.mark.parametrize("name", TASKS)
def test_what_cannot_be_challenged_is_trained_as_trainer_with_one_warning(name: str, calibrate: bool, config: Make) -> None:
    options = {**DEFAULTS, "calibrate": calibrate, "max_steps": 5}
    ours, said = trained(ChallengerTrainer, name, config(**options))
    plain, _ = trained(Trainer, name, config(**options))
    if not any("calibration_temperature" in log for log in ours.state.log_history):  # which is folded into the last layer
        assert all(torch.equal(a, b) for a, b in zip(ours.model.parameters(), plain.model.parameters(), strict=True))
    losses = [[log["loss"] for log in run.state.log_history if "loss" in log] for run in (ours, plain)]
    assert losses[0] == losses[1]
    of_the_challenge = [words for words in said if "not calibrated" not in words]
    assert len(of_the_challenge) == 1, said
    assert of_the_challenge[0].startswith("Training goes on as with Trainer, without a challenge: ")
    assert len(said) <= 1 + calibrate
    assert ours.cues == []
    assert not any(log.get("challenged_share") for log in ours.state.log_history)


@pytest.mark.parametrize("name", [name for name in TASKS if name not in CHALLENGED_BY_ROW])
def test_with_an_option_that_was_set_it_is_refused_with_the_way_out(name: str, config: Make) -> None:
    with pytest.raises(ChallengerError, match="challenge_share=0"):
        trained(ChallengerTrainer, name, config(challenge_selection="sample", challenge_share=1.0, max_steps=5))


def test_a_named_leak_is_taken_out_where_no_relevance_comes(config: Make) -> None:
    run, said = trained(
        ChallengerTrainer, "quantized", config(**{**DEFAULTS, "challenge_selection": "named", "challenge_hide": ["w1"]})
    )
    assert said == []
    assert any(log.get("leak_share", 0) > 0 for log in run.state.log_history)


@pytest.mark.parametrize("name", TASKS)
def test_without_a_challenge_nothing_is_said(name: str, config: Make) -> None:
    _, said = trained(ChallengerTrainer, name, config(challenge_selection="cues", challenge_share=0.0))
    assert said == []


@pytest.mark.parametrize("name", CHALLENGED_BY_ROW)
def test_rows_without_a_single_class_are_challenged_row_by_row_where_that_is_asked_for(name: str, config: Make) -> None:
    run, said = trained(ChallengerTrainer, name, config(challenge_selection="sample"))
    assert [log["challenged_share"] for log in run.state.log_history if "challenged_share" in log] == [0.5, 0.5]
    assert said == []
    with pytest.raises(ChallengerError, match=r"cues are told by class.*challenge_selection='sample'.*challenge_share=0"):
        trained(ChallengerTrainer, name, config(challenge_selection="cues", challenge_threshold=0.5))


def test_dataparallel_is_trained_as_trainer_too(trainer: Make) -> None:
    run = trainer(**DEFAULTS)
    run.args._n_gpu = 2
    with pytest.warns(ChallengerWarning, match=r"as with Trainer.*2 GPUs through torch.nn.DataParallel"):
        loss = run.compute_loss(run.model.train(), tiny_batch())
    assert loss == run.model(**tiny_batch()).loss


# --- the user's own losses ----------------------------------------------------------------------------------------------


def test_a_loss_that_never_calls_ours_is_told_at_the_end_and_on_the_card(config: Make) -> None:
    class Weighted(ChallengerTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            outputs = model(**inputs)
            loss = nn.functional.cross_entropy(outputs.logits, inputs["labels"], torch.tensor([1.0, 2.0, 3.0]))
            return (loss, outputs) if return_outputs else loss

    args = config(challenge_selection="cues", challenge_share=0.5)
    run = Weighted(tiny_bert(), args, train_dataset=tiny_data(), processing_class=tiny_tokenizer())
    with pytest.warns(ChallengerWarning, match=r"Nothing was challenged: Weighted.compute_loss never called") as caught:
        run.train()
    assert sum("Nothing was challenged" in str(w.message) for w in caught) == 1
    run.create_model_card()
    card = (Path(args.output_dir) / "README.md").read_text()
    assert "No batch of this training passed through the challenge of `Weighted`: nothing was hidden." in card


@pytest.mark.usefixtures("any_confidence")
def test_a_loss_that_calls_ours_says_nothing_and_the_card_counts(config: Make) -> None:
    class Doubled(ChallengerTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            loss, outputs = super().compute_loss(model, inputs, True, **kwargs)
            return (2 * loss, outputs) if return_outputs else 2 * loss

    args = config(challenge_share=0.25)
    run = Doubled(tiny_bert(), args, train_dataset=tiny_data(), processing_class=tiny_tokenizer())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        run.train()
    run.create_model_card()
    assert "(25.0%) rows, " in (Path(args.output_dir) / "README.md").read_text()


class TwoHeads(type(tiny_bert())):  # type: ignore[misc]
    """A second head with labels of its own, and an auxiliary loss."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.second = nn.Linear(config.hidden_size, 2)

    def forward(
        self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, topics: Any = None, **kwargs: Any
    ) -> Any:
        out = super().forward(input_ids, attention_mask, labels=labels, output_hidden_states=True)
        topic = self.second(out.hidden_states[-1][:, 0])
        loss = None if labels is None else out.loss + nn.functional.cross_entropy(topic, topics)
        return {"loss": loss, "logits": out.logits, "topic_logits": topic}


@pytest.mark.usefixtures("any_confidence")
def test_several_label_columns_and_heads_are_challenged_and_all_of_them_learn(config: Make) -> None:
    data = tiny_data().map(lambda row, i: {"topics": i % 2}, with_indices=True)
    torch.manual_seed(0)
    model = TwoHeads(tiny_config())
    before = model.second.weight.detach().clone()
    args = config(label_names=["labels", "topics"], challenge_share=0.5)
    run = ChallengerTrainer(model, args, train_dataset=data, processing_class=tiny_tokenizer())
    run.train()
    assert not torch.equal(model.second.weight, before)
    assert [log["challenged_share"] for log in run.state.log_history if "challenged_share" in log] == [0.5, 0.5]


def test_a_column_for_the_users_loss_does_not_reach_the_attribution(config: Make) -> None:
    class Plain(type(tiny_bert())):  # type: ignore[misc]
        def forward(self, input_ids: Any, attention_mask: Any, labels: Any = None) -> Any:
            return super().forward(input_ids, attention_mask, labels=labels)

    class RowWeights(ChallengerTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            weight = inputs.pop("weight")
            loss, outputs = super().compute_loss(model, inputs, True, **kwargs)
            return (loss * weight.mean(), outputs) if return_outputs else loss * weight.mean()

    data = [{**row, "weight": 0.5} for row in tiny_rows()]
    args = config(**DEFAULTS, calibrate=True, remove_unused_columns=False, max_steps=12)
    run = RowWeights(Plain(tiny_config()), args, train_dataset=data, processing_class=tiny_tokenizer())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        run.train()
    assert [log for log in run.state.log_history if "calibration_temperature" in log]
    assert run.cue_report(data).rows_read == len(data)
    batch = {**tiny_batch(), "weight": torch.ones(8)}
    labels = batch.pop("labels")
    found = Challenger(Plain(tiny_config()), processing_class=tiny_tokenizer()).challenge(batch, labels, 0)
    assert set(found.inputs) == {"input_ids", "attention_mask"}


# --- which output is the logits -----------------------------------------------------------------------------------------


class EmbeddingFirst(type(tiny_bert())):  # type: ignore[misc]
    """Returns its embedding before the scores, in one of several ways."""

    form = ""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        out = super().forward(input_ids, attention_mask, labels=labels, output_hidden_states=True)
        loss, embedding = out.loss, out.hidden_states[-1][:, 0]
        if self.form == "tuple":
            return (embedding, out.logits) if loss is None else (loss, embedding, out.logits)
        name = {"logits": "logits", "own names": "scores"}[self.form]
        found = {"embedding": embedding, name: out.logits}
        return found if loss is None else {"loss": loss, **found}


@pytest.mark.parametrize("form", ["logits", "tuple", "own names"])
def test_an_embedding_before_the_logits_is_not_taken_for_them(form: str, config: Make) -> None:
    torch.manual_seed(0)
    model = EmbeddingFirst(tiny_config())
    model.form = form
    run = ChallengerTrainer(model, config(**DEFAULTS), train_dataset=tiny_data(), processing_class=tiny_tokenizer())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        run.train()
    batch = tiny_batch(12, seed=1)
    right = BertForSequenceClassification.forward(run.model.eval(), **batch).logits.argmax(1) == batch["labels"]
    assert run.evaluate(tiny_data(12, seed=1))["eval_accuracy"] == pytest.approx(float(right.float().mean()))


def test_without_a_name_or_a_shape_of_logits_no_accuracy_is_reported(config: Make) -> None:
    class Unclear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(2, 3)

        def forward(self, x: Tensor, labels: Any = None) -> Any:
            return {"loss": self.head(x).sum() * 0, "embedding": self.head(x), "distances": self.head(x)}

    metrics = ChallengerTrainer(Unclear(), config()).evaluate([{"x": [1.0, 2.0], "labels": 1}] * 4)
    assert "eval_loss" in metrics
    assert "eval_accuracy" not in metrics


class AnyArguments(nn.Module):
    """A wrapper whose forward names no argument."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = tiny_bert()

    def forward(self, **kwargs: Any) -> Any:
        return self.inner(**kwargs)


def test_labels_that_trainer_does_not_read_in_evaluation_are_told_once(config: Make) -> None:
    run = ChallengerTrainer(AnyArguments(), config(remove_unused_columns=False), processing_class=tiny_tokenizer())
    with pytest.warns(ChallengerWarning, match=r"names no argument for labels.*label_names=\['labels'\]"):
        assert "eval_accuracy" not in run.evaluate(tiny_data(12))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        run.evaluate(tiny_data(12))
    named = config(remove_unused_columns=False, label_names=["labels"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        assert ChallengerTrainer(AnyArguments(), named, processing_class=tiny_tokenizer()).evaluate(tiny_data(12))[
            "eval_accuracy"
        ]
        assert "eval_loss" not in ChallengerTrainer(tiny_bert(), config(label_names=[])).evaluate(tiny_rows(1))


# --- before training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["steps", "no"])
@pytest.mark.parametrize("several", [False, True])
def test_evaluation_labels_out_of_range_are_told_before_training(trainer: Make, strategy: str, several: bool) -> None:
    bad = tiny_data(12).map(lambda row, i: {"labels": 3 if i == 7 else -100 if i == 8 else row["labels"]}, with_indices=True)
    told = {"good": tiny_data(12), "bad": list(bad)} if several else bad
    run = trainer(kwargs={"eval_dataset": told}, eval_strategy=strategy, eval_steps=1)
    words = r"evaluation set.*Label 3 is outside the model's 3 classes"
    if strategy == "no":
        with pytest.warns(ChallengerWarning, match=words):
            run.train()
        return
    with pytest.raises(ChallengerError, match=words):
        run.train()
    assert run.state.global_step == 0


@pytest.mark.parametrize("kind", [np.int64, torch.tensor])
def test_labels_of_arrays_and_tensors_are_looked_at_too(trainer: Make, kind: Any) -> None:
    bad = [{**row, "labels": kind(9 if i == 7 else row["labels"])} for i, row in enumerate(tiny_rows(12))]
    run = trainer(kwargs={"eval_dataset": bad}, eval_strategy="steps", eval_steps=1)
    with pytest.raises(ChallengerError, match=r"evaluation set.*Label 9 is outside the model's 3 classes"):
        run.train()
    assert run.state.global_step == 0


class Computed(torch.utils.data.Dataset[dict[str, Any]]):
    """Rows whose labels are not known before they are asked for."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {**tiny_rows(12)[i], "labels": 9 if i == 7 else 0}


def test_a_bad_label_that_only_evaluation_meets_is_named(trainer: Make) -> None:
    with pytest.raises(ChallengerError, match="In evaluation: Label 9 is outside the model's 3 classes"):
        trainer().evaluate(Computed())


def test_another_index_error_in_evaluation_is_not_taken_for_a_label(trainer: Make) -> None:
    rows = [{"input_ids": [2, 99, 3], "attention_mask": [1, 1, 1], "labels": 0}]
    with pytest.raises(IndexError, match="index out of range in self"):
        trainer().evaluate(rows)


def test_a_model_that_needs_no_labels_is_not_told_of_several(config: Make) -> None:
    class Both(nn.Module):
        """A contrastive model, as CLIP: it makes its own labels."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor, y: Tensor, return_loss: bool = True) -> Any:
            logits = self.first(x) @ self.second(y).T
            return {"loss": nn.functional.cross_entropy(logits, torch.arange(len(x))), "logits": logits}

    rows = [{"x": torch.randn(4), "y": torch.randn(4)} for _ in range(8)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        assert "eval_loss" in ChallengerTrainer(Both(), config()).evaluate(rows)


def test_good_evaluation_labels_are_let_pass(trainer: Make) -> None:
    chosen = tiny_data(12).map(lambda row, i: {"labels": 9 if i == 7 else row["labels"]}, with_indices=True).select(range(7))
    named = tiny_data(12).cast_column("labels", ClassLabel(names=["a", "b", "c"]))
    for data in (chosen, named, list(tiny_data(12)), tiny_data(12).to_iterable_dataset()):
        trainer(kwargs={"eval_dataset": data}, eval_strategy="steps", eval_steps=1).train()


def test_a_folder_that_cannot_be_written_is_refused_only_where_something_is_saved(
    trainer: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**kwargs: Any) -> Any:
        raise OSError("Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    (tmp_path / "there").mkdir()
    assert trainer(output_dir=str(tmp_path / "there"), save_strategy="no").evaluate()
    with pytest.raises(ChallengerError, match="Read-only file system"):
        trainer(output_dir=str(tmp_path / "there"), save_strategy="epoch")


# --- where a decoder reads its answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [False, True])
def test_texts_that_end_with_the_padding_keep_the_token_where_the_answer_is_read(left: bool) -> None:
    """GPT-2 with pad = eos reads at the last token that is not eos, though the text's own eos is attended to."""
    eos, words = 3, [[7, 8, 9, 3], [10, 11, 3]]
    rows = [[eos] * (5 - len(w)) + w if left else w + [eos] * (5 - len(w)) for w in words]
    masks = [[0] * (5 - len(w)) + [1] * len(w) if left else [1] * len(w) + [0] * (5 - len(w)) for w in words]
    model = GPT2ForSequenceClassification(gpt2())
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = "[SEP]"
    tokens = Tokens(model, tokenizer)
    model.config.pad_token_id = eos  # as Trainer sets it, when training starts
    ids = torch.tensor(rows)
    maskable = tokens.maskable({"input_ids": ids, "attention_mask": torch.tensor(masks)})
    assert ids[maskable].tolist() == [7, 8, 10]


def test_a_default_config_is_no_option_that_was_set(tmp_path: Path) -> None:
    args = ChallengerConfig(str(tmp_path), use_cpu=True, report_to="none", max_steps=2, save_strategy="no")
    run = ChallengerTrainer(Toy(), args, train_dataset=TASKS["input_x"][1](), data_collator=default_data_collator)
    with pytest.warns(ChallengerWarning, match="goes on as with Trainer"):
        run.train()
