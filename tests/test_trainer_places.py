"""Cues of series in real training runs: resumed, alone in a batch, with gaps, of other lengths, under other names."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PatchTSTConfig, PatchTSTForClassification, TrainerCallback, TrainingArguments

from hf_challenger import (
    ChallengeOptions,
    Challenger,
    ChallengerConfig,
    ChallengerError,
    ChallengerTrainer,
    ChallengerWarning,
)
from hf_challenger.calibration import CalibrationCallback
from hf_challenger.challenge.places import PlaceMemory, places_in_one, places_taken_apart
from hf_challenger.small_models import series_model

LENGTH, CHANNELS = 24, 2


def shifted(rows: int = 96, base: float = 0.0, missing: float = 0.0, seed: int = 0) -> list[dict[str, Any]]:
    """Noise; the level of channel 0 tells the class, where it was observed."""
    generator, found = torch.Generator().manual_seed(seed), []
    for i in range(rows):
        x, seen = torch.randn(LENGTH, CHANNELS, generator=generator), torch.ones(LENGTH, CHANNELS)
        x[:, 0] += base + 4 * (i % 2) - 2
        if float(torch.rand(1, generator=generator)) < missing:
            x[:, 0], seen[:, 0] = 0, 0
        found.append({"past_values": x, "labels": i % 2} | ({"past_observed_mask": seen} if missing else {}))
    return found


class Standardised(nn.Module):
    """A model that takes series as they are, in raw units, and tells what was not observed."""

    main_input_name = "past_values"

    def __init__(self, base: float = 0.0) -> None:
        super().__init__()
        self.base, self.filters, self.head = base, nn.Conv1d(CHANNELS, 8, 3, padding=1), nn.Linear(8, 2)

    def forward(
        self, past_values: Tensor, past_observed_mask: Tensor | None = None, labels: Tensor | None = None
    ) -> dict[str, Any]:
        x = past_values - torch.tensor([self.base, 0.0])
        x = x if past_observed_mask is None else x * past_observed_mask
        logits = self.head(torch.relu(self.filters(x.transpose(1, 2))).mean(-1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return {"loss": loss, "logits": logits}


def trainer(folder: Path, data: Any = None, model: Any = None, callbacks: Any = (), **options: Any) -> Any:
    defaults = {
        "output_dir": str(folder), "use_cpu": True, "report_to": "none", "save_strategy": "no", "max_steps": 36,
        "per_device_train_batch_size": 16, "logging_steps": 12, "learning_rate": 1e-2, "disable_tqdm": True, "calibrate": False,
    }  # fmt: skip
    torch.manual_seed(0)
    return ChallengerTrainer(
        series_model("fcn-small", LENGTH, CHANNELS, num_labels=2) if model is None else model,
        ChallengerConfig(**{**defaults, **options}),
        train_dataset=shifted() if data is None else data,
        callbacks=list(callbacks),
    )


def named(run: Any) -> list[tuple[str, int, int]]:
    return [(cue.text, cue.label, cue.hidden_rows) for cue in run.cues]


def test_a_finished_run_that_is_resumed_names_its_cues(tmp_path: Path) -> None:
    whole = trainer(tmp_path, save_strategy="steps", save_steps=36)
    whole.train()
    resumed = trainer(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert {text for text, _, _ in named(whole)} == {"level of channel 0"}
    assert named(resumed) == named(whole)


@pytest.mark.parametrize("options", [{}, {"challenge_selection": "named", "challenge_hide": ["level of channel 0"]}])
def test_a_level_of_a_row_that_is_alone_stays_and_is_not_counted(tmp_path: Path, options: dict[str, Any]) -> None:
    run = trainer(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=16, **options)
    seen: list[Tensor] = []
    run.model.register_forward_pre_hook(
        lambda model, args, inputs: seen.append(inputs["past_values"]) if "labels" in inputs else None, with_kwargs=True
    )
    with pytest.warns(ChallengerWarning, match="per_device_train_batch_size to 2 or more") as caught:
        run.train()
    assert sum("per_device_train_batch_size" in str(w.message) for w in caught) == 1
    assert all(hidden == 0 for _, _, hidden in named(run))
    assert run._counter.total.challenged == run._counter.total.leaked == 0
    levels = torch.cat(seen)[:, :, 0].mean(1).abs()
    assert levels.min() > 1


def test_a_last_batch_of_one_row_is_nothing_to_warn_of(tmp_path: Path) -> None:
    run = trainer(tmp_path, data=shifted(97))
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        run.train()
    assert run.cues


@pytest.mark.parametrize("missing", [0.2, 0.4])
def test_a_level_that_is_missing_in_some_rows_is_found(tmp_path: Path, missing: float) -> None:
    run = trainer(tmp_path, data=shifted(missing=missing), model=Standardised(), max_steps=60)
    run.train()
    assert {text for text, _, _ in named(run)} == {"level of channel 0"}


@pytest.mark.parametrize("base", [1000.0, 100_000.0])
def test_a_level_in_raw_units_is_found(tmp_path: Path, base: float) -> None:
    run = trainer(tmp_path, data=shifted(base=base), model=Standardised(base), max_steps=60)
    run.train()
    assert any("level of channel 0" in text for text, _, _ in named(run))


class Set(TrainerCallback):
    """Changes options in mid-training, and looks at the cues a step later."""

    def __init__(self, **options: Any) -> None:
        self.options, self.before, self.after = options, [], []
        self.run: Any = None

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 30:
            self.before = named(self.run)
            for name, value in self.options.items():
                setattr(args, name, value)
        if state.global_step == 31:
            self.after = named(self.run)


def changed(folder: Path, **options: Any) -> Set:
    callback = Set(**options)
    callback.run = trainer(folder, callbacks=[callback])
    callback.run.train()
    return callback


def test_another_threshold_keeps_what_was_found(tmp_path: Path) -> None:
    found = changed(tmp_path, challenge_threshold=0.19)
    assert [cue[:2] for cue in found.after] == [cue[:2] for cue in found.before] != []
    assert found.run._challenger.memory.threshold == 0.19
    assert all(now > before for (*_, before), (*_, now) in zip(found.before, found.after, strict=True))


def test_units_of_another_size_begin_anew_and_say_so(tmp_path: Path) -> None:
    with pytest.warns(ChallengerWarning, match="Blocks have another size.*is forgotten"):
        found = changed(tmp_path, challenge_unit_size=6)
    assert found.before
    assert not found.after
    assert found.run._challenger.memory.layout == ((1, LENGTH, 6),)


def test_the_adapter_reads_what_the_model_does_not_take() -> None:
    x = torch.zeros(4, 48, CHANNELS)
    x[:, :12] = torch.randn(4, 12, CHANNELS)
    options = ChallengeOptions(challenge_selection="random", challenge_share=1.0, challenge_rate=0.5)
    batch = {"past_values": x, "lengths": torch.full((4,), 12)}
    challenger = Challenger(Standardised(), options)
    challenger.model.head.weight.data.zero_()
    challenger.model.head.bias.data.copy_(torch.tensor([9.0, 0.0]))  # sure of class 0
    found = challenger.challenge(batch, torch.zeros(4, dtype=torch.long), 0)
    assert found.drop_mask[:, :6].sum(1).tolist() == [3] * 4
    assert not found.drop_mask[:, 6:].any()
    assert set(found.inputs) == {"past_values"}


def test_rows_of_other_lengths_are_remembered_together() -> None:
    parts = []
    for places, labels in ((300, [0, 1]), (200, [1, -1])):
        contents = torch.arange(2 * places * 2, dtype=torch.float32).reshape(2, places, 2)
        shares = torch.full((2, places), 1 / places)
        parts.append((torch.tensor(labels), torch.arange(2), contents, shares))
    packed = [places_in_one(*part, 2) for part in parts]
    widest = max(rows.shape[1] for rows in packed)
    joined = torch.cat([nn.functional.pad(rows, (0, widest - rows.shape[1]), value=-1) for rows in packed])
    labels, keys, contents, shares, levels = places_taken_apart(joined)
    assert (labels.tolist(), keys.tolist(), levels) == ([0, 1, 1, -1], [0, 1, 0, 1], 2)
    for n, (_, _, held, parted) in enumerate(parts):
        assert torch.equal(contents[2 * n : 2 * n + 2, : held.shape[1]], held)
        assert torch.equal(shares[2 * n : 2 * n + 2, : held.shape[1]], parted)
    assert contents[2:, 200:].isnan().all()
    assert not shares[2:, 200:].any()
    PlaceMemory(0.2, 0.9).remember(labels, keys, contents, shares, levels)


@pytest.mark.parametrize("length", [96, 45, 24])
def test_a_named_place_of_a_chosen_size_may_lie_beyond_a_shorter_batch(length: int) -> None:
    options = ChallengeOptions(challenge_selection="named", challenge_hide=["steps 40 to 49"], challenge_unit_size=10)
    x = torch.randn(4, length, CHANNELS)
    found = Challenger(Standardised(), options).challenge({"past_values": x}, torch.zeros(4, dtype=torch.long), 0)
    moved = (found.inputs["past_values"] != x).any(-1).any(0).nonzero().flatten().tolist()
    assert moved == list(range(40, min(length, 50)))
    assert found.leaked.all() == (length > 40)


class ChannelsFirst(Standardised):
    def forward(self, past_values: Tensor, target: Tensor | None = None) -> dict[str, Any]:  # type: ignore[override]
        return super().forward(past_values.transpose(1, 2), labels=target)


@pytest.mark.parametrize("shown", ["trained", "given"])
def test_the_report_reads_rows_as_the_training_did(tmp_path: Path, shown: str) -> None:
    data = [{"past_values": row["past_values"].T.contiguous(), "target": row["labels"]} for row in shifted()]
    run = trainer(
        tmp_path, data=data, model=ChannelsFirst(), challenge_units="series_channels_first", label_names=["target"], max_steps=60
    )  # fmt: skip
    run.args.challenge_share = 0.0  # a model that leans on its cue
    run.train()
    report = run.cue_report(None if shown == "trained" else data[:60])
    assert report.labelled
    assert {cue.text for cue in report.leaned_on} == {"level of channel 0"}


def test_a_report_without_rows_to_draw_from_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    with pytest.raises(ChallengerError, match=r"data is generator.*Give a list or a Dataset"):
        run.cue_report(row for row in shifted())
    run.train_dataset = None
    with pytest.raises(ChallengerError, match="no data set to report on"):
        run.cue_report()


def test_a_threshold_that_nothing_reaches_is_refused() -> None:
    with pytest.raises(ChallengerError, match=r"challenge_threshold=1.0 is outside \[0, 1\)"):
        ChallengerConfig("out", challenge_threshold=1.0)


def marked(seed: int, leak: bool, rows: int = 96) -> list[dict[str, Any]]:
    """Channel 0 is quiet but for a large mark at its start, the class's; channel 1 tells the class by its frequency."""
    generator, found = torch.Generator().manual_seed(seed), []
    for i in range(rows):
        x = 0.1 * torch.randn(LENGTH, CHANNELS, generator=generator)
        phase = 6.28 * float(torch.rand(1, generator=generator))
        x[:, 1] += torch.sin(torch.arange(LENGTH) * (0.4 + 1.2 * (i % 2)) + phase)
        x[:4, 0] += (4 * (i % 2) - 2) * leak
        found.append({"past_values": x, "labels": i % 2})
    return found


