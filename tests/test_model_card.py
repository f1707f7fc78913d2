"""The model card: what it says, that its metadata parses, and that the trainer's own facts get into it."""

import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from peft import LoraConfig, get_peft_model
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import leaky_data, tiny_bert, tiny_data, tiny_tokenizer
from transformers import BertForSequenceClassification
from transformers.modelcard import TrainingSummary

from hf_challenger import ChallengeOptions, ChallengerError, ChallengerTrainer
from hf_challenger.challenge import Cue
from hf_challenger.command_line import packaged_encoder
from hf_challenger.counts import Counts
from hf_challenger.model_card import Card
from hf_challenger.report.base_model import base_and_licence
from hf_challenger.report.card_text import what_was_hidden

mpl.use("agg")
from matplotlib.figure import Figure

pytestmark = pytest.mark.usefixtures("any_confidence")
GOLDEN = Path(__file__).with_name("golden_model_card.md")
PLAIN = {"eval_accuracy": 0.5, "eval_ece": 0.25, "eval_nll": 1.0, "eval_brier": 0.75, "eval_loss": 1.0}


def golden_card() -> Card:
    summary = TrainingSummary(
        model_name="bank-intents",
        language="en",
        license="apache-2.0",
        tags=["banking", "hf-challenger", "generated_from_trainer"],
        finetuned_from="sentence-transformers/all-MiniLM-L6-v2",
        tasks="text-classification",
        dataset="CLINC150 (banking | part)",
        dataset_tags="clinc/clinc_oos",
        dataset_metadata={"config": "small"},
        hyperparameters={"learning_rate": 0.0003, "seed": 42},
    )
    return Card(
        summary,
        ChallengeOptions(0.5, challenge_threshold=0.8, challenge_keep=["freeze"], challenge_perturbation="delete"),
        "tokens",
        steps=285,
        training_rows=300,
        results={"test": {"accuracy": 0.911, "ece": 0.031, "loss": 0.28, "macro|f1": 0.9}},
        baseline={"test": {"accuracy": 0.89, "ece": 0.068, "loss": 0.38}},
        reliability_diagram="pictures/reliability_diagram.png",
        heat_maps={"“freeze my account” → freeze_account": "pictures/heat_map_1.png"},
        versions={"hf_challenger": "0.1.0", "torch": "2.13.0"},
        cues=[Cue(1, 7, (7, 8, 9), 0.912, 0.8234, "via web | form", "billing", 412)],
        counts=Counts(4500, 617),
        temperature=1.25,
        expected_accuracy=0.9,
    )


def test_golden_card() -> None:
    """After a wanted change: ``python tests/test_model_card.py`` writes the golden file anew; look at the difference."""
    assert str(golden_card().render()) == GOLDEN.read_text()


def test_metadata_of_the_golden_card() -> None:
    data = yaml.safe_load(GOLDEN.read_text().split("---\n")[1])
    assert data["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert data["datasets"] == ["clinc/clinc_oos"]
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "text-classification")
    assert (data["language"], data["license"]) == ("en", "apache-2.0")
    assert {"hf-challenger", "banking"} <= set(data["tags"])
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"]["config"] == "small"
    assert result["dataset"]["split"] == "test"
    assert {m["type"]: m["value"] for m in result["metrics"]} == {
        "accuracy": 0.911,
        "ece": 0.031,
        "loss": 0.28,
        "macro|f1": 0.9,
    }


def read(run: Any) -> ModelCard:
    return ModelCard.load(Path(run.args.output_dir) / "README.md")


def rows_of(card: ModelCard) -> dict[str, list[str]]:
    """First cell → other cells, of every table row."""
    rows = [
        [cell.strip() for cell in line.strip("| ").split(" | ")] for line in card.text.splitlines() if line.startswith("|")
    ]
    return {row[0]: row[1:] for row in rows}


