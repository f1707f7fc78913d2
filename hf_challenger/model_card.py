"""The model card: what was trained, how it was challenged, how good and how well calibrated it came out."""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import Trainer
from transformers.modelcard import TASK_MAPPING, TrainingSummary
from yaml import YAMLError

from .calibration import BINS
from .challenge import ChallengeOptions, Cue
from .challenge.selection import CUES
from .counts import Counts
from .errors import ChallengerError
from .inputs import BY_INPUT
from .inputs.main_input import main_input_of
from .peft_base import without_peft
from .report.base_model import base_and_licence
from .report.card_text import (
    acted,
    calibration_text,
    cue_report_text,
    cues_table,
    effective,
    one_line,
    options_table,
    table,
    what_was_hidden,
)
from .report.cue_results import CueReport
from .version import __version__

TEMPLATE = Path(__file__).with_name("model_card_template.md")
PICTURES = "pictures"  # folder beside README.md
SHOWN_BY_MARKDOWN = (".png", ".jpg", ".jpeg", ".svg", ".webp", ".gif")
PACKAGES = ("transformers", "torch", "accelerate", "captum", "datasets", "tokenizers")

ORDINARY = "The saved model is an ordinary transformers model: loading it takes no `hf_challenger`."

# evaluate() logs these beside the metrics.
SPEED = ("runtime", "samples_per_second", "steps_per_second", "jit_compilation_time", "model_preparation_time")

# metric: (short name for the table, which way is better, full name for the metadata)
METRICS = {
    "accuracy": ("Accuracy", "↑", "Accuracy"),
    "ece": ("ECE", "↓", f"Expected calibration error ({BINS} bins)"),
    "nll": ("NLL (nats)", "↓", "Negative log-likelihood (nats)"),
    "brier": ("Brier", "↓", "Brier score"),
    "loss": ("Loss", "↓", "Loss"),
}


@dataclass
class Card:
    """What a card says.

    Attributes:
        summary: transformers' own account of the run: name, base model, data set, hyperparameters.
        options: how it was challenged, with the values that acted.
        units: the adapter's name, as ``challenge_units`` takes it.
        counts: what was hidden in training.
        why_not: one sentence, where nothing could be hidden; empty else.
        steps: optimizer steps so far.
        training_rows: size of the training set, None if unknown.
        results: split → metric → value, as ``evaluate()`` logged them.
        baseline: the same of a model that was trained without the challenge; may be empty.
        reliability_diagram: path of a picture, relative to the card.
        heat_maps: caption → path of a picture, relative to the card.
        versions: package → version.
        temperature: what :func:`~hf_challenger.calibration.apply_temperature` folded into the model; None: nothing.
        expected_accuracy: to which a temperature was fitted after training; None: none was.
        measured_before: splits whose results are those of the model without the temperature.
        cues: what the model was found to lean on.
        cue_report: what it does without them, if that was measured.
        loading: one sentence on what loading the saved model takes.
    """

    summary: TrainingSummary
    options: ChallengeOptions
    units: str
    steps: int
    counts: Counts = field(default_factory=Counts)
    why_not: str = ""
    training_rows: int | None = None
    results: dict[str, dict[str, float]] = field(default_factory=dict)
    baseline: dict[str, dict[str, float]] = field(default_factory=dict)
    reliability_diagram: str | None = None
    heat_maps: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    temperature: float | None = None
    expected_accuracy: float | None = None
    measured_before: list[str] = field(default_factory=list)
    cues: list[Cue] = field(default_factory=list)
    cue_report: CueReport | None = None
    loading: str = ORDINARY

    def render(self) -> ModelCard:
        """The card, with its metadata."""
        return ModelCard.from_template(
            self._metadata(),
            template_path=str(TEMPLATE),
            title=self.summary.model_name,
            origin=self._origin(),
            by_cues=self.options.challenge_selection == CUES,
            hides=not self.why_not,
            has_hidden=self.counts.challenged + self.counts.leaked > 0,
            loading=self.loading,
            uses_lrp=not self.why_not and "challenge_composite" in acted(self.options),
            hidden=self.why_not or what_was_hidden(self.options, self.units, self.counts, self.cues),
            cues_table=cues_table(self.cues),
            cue_report=cue_report_text(self.cue_report) if self.cue_report is not None else "",
            options_table=options_table(self.options),
            calibration=self._calibration(),
            results_table=results_table(self.results, self.baseline),
            has_baseline=any(self.baseline.values()),
            reliability_diagram=self.reliability_diagram,
            heat_maps=self.heat_maps,
            steps=self.steps,
            training_rows=self.training_rows,
            hyperparameters=self.summary.hyperparameters or {},
            versions=self.versions,
        )

    def _calibration(self) -> str:
        """Empty for tasks whose calibration is not measured."""
        if self.temperature is not None:
            return calibration_text(self.temperature, self.expected_accuracy, self.measured_before)
        measured = any("ece" in found for found in self.results.values())
        return "No temperature was fitted: confidences are as trained." if measured and self.steps else ""

    def _metadata(self) -> ModelCardData:
        s = self.summary
        tasks = _listed(s.tasks)
        return ModelCardData(
            language=s.language,
            license=s.license,
            library_name="transformers",
            pipeline_tag=tasks[0] if tasks else None,
            tags=_listed(s.tags),
            base_model=s.finetuned_from or None,
            datasets=_listed(s.dataset_tags) or None,
            metrics=list(dict.fromkeys(m for found in self.results.values() for m in found if m != "loss")) or None,
            model_name=s.model_name,
            eval_results=self._eval_results() or None,
        )

    def _eval_results(self) -> list[EvalResult]:
        """One a split and metric; the Hub wants names for task and data set, so that unknown ones are called unknown."""
        s = self.summary
        tags, names, extra = _listed(s.dataset_tags), _listed(s.dataset), _listed(s.dataset_metadata)
        return [
            EvalResult(
                task_type=next(iter(_listed(s.tasks)), "other"),
                dataset_type=tags[0] if tags else "unknown",
                dataset_name=names[0] if names else "unknown",
                dataset_config=(extra[0] if extra else {}).get("config"),
                dataset_split=split.removeprefix("eval_"),
                metric_type=metric,
                metric_name=METRICS[metric][2] if metric in METRICS else metric,
                metric_value=value,
            )
            for split, metrics in self.results.items()
            for metric, value in metrics.items()
            if math.isfinite(value)
        ]

    def _origin(self) -> str:
        base, names = self.summary.finetuned_from, _listed(self.summary.dataset)
        if base:
            start = f"[{base}](https://huggingface.co/{base}), fine-tuned"
        else:  # None: Trainer found a folder; "": no name at all, as of a model made from a config
            start = "A model, trained" if base == "" else "A model from a local folder, fine-tuned"
        rows = f"{self.training_rows} rows of " if self.training_rows is not None else ""
        return f"{start} on {rows}{' and '.join(names) if names else 'a data set that was not named'}."