def test_a_mark_that_sets_the_level_of_its_channel_is_told_from_the_rest_of_it(tmp_path: Path) -> None:
    """Beside the level, each window of the channel tells the class; as they are, only the marked one does."""
    run = trainer(tmp_path, data=marked(0, leak=True), max_steps=400, learning_rate=3e-3, challenge_unit_size=4)
    run.train()
    assert {text for text, _, _ in named(run)} <= {"steps 0 to 3", "level of channel 0", "level of channel 0 + steps 0 to 3"}
    assert any("steps 0 to 3" in text for text, _, _ in named(run))
    found = run.predict(marked(1, leak=False))
    assert (found.predictions.argmax(1) == found.label_ids).mean() > 0.9


def test_the_temperature_is_fitted_to_rows_without_named_leaks(tmp_path: Path) -> None:
    """The class is in the level alone, so that nothing is left to tell it by."""
    expected = {}
    for names in ([], ["level of channel 0"]):
        run = trainer(tmp_path, calibrate=True, challenge_selection="named" if names else "cues", challenge_hide=names)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.train()
        told = [str(w.message) for w in caught if "not calibrated" in str(w.message)]
        expected[bool(names)] = [
            log["expected_accuracy"] for log in run.state.log_history if "expected_accuracy" in log
        ] or told
    assert expected[False][0] > 0.7
    assert isinstance(expected[True][0], str) or expected[True][0] < 0.6


def test_patchtst_is_challenged_with_plain_arguments(tmp_path: Path) -> None:
    config = PatchTSTConfig(
        num_input_channels=CHANNELS, context_length=LENGTH, patch_length=4, patch_stride=4, d_model=16, num_hidden_layers=1,
        num_attention_heads=2, ffn_dim=32, num_targets=2, scaling=None,
    )  # fmt: skip
    data = [{"past_values": row["past_values"], "target_values": row["labels"]} for row in shifted()]
    args = TrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", max_steps=5, save_strategy="no", disable_tqdm=True
    )
    run = ChallengerTrainer(PatchTSTForClassification(config), args, train_dataset=data)
    run.remove_callback(CalibrationCallback)  # five steps teach nothing
    with warnings.catch_warnings():
        warnings.simplefilter("error", ChallengerWarning)
        run.train()
    assert run._counter.total.rows == 40