def test_card_of_a_run_tells_its_results_options_and_versions(trainer: Any) -> None:
    run = trainer(challenge_rate=0.3, challenge_perturbation="mask", seed=7)
    run.train()
    found = run.evaluate()
    run.create_model_card(
        language="en",
        license="mit",
        tags="mine",
        dataset="Tiny words",
        dataset_tags="me/tiny",
        finetuned_from="me/tiny-bert",
        baseline=PLAIN,
    )
    card = read(run)
    assert (card.data.language, card.data.license) == ("en", "mit")
    assert {"mine", "hf-challenger", "generated_from_trainer"} <= set(card.data.tags)
    assert (card.data.base_model, card.data.datasets) == ("me/tiny-bert", ["me/tiny"])
    assert card.data.pipeline_tag == "text-classification"
    values = {r.metric_type: r.metric_value for r in card.data.eval_results}
    assert values == {m: found[f"eval_{m}"] for m in ("accuracy", "ece", "nll", "brier", "loss")}
    assert {r.dataset_name for r in card.data.eval_results} == {"Tiny words"}
    rows = rows_of(card)
    assert rows["metric"] == ["eval, challenged", "eval, plain `Trainer`"]
    assert rows["ECE ↓"] == [f"{found['eval_ece']:.4f}", "0.2500"]
    assert rows["`challenge_rate`"] == ["0.3"]
    assert "`challenge_threshold`" not in rows
    for words in (
        "replaced by the mask token",
        "In 8 (50.0%) rows, 30% of the tokens were",
        "- seed: 7",
        "- training rows: 32",
        "- optimizer steps: 2",
    ):
        assert words in card.text
    for words in (f"- torch {torch.__version__}", "arXiv:2205.15094", "arXiv:2402.05602", "our own reading", "{{AttnLRP}:"):
        assert words in card.text
    assert "not trained yet" not in card.text
    assert str(run.args.output_dir) not in str(card)


def test_what_was_told_stays_for_later_cards(trainer: Any) -> None:
    run = trainer()
    run.evaluate()
    run.create_model_card("de", "mit", ["mine"], heat_maps=[Figure()], baseline=PLAIN)
    first = read(run)
    run.create_model_card(model_name="named")
    second = read(run)
    assert (first.data.language, first.data.license) == (second.data.language, second.data.license) == ("de", "mit")
    assert sorted(first.data.tags) == sorted(second.data.tags) == sorted({"mine", "hf-challenger", "generated_from_trainer"})
    assert "pictures/heat_map_1.png" in second.text
    assert rows_of(first) == rows_of(second)
    assert "\n# named\n" in second.text


def test_tags_of_an_existing_card_stay(trainer: Any) -> None:
    run = trainer()
    Path(run.args.output_dir, "README.md").write_text("---\ntags: [older]\n---\n# Mine\n")
    run.create_model_card()
    assert {"older", "hf-challenger"} <= set(read(run).data.tags)


def test_a_card_that_cannot_be_read_stays_as_it_is(trainer: Any) -> None:
    run = trainer()
    path = Path(run.args.output_dir, "README.md")
    path.write_text("---\ntags: [broken\n---\n# Mine\n")
    with pytest.raises(ChallengerError, match="its metadata cannot be read"):
        run.create_model_card()
    assert path.read_text().endswith("# Mine\n")


def test_a_temperature_is_told(trainer: Any) -> None:
    run = trainer()
    run.create_model_card()
    assert "Logits are divided" not in read(run).text
    run.model.config.calibration_temperature = 2.5
    run.create_model_card()
    assert "Logits are divided by 2.5" in read(run).text


def test_braces_of_the_citations_balance(trainer: Any) -> None:
    run = trainer()
    run.create_model_card()
    run.train()
    run.create_model_card()
    entries = re.findall(r"^@\w+\{.*?^\}", read(run).text, re.S | re.M)
    assert len(entries) == 2
    for entry in entries:
        assert entry.count("{") == entry.count("}")