# --- from a trainer -----------------------------------------------------------------------------------------------------


def write_model_card(trainer: Trainer, told: dict[str, Any]) -> Path:
    """Write ``README.md`` into the trainer's ``output_dir``, pictures beside it.

    Args:
        trainer: at any time; results are those of its evaluations so far.
        told: what :meth:`ChallengerTrainer.create_model_card` was told.
    """
    folder = Path(str(trainer.args.output_dir))
    path = folder / "README.md"
    told = dict(told)
    pictures = {name: told.pop(name, None) for name in ("reliability_diagram", "heat_maps")}
    baseline = told.pop("baseline", None)
    try:
        existing = ModelCard.load(path).data if path.exists() else None
    except (YAMLError, ValueError) as error:
        raise ChallengerError(
            f"{path} is there, but its metadata cannot be read ({str(error).splitlines()[0]}). Mend or move that file; it was"
            " left as it is."
        ) from error
    tags = [*_listed(told.pop("tags", None)), *_listed(existing.tags if existing else None), "hf-challenger"]
    if not hasattr(trainer.model, "config"):
        told.setdefault("finetuned_from", "")  # from_trainer would look for it in the config
    origin = told.get("finetuned_from") or str(getattr(getattr(trainer.model, "config", None), "_name_or_path", "") or "")
    base, licence = base_and_licence(origin) if origin else (None, None)
    if base is not None:
        told.setdefault("finetuned_from", base)
    if licence is not None:
        told.setdefault("license", licence)
    told.setdefault("tasks", _task_of(trainer.model))
    summary = TrainingSummary.from_trainer(trainer, tags=list(dict.fromkeys(tags)), **told)
    if "optimizer" in (summary.hyperparameters or {}):  # transformers prints the name of its enumeration
        summary.hyperparameters["optimizer"] = _optimizer(trainer.args)
    results, before = evaluations(trainer), evaluated_before_calibration(trainer)
    options, challenger = ChallengeOptions.of(trainer.args), getattr(trainer, "_challenger", None)
    counter = getattr(trainer, "_counter", None)
    counts = Counts() if counter is None else counter.total
    fitted = [log["expected_accuracy"] for log in trainer.state.log_history if "calibration_temperature" in log]
    card = Card(
        summary,
        options if challenger is None else effective(options, challenger),
        _units_name(trainer.model, options),
        trainer.state.global_step,
        counts,
        why_not_challenged(trainer, counts),
        len(trainer.train_dataset) if hasattr(trainer.train_dataset, "__len__") else None,  # type: ignore[arg-type]
        results,
        compared(results, baseline),
        **placed(folder, **pictures),
        versions={"hf_challenger": __version__, "python": platform.python_version(), **{p: version(p) for p in PACKAGES}},
        temperature=getattr(getattr(trainer.model, "config", None), "calibration_temperature", None),
        expected_accuracy=fitted[-1] if fitted else None,
        measured_before=[split for split in results if split in before],
        cues=getattr(trainer, "cues", []),
        cue_report=getattr(trainer, "_cue_report", None),
        loading=loading_of(without_peft(trainer.model)),
    )
    folder.mkdir(parents=True, exist_ok=True)
    rendered = card.render()
    _save(rendered, path)
    if existing is not None and existing.get("library_name") == "peft":
        trainer.accelerator.unwrap_model(trainer.model).create_or_update_model_card(str(folder))
        peft = ModelCard.load(path)  # which has tags of its own in place of ours
        tags = [*_listed(peft.data.get("tags")), *_listed(rendered.data.get("tags"))]
        peft.data["tags"] = list(dict.fromkeys(tags))
        _save(peft, path)
    return path


