"""No training step waits for the device beyond Trainer's own waits, and errors that need values come all the same.

Without a GPU, tensors of a subclass stand for those on a device. Reading a value of one, or making a shape of values, counts
as a wait. On a GPU, torch's own sync debug mode counts them.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from tiny import leaky_data, tiny_bert, tiny_tokenizer
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback

from hf_challenger import ChallengerConfig, ChallengerError, ChallengerTrainer

LAST = 60  # steps, of which the first find the cues
SEED = 1


class Waits(TorchDispatchMode):
    """Counts operations of the device tensor that is being handled: values read, shapes that depend on values."""

    OPERATIONS = (
        "_local_scalar_dense",
        "nonzero",
        "is_nonzero",
        "equal",
        "masked_select",
        "_unique2",
        "unique_dim",
        "bincount",
    )

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.split("::")[1]
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in self.OPERATIONS or by_mask:
            OnDevice.waits[name] += 1
        return func(*args, **(kwargs or {}))


class OnDevice(Tensor):
    """Stands for a tensor on an accelerator; whatever is computed from one is one too."""

    waits: ClassVar[Counter[str]] = Counter()
    READS = (Tensor.tolist, Tensor.numpy, Tensor.cpu, Tensor.__array__)

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in cls.READS:
            cls.waits[func.__name__] += 1
            with torch._C.DisableTorchFunctionSubclass():
                found = func(*args, **(kwargs or {}))
                return found.as_subclass(Tensor) if isinstance(found, Tensor) else found  # a copy on the host
        with Waits():
            return super().__torch_function__(func, types, args, kwargs or {})


class Watch(TrainerCallback):
    """Waits of each step, whether its rows were attributed, and whether a cue was known."""

    def __init__(self) -> None:
        self.steps: list[tuple[dict[str, int], bool, int]] = []
        self.trainer: Any = None
        self.attributed = False

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        OnDevice.waits.clear()
        self.attributed = False
        if not state.global_step:
            model.register_forward_pre_hook(self._look)

    def _look(self, module: Any, args: Any) -> None:
        self.attributed |= not module.training

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        known = getattr(self.trainer, "_challenger", None)
        self.steps.append((dict(OnDevice.waits), self.attributed, 0 if known is None else known.memory.number))


def watched(folder: Path, cls: type[Trainer], **options: Any) -> Watch:
    pad, watch = DataCollatorWithPadding(tiny_tokenizer()), Watch()
    defaults = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "logging_steps": 1000, "disable_tqdm": True}
    defaults |= {"learning_rate": 3e-3, "challenge_threshold": 0.5, "calibrate": False, "seed": SEED}
    run = cls(
        tiny_bert(seed=SEED, num_labels=2),
        ChallengerConfig(str(folder), per_device_train_batch_size=16, max_steps=LAST, **{**defaults, **options}),
        train_dataset=leaky_data(seed=11),
        processing_class=tiny_tokenizer(),
        data_collator=lambda rows: {k: v.as_subclass(OnDevice) for k, v in pad(rows).items()},
        callbacks=[watch],
    )
    watch.trainer = run
    run.train()
    return watch


@pytest.fixture(autouse=True)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.node.get_closest_marker("gpu"):
        yield
        return
    for module in ("value_checks", "trainer", "challenge.challenger", "inputs.blocks", "attribution.targets"):
        monkeypatch.setattr(f"hf_challenger.{module}.on_host", lambda tensor: not isinstance(tensor, OnDevice))
    monkeypatch.setattr("hf_challenger.value_checks.to_host", lambda values: (values.as_subclass(Tensor), None))
    yield
    OnDevice.waits.clear()


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_no_step_waits_beyond_trainers_own_waits_unless_it_attributes(tmp_path: Path, micro_batches: int) -> None:
    options = {"gradient_accumulation_steps": micro_batches}
    own = Counter(watched(tmp_path, Trainer, **options).steps[-1][0])
    assert own  # it looks for a loss of NaN
    ours = watched(tmp_path, ChallengerTrainer, **options).steps
    assert any(cues and not attributed for _, attributed, cues in ours)
    assert any(attributed for _, attributed, _ in ours)
    for waits, attributed, _ in ours:
        more = Counter(waits) - own
        if not attributed:
            assert not more
        # In each further forward pass: the model's own look at its mask, and whether it is sure of any row. Once at the end of
        # the step the memory copies what the rows showed.
        else:
            assert more["_local_scalar_dense"] == 2 * micro_batches
            assert more["cpu"] == 1
            assert set(more) == {"_local_scalar_dense", "cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.gpu
def test_on_a_gpu_no_step_waits_beyond_trainers_own_waits_unless_it_attributes(tmp_path: Path) -> None:
    counts: dict[type[Trainer], list[tuple[int, bool]]] = {}
    for cls in (Trainer, ChallengerTrainer):
        found = counts.setdefault(cls, [])

        class Count(TrainerCallback):
            def on_step_begin(self, *args: Any, model: Any = None, **kwargs: Any) -> None:
                self.seen = warnings.catch_warnings(record=True)
                self.log = self.seen.__enter__()
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")

            def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
                torch.cuda.set_sync_debug_mode("default")
                self.seen.__exit__(None, None, None)
                self.__class__.rows.append(sum("synchroniz" in str(w.message) for w in self.log))

            rows: ClassVar[list[int]] = []

        steps: list[bool] = []
        run = cls(
            tiny_bert(seed=SEED, num_labels=2),
            ChallengerConfig(str(tmp_path), per_device_train_batch_size=16, max_steps=30, report_to="none", calibrate=False),
            train_dataset=leaky_data(seed=11),
            processing_class=tiny_tokenizer(),
            callbacks=[Count()],
        )
        run.model.register_forward_pre_hook(lambda module, args, steps=steps: steps.append(module.training))
        run.train()
        passes = iter(steps)
        for waits in Count.rows:
            attributed = not next(passes)
            attributed = attributed and next(passes)
            found.append((waits, attributed))
    own = max(waits for waits, _ in counts[Trainer][1:])
    assert all(waits <= own for waits, attributed in counts[ChallengerTrainer][1:] if not attributed)


def spoiled(change: Callable[[dict[str, Tensor]], None], folder: Path, **options: Any) -> tuple[Any, dict[str, Tensor]]:
    """A trainer whose batches are changed, on the device, and its weights."""
    pad = DataCollatorWithPadding(tiny_tokenizer())

    def collate(rows: Any) -> dict[str, Tensor]:
        batch = dict(pad(rows))
        change(batch)
        return {k: v.as_subclass(OnDevice) for k, v in batch.items()}

    defaults = {"use_cpu": True, "report_to": "none", "save_strategy": "no", "disable_tqdm": True, "calibrate": False}
    run = ChallengerTrainer(
        tiny_bert(num_labels=2),
        ChallengerConfig(str(folder), max_steps=3, **{**defaults, **options}),
        train_dataset=leaky_data(),
        processing_class=tiny_tokenizer(),
        data_collator=collate,
    )
    return run, {k: v.clone() for k, v in run.model.state_dict().items()}


def wrong_label(batch: dict[str, Tensor]) -> None:
    batch["labels"][1] = 7


def wrong_token(batch: dict[str, Tensor]) -> None:
    batch["input_ids"][0, 1] = 1000


def nan_mask(batch: dict[str, Tensor]) -> None:
    batch["attention_mask"] = batch["attention_mask"].float()
    batch["attention_mask"][0, 0] = math.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (wrong_label, "Label 7 is outside the model's 2 classes"),
        (wrong_token, "'input_ids' holds 1000, but the model embeds 45 tokens"),
        (nan_mask, "'attention_mask' holds NaN or infinity in row 0"),
    ],
)
def test_wrong_values_on_a_device_end_the_run_before_the_weights_change(change: Any, message: str, tmp_path: Path) -> None:
    run, before = spoiled(change, tmp_path)
    with pytest.raises(ChallengerError, match=message):
        run.train()
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())


def test_a_bad_loss_on_a_device_ends_the_run_and_a_mean_over_no_label_does_not(tmp_path: Path) -> None:
    def unlabelled(batch: dict[str, Tensor]) -> None:
        batch["labels"].fill_(-100)

    run, before = spoiled(unlabelled, tmp_path, weight_decay=0.0)
    run.train()
    assert all(torch.equal(v, before[k]) for k, v in run.model.state_dict().items())
    run, before = spoiled(lambda batch: None, tmp_path)
    with torch.no_grad():
        run.model.classifier.weight[0, 0] = math.nan
    with pytest.raises(ChallengerError, match=r"The loss is nan at step 0: .*already hold NaN .*not changed in this step"):
        run.train()