def test_pictures_are_copied_beside_the_card(trainer: Any, tmp_path: Path) -> None:
    run = trainer()
    figure = Figure()
    figure.subplots().plot([0, 1], [0, 1])
    Figure().savefig(tmp_path / "any name.PNG")
    run.create_model_card(reliability_diagram=figure, heat_maps={"a [b]\nc": tmp_path / "any name.PNG"})
    text = read(run).text
    for place in ("pictures/reliability_diagram.png", "pictures/heat_map_1.png"):
        assert f"]({place})" in text
        assert Path(run.args.output_dir, place).read_bytes().startswith(b"\x89PNG")
    assert "![Relevance heat map: a (b) c]" in text


def test_a_card_without_pictures_and_results_claims_none(trainer: Any) -> None:
    run = trainer(challenge_share=0)
    run.create_model_card()
    card = read(run)
    assert card.data.eval_results is None
    for absent in ("![", "What its decisions rest on", "None", "plain `Trainer` column"):
        assert absent not in card.text
    for words in (
        "**It has not been trained yet.**",
        "not called before",
        "not named",
    ):
        assert words in card.text


def test_unknown_data_sets_are_called_unknown_and_nan_stays_out_of_the_metadata(trainer: Any) -> None:
    run = trainer(kwargs={"compute_metrics": lambda prediction: {"f1": float("nan"), "note": "text"}})
    run.evaluate()
    run.create_model_card()
    card = read(run)
    assert {(r.dataset_type, r.dataset_name) for r in card.data.eval_results} == {("unknown", "unknown")}
    assert "f1" not in {r.metric_type for r in card.data.eval_results}
    assert card.data.datasets is None
    assert rows_of(card)["`f1`"] == ["nan"]


def test_every_split_has_its_results(trainer: Any) -> None:
    run = trainer(kwargs={"eval_dataset": {"a": tiny_data(12), "b": tiny_data(8, seed=2)}})
    found = run.evaluate() | run.evaluate(tiny_data(16, seed=3), metric_key_prefix="test")
    run.create_model_card()
    rows = rows_of(read(run))
    assert rows["metric"] == ["eval_a", "eval_b", "test"]
    assert rows["Accuracy ↑"] == [f"{found[f'{s}_accuracy']:.4f}" for s in ("eval_a", "eval_b", "test")]
    assert {r.dataset_split for r in read(run).data.eval_results} == {"a", "b", "test"}


def test_results_are_those_of_the_best_checkpoint_if_it_was_loaded(trainer: Any) -> None:
    run = trainer(
        max_steps=8,
        learning_rate=0.05,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        greater_is_better=False,  # the worst, so that it is not the last
    )
    run.train()
    run.create_model_card()
    shown = rows_of(read(run))["NLL (nats) ↓"]
    logged = {log["step"]: log["eval_nll"] for log in run.state.log_history if "eval_nll" in log}
    assert run.state.best_global_step != 8
    assert shown == [f"{logged[run.state.best_global_step]:.4f}"]
    found = run.evaluate()  # of the loaded model
    assert shown == [f"{found['eval_nll']:.4f}"]
    run.create_model_card()
    assert rows_of(read(run))["NLL (nats) ↓"] == shown