def _save(card: ModelCard, path: Path) -> None:
    """Never half a card, whatever happens meanwhile."""
    whole = path.with_name("_README.md")  # names with _ are never uploaded
    card.save(whole)
    os.replace(whole, path)


def why_not_challenged(trainer: Any, counts: Counts) -> str:
    """One sentence on why nothing could be hidden in training; empty where it could be."""
    if getattr(trainer.args, "challenge_share", None) == 0:
        return "`challenge_share=0`: training was plain `Trainer`'s."
    if getattr(trainer, "_trains_as_trainer", False):
        return "This model or task cannot be challenged: training was plain `Trainer`'s."
    if not counts.rows:
        return f"No batch of this training passed through the challenge of `{type(trainer).__name__}`: nothing was hidden."
    return ""


def evaluations(trainer: Trainer) -> dict[str, dict[str, float]]:
    """Split → metric → value: the last evaluation of each split, or that of the best checkpoint where that one was loaded."""
    logs, state = trainer.state.log_history, trainer.state
    trained = max((i for i, log in enumerate(logs) if "total_flos" in log), default=len(logs))
    best = state.best_global_step if trainer.args.load_best_model_at_end and trained < len(logs) else None
    found: dict[str, dict[str, float]] = {}
    for i, log in enumerate(logs):
        if "total_flos" in log or (best and i < trained and log.get("step") != best):
            continue
        for split in [key.removesuffix("_runtime") for key in log if key.endswith("_runtime")]:
            metrics = {key.removeprefix(f"{split}_"): value for key, value in log.items() if key.startswith(f"{split}_")}
            numbers = {m: float(v) for m, v in metrics.items() if isinstance(v, (int, float)) and m not in SPEED}
            if numbers:
                found[split] = dict(sorted(numbers.items(), key=_rank))
    return found


def evaluated_before_calibration(trainer: Trainer) -> set[str]:
    """Splits whose last evaluation came before the temperature was fitted."""
    last: dict[str, int] = {}
    fitted = -1
    for i, log in enumerate(trainer.state.log_history):
        fitted = i if "calibration_temperature" in log else fitted
        last |= {key.removesuffix("_runtime"): i for key in log if key.endswith("_runtime")}
    return {split for split, i in last.items() if i < fitted}


def _optimizer(args: Any) -> str:
    name = str(getattr(args.optim, "value", args.optim))
    if "adam" in name:
        name += f", betas ({args.adam_beta1}, {args.adam_beta2}), epsilon {args.adam_epsilon}"
    return f"{name}, {args.optim_args}" if args.optim_args else name


def compared(results: dict[str, dict[str, float]], baseline: Mapping[str, Any] | None) -> dict[str, dict[str, float]]:
    """The part of ``baseline``, whose keys are those of ``evaluate()``, that stands beside ``results``."""
    if not baseline:
        return {}
    found = {
        split: {
            m: float(baseline[f"{split}_{m}"]) for m in metrics if isinstance(baseline.get(f"{split}_{m}"), (int, float))
        }
        for split, metrics in results.items()
    }
    if not any(found.values()):
        expected = [f"{split}_{m}" for split, metrics in results.items() for m in metrics]
        raise ChallengerError(
            f"baseline holds {', '.join(map(str, baseline))}, but the card reports {', '.join(expected) or 'nothing so far'}."
            " Call evaluate() first, with the same metric_key_prefix as for the baseline, and pass the dictionary that the"
            " plain Trainer's evaluate() returned."
        )
    return found


