"""Data sets that cannot be trained on are told in one sentence, before anything is computed."""

import warnings
from typing import Any

import pytest
from datasets import Dataset
from tiny import leaky_data, tiny_bert, tiny_tokenizer

from hf_challenger import ChallengerConfig, ChallengerError, ChallengerTrainer, ChallengerWarning


def trainer_of(folder: Any, data: Any, **parts: Any) -> ChallengerTrainer:
    options = {"max_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True, **parts.pop("options", {})}
    return ChallengerTrainer(
        tiny_bert(num_labels=2),
        ChallengerConfig(str(folder), **options),
        train_dataset=data,
        processing_class=tiny_tokenizer(),
        **parts,
    )


def labelled(labels: list[Any], as_rows: bool = False) -> Any:
    rows = [{**row, "labels": label} for row, label in zip(leaky_data(len(labels)), labels, strict=True)]
    return rows if as_rows else Dataset.from_list(rows)


WRONG = [
    (["a", "b"] * 4, r"'labels' of train_dataset holds strings \('a'\).*class_encode_column\('labels'\)"),
    ([True, False] * 4, r"holds truth values \(True\).*Value\('int64'\)"),
    ([0, 1, None, 1], "holds missing values;.*Remove these rows"),
]


@pytest.mark.parametrize("as_rows", [False, True])
@pytest.mark.parametrize(("labels", "words"), WRONG)
def test_labels_that_are_no_numbers(tmp_path: Any, labels: list[Any], words: str, as_rows: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)  # nothing else is said before
        with pytest.raises(ChallengerError, match=words):
            trainer_of(tmp_path, labelled(labels, as_rows)).train()


def test_each_way_out_leads_out(tmp_path: Any) -> None:
    strings, truths, missing = (labelled(labels) for labels, _ in WRONG)
    from datasets import Value

    ways = [
        strings.class_encode_column("labels"),
        truths.cast_column("labels", Value("int64")),
        missing.filter(lambda row: row["labels"] is not None),
        missing.map(lambda row: {"labels": -100 if row["labels"] is None else row["labels"]}),
    ]
    for data in ways:
        assert trainer_of(tmp_path, data).train().global_step == 1


def test_texts_that_were_not_tokenized(tmp_path: Any) -> None:
    data = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    with pytest.raises(
        ChallengerError, match=r"train_dataset has the columns 'text', 'label', and no 'input_ids'.*tokenizer\("
    ):
        trainer_of(tmp_path, data).train()


def test_evaluation_sets_are_read_too_and_only_told_of_where_nothing_is_evaluated(tmp_path: Any) -> None:
    parts = {"eval_dataset": {"new": labelled(["a", "b"])}}
    with pytest.raises(ChallengerError, match="of eval_dataset 'new' holds strings"):
        trainer_of(tmp_path, labelled([0, 1]), options={"eval_strategy": "steps"}, **parts).train()
    with pytest.warns(ChallengerWarning, match="of eval_dataset 'new' holds strings"):
        trainer_of(tmp_path, labelled([0, 1]), **parts).train()


def test_what_a_collator_of_the_users_or_a_transform_makes_of_rows_is_theirs(tmp_path: Any) -> None:
    from transformers import default_data_collator

    data = labelled(["a", "b"])

    def encoded(rows: list[dict[str, Any]]) -> Any:
        return default_data_collator([{**row, "labels": "ab".index(row["labels"])} for row in rows])

    def transformed(rows: dict[str, list[Any]]) -> dict[str, list[Any]]:
        return {**rows, "labels": ["ab".index(label) for label in rows["labels"]]}

    assert trainer_of(tmp_path, data.select([0, 0]), data_collator=encoded).train().global_step == 1
    assert trainer_of(tmp_path, data.with_transform(transformed)).train().global_step == 1


@pytest.mark.parametrize("option", ["challenge_keep", "challenge_hide"])
def test_a_name_that_is_wrong_is_told_before_the_calibration_reads_rows(tmp_path: Any, option: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        with pytest.raises(ChallengerError, match="names 'nonsense'"):
            trainer_of(tmp_path, labelled([0, 1]), options={option: ["nonsense"]}).train()