def test_an_adapters_card_keeps_what_peft_wrote(trainer: Any) -> None:
    model = get_peft_model(tiny_bert(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"]))
    run = trainer(model=model)
    run.train()
    run.save_model()
    run.create_model_card()
    card = read(run)
    assert card.data.library_name == "peft"
    assert {"lora", "hf-challenger"} <= set(card.data.tags)
    assert card.data.pipeline_tag == "text-classification"
    assert "of the tokens were deleted" in card.text


CUE = Cue(1, 7, (7,), 0.91, 0.82, "via web form", "billing", 412)
DEFAULTS = {"challenge_threshold": 0.8, "challenge_rate": 0.25, "challenge_perturbation": "delete"}  # for tokens


@pytest.mark.parametrize(
    ("options", "counts", "cues", "words"),
    [
        (
            {"challenge_selection": "random"},
            Counts(80, 40),
            [],
            "In 40 (50.0%) rows, 25% of the tokens were deleted: drawn at random, whatever their relevance.",
        ),
        ({"challenge_selection": "top"}, Counts(80, 20), [], "the most relevant ones by LRP with the rules `attnlrp`."),
        ({}, Counts(80), [], "No cue was found, so that training was plain `Trainer`'s."),
        ({}, Counts(80, 24), [CUE], "The cues below were found. In 24 (30.0%) rows a cue was deleted."),
        ({}, Counts(80, 24), [CUE], "A cue holds over 80% of the relevance (LRP with the rules `attnlrp`) of the rows"),
        ({"challenge_perturbation": "swap"}, Counts(80, 24), [CUE], "a cue was swapped for another row's."),
        ({"challenge_keep": ["who"]}, Counts(80), [], "Left alone, as legitimate: `who`."),
        (
            {"challenge_hide": ["via app"]},
            Counts(80, 0, 60),
            [],
            "No cue was found. Named as a leak: `via app`. In all 60 (75.0%) rows with it, it was deleted.",
        ),
        ({"challenge_hide": ["a", "b"]}, Counts(80, 0, 60), [], "with one, it was exchanged for one another, or hidden."),
        ({"challenge_hide": ["via app"]}, Counts(80), [], "Named as a leak: `via app`. No training row held it."),
    ],
)
def test_the_sentences_follow_what_was_counted(options: dict[str, Any], counts: Counts, cues: Any, words: str) -> None:
    assert words in what_was_hidden(ChallengeOptions(**{**DEFAULTS, **options}), "tokens", counts, cues)


def test_only_options_that_acted_are_listed_with_their_values(trainer: Any) -> None:
    run = trainer(challenge_selection="cues")
    run.train()
    run.create_model_card()
    listed = {name: cells for name, cells in rows_of(read(run)).items() if name.startswith("`challenge_")}
    assert listed == {
        "`challenge_share`": ["0.5"],
        "`challenge_selection`": ["cues"],
        "`challenge_threshold`": ["0.8"],
        "`challenge_attribution`": ["lrp"],
        "`challenge_composite`": ["attnlrp"],
        "`challenge_perturbation`": ["delete"],
    }


class OwnLoss(ChallengerTrainer):
    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss


@pytest.mark.parametrize(
    ("problem", "cls", "options", "words"),
    [
        (
            "single_label_classification",
            ChallengerTrainer,
            {"challenge_share": 0},
            "`challenge_share=0`: training was plain",
        ),
        ("single_label_classification", OwnLoss, {}, "No batch of this training passed through the challenge of `OwnLoss`"),
        ("multi_label_classification", ChallengerTrainer, {}, "This model or task cannot be challenged"),
        ("regression", ChallengerTrainer, {}, "This model or task cannot be challenged"),
    ],
)
@pytest.mark.filterwarnings("ignore:Training goes on as with Trainer", "ignore:Nothing was challenged")
def test_a_run_that_was_not_challenged_claims_nothing(
    problem: str, cls: Any, options: dict[str, Any], words: str, config: Any, tmp_path: Path
) -> None:
    model = tiny_bert(problem_type=problem, num_labels=1 if problem == "regression" else 3)
    defaults = {"challenge_selection": "cues", "challenge_share": 0.75}
    parts = {"train_dataset": tiny_data(problem=problem), "processing_class": tiny_tokenizer()}
    run = cls(model, config(**{**defaults, **options}), **parts)
    run.train()
    run.create_model_card()
    text = read(run).text
    assert words in text
    for absent in ("`challenge_selection`", "A cue holds", "achtibat2024", "Hiding relevant inputs", "## Calibration"):
        assert absent not in text


def test_counts_go_on_after_a_resume_and_need_no_log(trainer: Any) -> None:
    whole = trainer(max_steps=8, logging_steps=500, save_strategy="steps", save_steps=4)
    whole.train()
    whole.create_model_card()
    assert "Counts are of 64 training rows" in read(whole).text
    resumed = trainer(max_steps=8, logging_steps=500)
    resumed.train(resume_from_checkpoint=str(Path(whole.args.output_dir, "checkpoint-4")))
    assert resumed._counter.total == whole._counter.total
    assert whole._counter.total.challenged > 0


def test_base_model_and_licence_of_local_encoders(trainer: Any, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    tiny_bert().save_pretrained(encoder)
    run = trainer(model=BertForSequenceClassification.from_pretrained(encoder))
    run.create_model_card()
    assert (read(run).data.base_model, read(run).data.license) == (None, None)
    (encoder / "README.md").write_text("---\nlicense: mit\nbase_model: me/bert\n---\n# Mine\n")
    run.create_model_card()
    assert (read(run).data.base_model, read(run).data.license) == ("me/bert", "mit")
    assert "[me/bert](https://huggingface.co/me/bert), fine-tuned on 32 rows" in read(run).text
    run.create_model_card(license="apache-2.0", finetuned_from="me/other")
    assert (read(run).data.base_model, read(run).data.license) == ("me/other", "apache-2.0")


def test_base_model_and_licence_of_the_packaged_encoder_and_of_the_hubs_cache(tmp_path: Path) -> None:
    assert base_and_licence(packaged_encoder()) == ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0")
    snapshot = tmp_path / "models--me--bert" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    assert base_and_licence(str(snapshot)) == ("me/bert", None)
    assert base_and_licence("not a/name/of the hub") == (None, None)


def test_results_from_before_the_temperature_are_called_so(trainer: Any) -> None:
    run = trainer(calibrate=True, max_steps=60, eval_strategy="steps", eval_steps=30)
    run.train()
    run.create_model_card()
    assert "The results of eval below were measured before that" in read(run).text
    run.evaluate()
    run.create_model_card()
    assert "measured before that" not in read(run).text


def test_the_card_and_tensorboard_show_the_cue_report(config: Any, monkeypatch: Any, tmp_path: Path) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    options = {"challenge_selection": "cues", "challenge_share": 0.01}
    args = config(**options, num_train_epochs=10, max_steps=-1, logging_steps=30, report_to="tensorboard")
    run = ChallengerTrainer(tiny_bert(num_labels=2), args, train_dataset=leaky_data(), processing_class=tiny_tokenizer())
    run.train()
    report = run.cue_report()
    run.create_model_card()
    assert report.leaned_on
    assert f"### Without its cues\n\n{report.summary}" in read(run).text
    board = EventAccumulator(str(tmp_path / "board")).Reload()
    assert {"train/cues/text_summary", "eval/cue_report/text_summary"} <= set(board.Tags()["tensors"])
    (shown,) = board.Tensors("train/cues/text_summary")
    assert run.cues[0].text in shown.tensor_proto.string_val[0].decode()


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"baseline": {"test_ece": 0.1}}, "baseline holds test_ece, but the card reports eval_accuracy, eval_ece"),
        ({"heat_maps": "map.png"}, r"Did you mean heat_maps=\[…\]\?"),
        ({"reliability_diagram": 3.5}, "reliability_diagram holds a float; expected a matplotlib figure"),
        ({"heat_maps": ["absent.png"]}, "heat_maps: 'absent.png' is no file. Pass a matplotlib figure"),
        ({"reliability_diagram": __file__}, "is not one of .png"),
    ],
)
def test_what_cannot_be_shown_is_refused(told: dict[str, Any], words: str, trainer: Any) -> None:
    run = trainer()
    run.evaluate()
    run.create_model_card(language="en")
    before = str(read(run))
    with pytest.raises(ChallengerError, match=words):
        run.create_model_card(**told)
    assert str(read(run)) == before
    run.create_model_card()  # what was refused is not kept
    assert str(read(run)) == before


def test_the_metadata_is_plain_json(trainer: Any) -> None:
    run = trainer()
    run.evaluate()
    run.create_model_card()
    json.dumps(read(run).data.to_dict(), allow_nan=False)


@pytest.mark.parametrize("calibrate", [True, False])
def test_the_card_says_how_the_model_was_calibrated(calibrate: bool, trainer: Any) -> None:
    run = trainer(calibrate=calibrate, max_steps=60)
    run.train()
    run.create_model_card()
    assert ("the mean confidence on training rows is" in str(read(run))) == calibrate


if __name__ == "__main__":
    GOLDEN.write_text(str(golden_card().render()))