def placed(folder: Path, reliability_diagram: Any, heat_maps: Any) -> dict[str, Any]:
    """Copies of the pictures under ``folder``, where they are uploaded with the card; the paths relative to it."""
    if heat_maps is not None and not isinstance(heat_maps, Mapping):
        if isinstance(heat_maps, (str, os.PathLike)) or not isinstance(heat_maps, Iterable):
            raise ChallengerError(
                f"heat_maps is a {type(heat_maps).__name__}; expected a list of pictures, or a dictionary from captions to"
                " pictures. Did you mean heat_maps=[…]?"
            )
        heat_maps = {f"Example {i}": picture for i, picture in enumerate(heat_maps, 1)}
    return {
        "reliability_diagram": None
        if reliability_diagram is None
        else _place(folder, reliability_diagram, "reliability_diagram", "reliability_diagram"),
        "heat_maps": {
            one_line(caption).replace("[", "(").replace("]", ")"): _place(folder, picture, f"heat_map_{i}", "heat_maps")
            for i, (caption, picture) in enumerate((heat_maps or {}).items(), 1)
        },
    }


def _place(folder: Path, picture: Any, stem: str, argument: str) -> str:
    (folder / PICTURES).mkdir(parents=True, exist_ok=True)
    if hasattr(picture, "savefig"):
        place = folder / PICTURES / f"{stem}.png"
        picture.savefig(place, bbox_inches="tight", dpi=150)
        return place.relative_to(folder).as_posix()
    if not isinstance(picture, (str, os.PathLike)):
        raise ChallengerError(
            f"{argument} holds a {type(picture).__name__}; expected a matplotlib figure, or the path of a picture."
        )
    source = Path(picture)
    if source.suffix.lower() not in SHOWN_BY_MARKDOWN or not source.is_file():
        what = "is no file" if not source.is_file() else f"is not one of {', '.join(SHOWN_BY_MARKDOWN)}"
        raise ChallengerError(f"{argument}: {str(picture)!r} {what}. Pass a matplotlib figure, or the path of a picture.")
    place = folder / PICTURES / f"{stem}{source.suffix.lower()}"
    if source.resolve() != place.resolve():
        shutil.copyfile(source, place)
    return place.relative_to(folder).as_posix()


def loading_of(model: Any) -> str:
    """The card's sentence on loading."""
    kind = type(model)
    if kind.__module__.startswith("transformers."):
        return ORDINARY
    return f"Its class is `{kind.__name__}` of `{kind.__module__}`, and loading it takes that module."


def _task_of(model: Any) -> str | None:
    bare = without_peft(model)
    tasks: Mapping[str, Any] = TASK_MAPPING
    return next((task for task, classes in tasks.items() if type(bare).__name__ in classes.values()), None)


def _units_name(model: Any, options: ChallengeOptions) -> str:
    bare = without_peft(model)
    name = options.challenge_units
    name = BY_INPUT.get(main_input_of(bare), "units") if name == "auto" else name
    return "series" if name.startswith("series") else name


# --- words and tables ---------------------------------------------------------------------------------------------------


def results_table(results: dict[str, dict[str, float]], baseline: dict[str, dict[str, float]]) -> str:
    """A markdown row a metric, a column a split, with the baseline's to the right of it."""
    metrics = sorted(dict.fromkeys(m for found in results.values() for m in found), key=lambda m: _rank((m, 0)))
    columns: list[tuple[str, dict[str, float]]] = []
    for split, values in results.items():
        columns.append((f"{split}, challenged" if baseline.get(split) else split, values))
        if baseline.get(split):
            columns.append((f"{split}, plain `Trainer`", baseline[split]))
    rows = []
    for metric in metrics:
        name = " ".join(METRICS[metric][:2]) if metric in METRICS else f"`{metric}`"
        rows.append((name, *(f"{values[metric]:.4f}" if metric in values else "" for _, values in columns)))
    return table(("metric", *(name for name, _ in columns)), rows) if rows else ""


def _rank(item: tuple[str, Any]) -> int:
    return list(METRICS).index(item[0]) if item[0] in METRICS else len(METRICS)


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [v for v in value if v is not None] if isinstance(value, (list, tuple)) else [value]
