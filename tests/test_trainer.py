"""ChallengerTrainer in Trainer's place: what it trains, logs, reports and refuses."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict
from sklearn.metrics import accuracy_score
from tiny import CLASSES, Trajectory, tiny_bert, tiny_data, tiny_tokenizer
from torch import Tensor
from transformers import AutoModel, EvalPrediction, Trainer, TrainingArguments

from hf_challenger import ChallengeOptions, ChallengerConfig, ChallengerError, ChallengerTrainer, ChallengerWarning
from hf_challenger.attribution import LRP
from hf_challenger.attribution.methods import METHODS

Make = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("any_confidence")


def logged(trainer: Any, name: str) -> list[float]:
    return [log[name] for log in trainer.state.log_history if name in log]


# --- the swap ---------------------------------------------------------------------------------------------------------


def test_swap_with_plain_training_arguments_takes_the_defaults(trainer: Make, config: Make) -> None:
    run = trainer(args=config(cls=TrainingArguments, max_steps=3))
    output = run.train()
    assert len(logged(run, "loss")) == 3
    assert logged(run, "cues_found") == [0, 0, 0]
    assert logged(run, "challenged_share") == [0, 0, 0]
    assert output.metrics["calibration_temperature"] > 0


def test_share_is_the_share_of_rows(trainer: Make) -> None:
    run = trainer(data=tiny_data(400), challenge_share=0.3, max_steps=5, per_device_train_batch_size=80, logging_steps=5)
    run.train()
    assert logged(run, "challenged_share")[0] == pytest.approx(0.3, abs=0.01)


def words_read(inputs: dict[str, Any]) -> list[list[int]]:
    return [ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)]


def test_dropped_tokens_are_hidden_from_the_training_forward(trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = trainer(challenge_share=1.0, challenge_rate=0.3, max_steps=1, data=tiny_data(8))
    run.train_dataset = run.train_dataset.map(lambda row: row)
    seen: list[dict[str, Any]] = []
    run.model.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append(dict(kwargs, training=m.training)), with_kwargs=True
    )
    run.train()
    attribution, training = seen
    assert not attribution["training"]
    assert training["training"]
    special = {2, 3}
    for before, after in zip(*map(words_read, (attribution, training)), strict=True):
        rest = iter(before)
        assert all(word in rest for word in after)  # in their order, as if the others had never been there
        assert len(after) < len(before)
        assert special & set(after) == special & set(before)


def test_relevance_that_chooses_is_lrp_of_the_gold_class(trainer: Make) -> None:
    """'top' hides exactly the tokens that LRP, called apart, ranks first."""
    model, data = tiny_bert(), tiny_data(8)
    run = trainer(model=model, data=data, challenge_share=1.0, challenge_selection="top", challenge_rate=0.3)
    batch = next(iter(run.get_train_dataloader()))
    labels = batch["labels"]
    relevance = LRP(model).attribute({k: v for k, v in batch.items() if k != "labels"}, target=labels).sum(-1)
    found = run._challenger_for(model, ChallengeOptions.of(run.args)).challenge(batch, labels, step=0)
    for row in range(8):
        words = batch["input_ids"][row] > 4
        hide = max(1, math.floor(int(words.sum()) * 0.3 + 0.5))
        expected = relevance[row].masked_fill(~words, -math.inf).topk(hide).indices
        assert set(found.drop_mask[row].nonzero().flatten().tolist()) == set(expected.tolist())


def test_training_learns(trainer: Make) -> None:
    run = trainer(data=tiny_data(64), max_steps=60, learning_rate=0.01, logging_steps=10)
    run.train()
    losses = logged(run, "loss")
    assert losses[-1] < 0.7 * losses[0]


# --- evaluation -------------------------------------------------------------------------------------------------------


def naive_scores(trainer: Any, data: Dataset) -> dict[str, float]:
    """Calibration from softmax probabilities, row by row, with 15 bins."""
    logits = torch.cat([trainer.model(**trainer.data_collator([row])).logits for row in data]).detach().double().numpy()
    labels = np.array(data["labels"][:])
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    ece = 0.0
    for b in range(15):
        inside = (p.max(1) > b / 15) & (p.max(1) <= (b + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs((p.argmax(1) == labels)[inside].mean() - p.max(1)[inside].mean())
    return {
        "eval_accuracy": (p.argmax(1) == labels).mean(),
        "eval_ece": ece,
        "eval_nll": -np.log(p[range(len(labels)), labels]).mean(),
        "eval_brier": ((p - np.eye(CLASSES)[labels]) ** 2).sum(1).mean(),
    }


def assert_scores(found: dict[str, float], expected: dict[str, float]) -> None:
    assert {k: found[k] for k in expected} == {k: pytest.approx(v, abs=1e-5) for k, v in expected.items()}


def users_metrics(prediction: EvalPrediction) -> dict[str, float]:
    predictions = prediction.predictions
    classes = predictions.argmax(-1) if predictions.ndim == 2 else predictions
    return {"mine": float(accuracy_score(prediction.label_ids, classes))}


@pytest.mark.parametrize("preprocess", [None, lambda logits, labels: logits.argmax(-1)], ids=["logits", "preprocessed"])
@pytest.mark.parametrize("users", [None, users_metrics], ids=["alone", "with_users"])
def test_evaluate_adds_calibration(trainer: Make, preprocess: Any, users: Any) -> None:
    data = tiny_data(21, seed=1)
    run = trainer(
        kwargs={"eval_dataset": data, "compute_metrics": users, "preprocess_logits_for_metrics": preprocess},
        per_device_eval_batch_size=4,
    )
    metrics = run.evaluate()
    assert_scores(metrics, naive_scores(run, data))
    if users is not None:
        assert metrics["eval_mine"] == pytest.approx(metrics["eval_accuracy"])
    shape = run.predict(data).predictions.shape
    assert shape == ((21, CLASSES) if preprocess is None else (21,))


class BatchedAccuracy:
    """As the documentation of batch_eval_metrics has it."""

    def __init__(self) -> None:
        self.right: list[float] = []

    def __call__(self, prediction: Any, compute_result: bool = False) -> dict[str, float]:
        classes = prediction.predictions if prediction.predictions.ndim == 1 else prediction.predictions.argmax(-1)
        self.right += (classes == prediction.label_ids).float().tolist()
        if not compute_result:
            return {}
        result, self.right = {"mine": float(np.mean(self.right))}, []
        return result


@pytest.mark.parametrize("preprocess", [None, lambda logits, labels: logits.argmax(-1)], ids=["logits", "preprocessed"])
def test_evaluate_batch_by_batch_gives_the_same(trainer: Make, preprocess: Any) -> None:
    data = tiny_data(21, seed=1)
    kwargs = {
        "eval_dataset": data,
        "compute_metrics": BatchedAccuracy(),
        "preprocess_logits_for_metrics": preprocess,
    }
    run = trainer(kwargs=kwargs, per_device_eval_batch_size=4, batch_eval_metrics=True)
    for _ in range(2):  # nothing is left over from one evaluation to the next
        metrics = run.evaluate()
        assert_scores(metrics, naive_scores(run, data))
        assert metrics["eval_mine"] == pytest.approx(metrics["eval_accuracy"])


def test_evaluation_is_trainers_own(trainer: Make, config: Make) -> None:
    ours = trainer(challenge_share=1.0)
    plain = Trainer(
        model=ours.model,
        args=config(cls=TrainingArguments),
        eval_dataset=ours.eval_dataset,
        processing_class=tiny_tokenizer(),
    )
    assert ours.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
    assert np.array_equal(ours.predict(ours.eval_dataset).predictions, plain.predict(ours.eval_dataset).predictions)


def test_evaluate_without_labels_reports_no_calibration(trainer: Make) -> None:
    run = trainer(kwargs={"eval_dataset": tiny_data(6).remove_columns("labels")})
    assert "eval_ece" not in run.evaluate()


@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_evaluate_other_problems_reports_no_calibration(trainer: Make, problem: str) -> None:
    outputs = {"num_labels": 1} if problem == "regression" else {}
    run = trainer(model=tiny_bert(problem_type=problem, **outputs), kwargs={"eval_dataset": tiny_data(6, problem)})
    metrics = run.evaluate()
    assert math.isfinite(metrics["eval_loss"])
    assert "eval_ece" not in metrics


# --- bad input --------------------------------------------------------------------------------------------------------


def test_no_labels(trainer: Make) -> None:
    run = trainer(data=tiny_data().remove_columns("labels"))
    with pytest.raises(ChallengerError, match=r"no labels; expected one of 'labels'.*label_names"):
        run.train()


def test_label_outside_the_classes(trainer: Make) -> None:
    data = tiny_data(8).map(lambda row: {"labels": row["labels"] + 5})
    with pytest.raises(ChallengerError, match=r"Label [567] is outside the model's 3 classes \(0 to 2\).*num_labels"):
        trainer(data=data).train()


def test_label_outside_the_classes_of_a_head_of_ones_own(trainer: Make) -> None:
    class Own(torch.nn.Module):
        main_input_name = "input_ids"

        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.head = torch.nn.Embedding(45, 8), torch.nn.Linear(8, 3)

        def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
            logits = self.head((self.embedding(input_ids) * attention_mask.unsqueeze(-1)).mean(1))
            loss = None if labels is None else torch.nn.functional.cross_entropy(logits, labels)
            return {"loss": loss, "logits": logits}

    good, bad = tiny_data(8), tiny_data(8).map(lambda row: {"labels": 7})
    trainer(model=Own(), data=good).train()
    with pytest.raises(ChallengerError, match=r"Label 7 is outside the model's 3 classes"):
        trainer(model=Own(), data=bad, challenge_share=1.0).train()


def test_float_labels_for_classes(trainer: Make) -> None:
    data = tiny_data(8, "regression")
    with pytest.raises(
        ChallengerError, match=r"multi_label_classification with 3 outputs takes one number a row and output"
    ):
        trainer(data=data).train()


def test_nan_label(trainer: Make) -> None:
    data = tiny_data(8, "regression").map(lambda row: {"labels": math.nan})
    with pytest.raises(ChallengerError, match=r"labels of row 0 of the batch are NaN"):
        trainer(model=tiny_bert(num_labels=1), data=data).train()


def test_dataset_dict_in_place_of_a_split(trainer: Make) -> None:
    with pytest.raises(ChallengerError, match=r"splits 'train', 'test'.*Did you mean train_dataset=dataset\['train'\]"):
        trainer(data=DatasetDict(train=tiny_data(), test=tiny_data()))


def test_output_dir_that_cannot_be_written(trainer: Make, tmp_path: Any) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ChallengerError, match=r"output_dir=.*cannot be written.*Choose a folder"):
        trainer(output_dir=str(tmp_path / "file" / "out"))


def test_model_without_logits(trainer: Make) -> None:
    model = AutoModel.from_config(tiny_bert().config)
    for options in ({}, {"remove_unused_columns": False}):
        with pytest.raises(ChallengerError, match=r"BertModel is no classifier of whole inputs.*with a classification head"):
            trainer(model=model, **options).train()


def test_token_outside_the_vocabulary(trainer: Make) -> None:
    data = tiny_data(8).map(lambda row: {"input_ids": [2, 99, 3], "attention_mask": [1, 1, 1]})
    with pytest.raises(
        ChallengerError, match=r"'input_ids' holds 99, but the model embeds 45 tokens.*resize_token_embeddings"
    ):
        trainer(data=data).train()


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("challenge_attribution", "lpr", "is unknown. Choose one of: 'lrp'"),
        ("challenge_composite", "x", "is unknown. Choose one of: 'attnlrp'"),
        ("challenge_selection", "x", "is unknown. Choose one of: 'cues', 'named', 'sample'"),
        ("challenge_perturbation", "x", "is unknown. Choose one of: 'auto'"),
        ("challenge_share", 1.5, r"challenge_share=1.5 is outside \[0, 1\]"),
        ("challenge_share", math.nan, r"challenge_share=nan is outside \[0, 1\]"),
        ("challenge_rate", 0, r"challenge_rate=0 is outside \(0, 1\]"),
        ("challenge_rate", -0.1, r"challenge_rate=-0.1 is outside"),
        ("challenge_threshold", 2.0, r"challenge_threshold=2.0 is outside"),
        ("challenge_threshold", "a", r"challenge_threshold='a' is outside"),
        ("challenge_hide", "who", r"challenge_hide='who' is a string; a list of strings.*Did you mean \['who'\]"),
        ("challenge_keep", [3], r"challenge_keep=\[3\] is not a list of strings"),
        ("challenge_unit_size", 0, r"challenge_unit_size=0 is not a whole number"),
    ],
)
def test_options_out_of_range(config: Make, trainer: Make, option: str, value: Any, words: str) -> None:
    with pytest.raises(ChallengerError, match=words):
        config(**{option: value})
    run = trainer()
    setattr(run.args, option, value)  # as a search does
    with pytest.raises(ChallengerError, match=words):
        run.train()


def test_rows_without_units_stay_whole(trainer: Make, tokenizer: Any) -> None:
    rows = [{**tokenizer(text, return_token_type_ids=False), "labels": 0} for text in ("", "w1", "", "w2")]
    run = trainer(data=Dataset.from_list(rows), challenge_share=1.0, per_device_train_batch_size=4, max_steps=1)
    run.train()
    assert logged(run, "challenged_share") == [0]


def nan_relevance(model: Any, batch: Any, target: Any, composite: Any, main_input: Any = None) -> Tensor:
    relevance = torch.ones((*batch["input_ids"].shape, 1))
    relevance[0] = math.nan
    return relevance


def test_nan_relevance_stays_whole_with_one_warning(trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHODS, "lrp", nan_relevance)
    run = trainer(challenge_share=1.0, max_steps=3)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.train()
    said = [w for w in caught if "stayed whole" in str(w.message)]
    assert len(said) == 1
    assert issubclass(said[0].category, ChallengerWarning)
    assert logged(run, "rows_with_bad_relevance") == [1, 1, 1]
    assert logged(run, "challenged_share") == [7 / 8] * 3


# --- losses and models ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
@pytest.mark.parametrize(
    "options", [{}, {"return_dict": False}, {"problem_type": None}], ids=["declared", "tuples", "guessed"]
)
def test_problems(trainer: Make, problem: str, options: dict[str, Any]) -> None:
    outputs = {"num_labels": 1} if problem == "regression" else {}
    model = tiny_bert(**{"problem_type": problem, **outputs, **options})
    run = trainer(model=model, data=tiny_data(problem=problem), gradient_accumulation_steps=2, per_device_train_batch_size=4)
    run.train()
    assert all(math.isfinite(loss) for loss in logged(run, "loss"))
    assert max(logged(run, "challenged_share")) > 0


def test_labels_by_another_name(trainer: Make) -> None:
    class Renamed(type(tiny_bert())):  # type: ignore[misc]
        def forward(self, input_ids: Any = None, attention_mask: Any = None, target: Any = None, **kwargs: Any) -> Any:
            return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=target)

    data = tiny_data().rename_column("labels", "target")
    run = trainer(model=Renamed(tiny_bert().config), data=data, label_names=["target"])
    run.train()
    assert max(logged(run, "challenged_share")) > 0
    ours = trainer(data=tiny_data(8), max_steps=1, challenge_share=1.0)
    renamed = trainer(model=Renamed(tiny_bert().config), data=tiny_data(8).rename_column("labels", "target"), max_steps=1,
                      label_names=["target"], challenge_share=1.0)  # fmt: skip
    renamed.model.load_state_dict(ours.model.state_dict())
    ours.train()
    renamed.train()
    assert logged(ours, "loss") == logged(renamed, "loss")


def test_users_loss_gets_the_challenged_batch(trainer: Make) -> None:
    def loss(outputs: Any, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
        return torch.nn.functional.cross_entropy(outputs["logits"], labels, reduction="sum") / num_items_in_batch

    own = trainer(data=tiny_data(16), kwargs={"compute_loss_func": loss}, gradient_accumulation_steps=2)
    builtin = trainer(data=tiny_data(16), gradient_accumulation_steps=2)
    own.train()
    builtin.train()
    assert logged(own, "challenged_share") == logged(builtin, "challenged_share") == [0.5, 0.5]
    assert logged(own, "loss") == pytest.approx(logged(builtin, "loss"), rel=1e-5)


def test_label_smoothing_is_trainers(trainer: Make) -> None:
    run = trainer(data=tiny_data(8), label_smoothing_factor=0.3, challenge_share=1e-9, max_steps=1)
    batch = next(iter(run.get_train_dataloader()))
    logits = run.model(**{k: v for k, v in batch.items() if k != "labels"}).logits
    expected = torch.nn.functional.cross_entropy(logits, batch["labels"], label_smoothing=0.3)
    run.train()
    assert logged(run, "loss")[0] == pytest.approx(float(expected.detach()), rel=1e-5)


def test_ignored_rows_stay_whole_and_weigh_nothing(trainer: Make) -> None:
    data = tiny_data(8).map(lambda row, i: {"labels": -100 if i % 2 else row["labels"]}, with_indices=True)
    run = trainer(data=data, challenge_share=1.0, max_steps=1)
    run.train()
    assert logged(run, "challenged_share") == [0.5]
    unlabelled = trainer(data=tiny_data(8).map(lambda row: {"labels": -100}), challenge_share=1.0)
    before = {k: v.clone() for k, v in unlabelled.model.state_dict().items()}
    unlabelled.train()
    assert logged(unlabelled, "loss") == [0, 0]
    assert all(torch.equal(v, before[k]) for k, v in unlabelled.model.state_dict().items())


def test_micro_batch_without_labels_does_not_spoil_a_plain_step(trainer: Make) -> None:
    data = tiny_data(16).map(lambda row, i: {"labels": -100 if i < 8 else row["labels"]}, with_indices=True)
    run = trainer(data=data, challenge_share=0.0, gradient_accumulation_steps=8, per_device_train_batch_size=2, max_steps=1)
    run.train()
    assert all(parameter.isfinite().all() for parameter in run.model.parameters())


def test_sentence_pairs(trainer: Make) -> None:
    tokenizer = tiny_tokenizer(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    rows = [{**tokenizer("w1 w2 w3", "w4 w5"), "labels": i % 3} for i in range(8)]
    assert 1 in rows[0]["token_type_ids"]
    run = trainer(data=Dataset.from_list(rows), kwargs={"processing_class": tokenizer}, challenge_share=1.0)
    run.train()
    assert logged(run, "challenged_share") == [1, 1]


def test_nan_weights_end_the_run_before_the_step(trainer: Make) -> None:
    run = trainer()
    with torch.no_grad():
        run.model.classifier.weight[0, 0] = math.nan
    before = {k: v.clone() for k, v in run.model.state_dict().items()}
    with pytest.raises(ChallengerError, match=r"The loss is nan at step 0.*already hold NaN .*classifier.weight.*resume"):
        run.train()
    assert all(torch.equal(v, before[k]) or v.isnan().any() for k, v in run.model.state_dict().items())


# --- data -------------------------------------------------------------------------------------------------------------


def test_unused_columns_are_removed(trainer: Make) -> None:
    data = tiny_data(16).map(lambda row: {"text": "a string", "number": 1})
    run = trainer(data=data)
    run.train()
    assert max(logged(run, "challenged_share")) > 0


def test_group_by_length(trainer: Make) -> None:
    option = "group_by_length" if "group_by_length" in TrainingArguments.__dataclass_fields__ else "train_sampling_strategy"
    value: Any = True if option == "group_by_length" else "group_by_length"
    run = trainer(**{option: value})
    run.train()
    assert max(logged(run, "challenged_share")) > 0


def test_iterable_dataset(trainer: Make) -> None:
    streamed = trainer(data=tiny_data().to_iterable_dataset(), challenge_share=0.5)
    streamed.train()
    assert len(logged(streamed, "loss")) == 2
    assert max(logged(streamed, "challenged_share")) > 0


def test_eval_on_start_and_early_stopping(trainer: Make) -> None:
    from transformers import EarlyStoppingCallback

    run = trainer(
        eval_on_start=True, eval_strategy="steps", eval_steps=1, max_steps=50, learning_rate=0.0, save_strategy="steps",
        save_steps=1, load_best_model_at_end=True, metric_for_best_model="ece", save_total_limit=1,
        kwargs={"callbacks": [EarlyStoppingCallback(2)]},
    )  # fmt: skip
    run.train()
    assert "eval_ece" in run.state.log_history[0]
    assert run.state.global_step == 3  # the first, and two that are no better


# --- state ------------------------------------------------------------------------------------------------------------


def test_resume_is_an_unbroken_run(trainer: Make, tmp_path: Any) -> None:
    """Dropout on: torch's own random state and the challenge's choices both continue."""
    options = {"max_steps": 7, "save_strategy": "steps", "save_steps": 3, "num_train_epochs": 2}
    unbroken = trainer(model=tiny_bert(0.1), data=tiny_data(40), output_dir=str(tmp_path / "a"), **options)
    unbroken.train()
    resumed = trainer(model=tiny_bert(0.1, seed=5), data=tiny_data(40), output_dir=str(tmp_path / "b"), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-3"))
    for name in ("loss", "challenged_share"):
        assert logged(resumed, name) == logged(unbroken, name)
    for ours, theirs in zip(resumed.model.parameters(), unbroken.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_best_model_has_the_lowest_ece(trainer: Make) -> None:
    run = trainer(
        max_steps=6, learning_rate=0.05, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1,
        load_best_model_at_end=True, metric_for_best_model="ece",
    )  # fmt: skip
    run.train()
    seen = logged(run, "eval_ece")
    assert len(set(seen)) > 1
    assert run.state.best_metric == min(seen)
    assert run.evaluate()["eval_ece"] == pytest.approx(min(seen))


def test_greater_is_better() -> None:
    assert ChallengerConfig(metric_for_best_model="eval_ece").greater_is_better is False
    assert ChallengerConfig(metric_for_best_model="accuracy", load_best_model_at_end=False).greater_is_better is True
    assert ChallengerConfig(metric_for_best_model="ece", greater_is_better=True).greater_is_better is True


def test_warns_where_the_worst_model_would_be_kept(trainer: Make, config: Make) -> None:
    with pytest.warns(ChallengerWarning, match="'ece' is better when lower.*greater_is_better=False"):
        trainer(args=config(cls=TrainingArguments, metric_for_best_model="ece"))


def test_optuna_searches_challenge_options(trainer: Make) -> None:
    tried: list[float] = []

    def space(trial: Any) -> dict[str, Any]:
        return {"challenge_rate": trial.suggest_float("challenge_rate", 0.1, 0.9), "learning_rate": 1e-3}

    run = ChallengerTrainer(
        model_init=lambda: tiny_bert(),
        args=trainer(eval_strategy="steps", eval_steps=2).args,
        train_dataset=tiny_data(),
        eval_dataset=tiny_data(12, seed=1),
        processing_class=tiny_tokenizer(),
    )
    original = run._challenger_for

    def spy(model: Any, options: Any) -> Any:
        tried.append(options.challenge_rate)
        return original(model, options)

    run._challenger_for = spy  # type: ignore[method-assign]
    best = run.hyperparameter_search(
        hp_space=space, n_trials=2, direction="minimize", compute_objective=lambda metrics: metrics["eval_nll"]
    )
    assert len(set(tried)) == 2
    assert best.hyperparameters["challenge_rate"] in tried


def test_search_outside_the_range_is_refused(trainer: Make) -> None:
    run = ChallengerTrainer(
        model_init=lambda: tiny_bert(),
        args=trainer().args,
        train_dataset=tiny_data(),
        eval_dataset=tiny_data(12, seed=1),
        processing_class=tiny_tokenizer(),
    )
    with pytest.raises(ChallengerError, match=r"challenge_rate=2.0 is outside \(0, 1\]"):
        run.hyperparameter_search(hp_space=lambda trial: {"challenge_rate": 2.0}, n_trials=1, direction="minimize")


def test_training_twice_repeats_the_choices(trainer: Make) -> None:
    run = trainer(max_steps=1, learning_rate=0.0)
    seen = Trajectory()
    run.add_callback(seen)
    run.train()
    run.train()
    assert torch.equal(*seen.gradients)


def test_a_callback_may_change_options(trainer: Make) -> None:
    class Later(Trajectory):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            args.challenge_share = 1.0 if state.global_step >= 2 else 0.0

    run = trainer(max_steps=4, kwargs={"callbacks": [Later()]})
    run.train()
    assert logged(run, "challenged_share") == [1, 1]
