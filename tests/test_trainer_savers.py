"""Precision, memory savers, adapters: the challenge goes with them, or says that it does not."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import Trajectory, tiny_batch, tiny_bert
from torch import Tensor, nn

from hf_challenger import ChallengeOptions, Challenger, ChallengerError
from hf_challenger.attribution import LRP
from hf_challenger.checks import refuse_unsupported

Make = Callable[..., Any]
pytestmark = pytest.mark.usefixtures("any_confidence")
STEPS = {"max_steps": 3, "challenge_share": 0.5, "challenge_rate": 0.3, "optim": "sgd"}


def train(trainer: Make, **options: Any) -> Trajectory:
    seen = Trajectory()
    model = options.pop("model", None)
    run = trainer(model=model, kwargs={"callbacks": [seen]}, **{**STEPS, **options})
    run.train()
    assert max(log["challenged_share"] for log in seen.logs if "loss" in log) > 0
    assert all(math.isfinite(log["loss"]) for log in seen.logs if "loss" in log)
    return seen


def apart(a: Trajectory, b: Trajectory) -> float:
    return max(
        float((x.float() - y.float()).norm() / y.float().norm()) for x, y in zip(a.gradients, b.gradients, strict=True)
    )


def test_bf16_autocast_is_close_to_float32(trainer: Make) -> None:
    assert apart(train(trainer, bf16=True), train(trainer)) < 0.05


def test_relevance_under_autocast_is_summed_in_float32(trainer: Make) -> None:
    run = trainer(bf16=True, challenge_share=1.0)
    batch = tiny_batch()
    labels = batch.pop("labels")
    challenger = run._challenger_for(run.model, ChallengeOptions.of(run.args))
    with torch.autocast("cpu", torch.bfloat16):
        relevance, _ = challenger._relevance(run.model, batch, labels, batch["input_ids"].shape[1:], 0.0)
    assert relevance.dtype == torch.float32
    at_embeddings = LRP(run.model).attribute(batch, target=labels)
    assert challenger.units.per_unit(at_embeddings.bfloat16()).dtype == torch.float32
    correlation = torch.corrcoef(torch.stack([relevance.flatten(), at_embeddings.sum(-1).flatten()]))[0, 1]
    assert correlation > 0.99


def test_bf16_weights(trainer: Make) -> None:
    model = tiny_bert().bfloat16()
    seen = train(trainer, model=model, learning_rate=0.1)
    assert all(p.dtype == torch.bfloat16 for p in model.parameters())
    assert apart(seen, train(trainer, learning_rate=0.1)) < 0.2


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(trainer: Make, reentrant: bool) -> None:
    model = tiny_bert()
    seen = train(
        trainer, model=model, gradient_checkpointing=True, gradient_checkpointing_kwargs={"use_reentrant": reentrant}
    )
    assert model.is_gradient_checkpointing
    # Recomputed, not stored: the same numbers up to rounding.
    assert apart(seen, train(trainer)) < 1e-5


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.faults)])  # which takes a minute
def test_torch_compile(trainer: Make, backend: str) -> None:
    compiled = train(trainer, torch_compile=True, torch_compile_backend=backend)
    assert apart(compiled, train(trainer)) < 1e-5


class TooLarge(type(tiny_bert())):  # type: ignore[misc]
    """Runs out of memory on more than 4 rows of a training forward."""

    def forward(self, input_ids: Any = None, attention_mask: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        if len(input_ids) > 4 and self.training:
            raise RuntimeError("CUDA out of memory.")
        return super().forward(input_ids=input_ids, attention_mask=attention_mask, labels=labels)


def test_auto_find_batch_size_starts_afresh(trainer: Make) -> None:
    seen = Trajectory()
    run = trainer(
        model=TooLarge(tiny_bert().config),
        auto_find_batch_size=True,
        kwargs={"callbacks": [seen]},
        **{**STEPS, "max_steps": 2},
    )
    run.train()
    assert run._train_batch_size <= 4
    assert len(seen.gradients) == 2
    # The choices are those of a run that had the smaller batches from the start.
    small = train(trainer, per_device_train_batch_size=run._train_batch_size, max_steps=2)
    assert [log.get("challenged_share") for log in seen.logs] == [log.get("challenged_share") for log in small.logs]


def test_torch_empty_cache_steps(trainer: Make) -> None:
    assert apart(train(trainer, torch_empty_cache_steps=1), train(trainer)) == 0


def test_neftune_noises_training_and_not_relevance(trainer: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_bert()
    noisy = train(trainer, model=model, neftune_noise_alpha=5.0)
    assert apart(noisy, train(trainer)) > 1e-3
    attributed: list[Tensor] = []
    run = trainer(model=tiny_bert(), neftune_noise_alpha=5.0, challenge_share=1.0, max_steps=1)
    original = Challenger._relevance

    def relevance(*args: Any) -> Any:
        attributed.extend((original(*args)[0], original(*args)[0]))
        return original(*args)

    monkeypatch.setattr(Challenger, "_relevance", relevance)
    run.train()
    assert torch.equal(*attributed)  # noise would differ from call to call


# --- adapters ---------------------------------------------------------------------------------------------------------


def test_lora_trains_the_adapters_alone(trainer: Make) -> None:
    model = get_peft_model(tiny_bert(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))
    before = {k: v.clone() for k, v in model.state_dict().items()}
    wanted = {name for name, p in model.named_parameters() if p.requires_grad}
    train(trainer, model=model, learning_rate=0.1)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed
    assert changed <= wanted
    assert {name for name, p in model.named_parameters() if p.requires_grad} == wanted


def test_lora_micro_batches_add_up(trainer: Make) -> None:
    def adapted() -> nn.Module:
        model = tiny_bert()
        torch.manual_seed(0)
        return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"]))

    for share in (0.0, 0.5):
        whole = train_any(trainer, adapted(), challenge_share=share, per_device_train_batch_size=8)
        parts = train_any(
            trainer, adapted(), challenge_share=share, per_device_train_batch_size=2, gradient_accumulation_steps=4
        )
        assert apart(parts, whole) < 1e-4


def train_any(trainer: Make, model: nn.Module, **options: Any) -> Trajectory:
    seen = Trajectory()
    trainer(model=model, kwargs={"callbacks": [seen]}, **{**STEPS, **options}).train()
    return seen


def test_frozen_encoder_stays_as_it_is(trainer: Make) -> None:
    model = tiny_bert()
    for parameter in model.bert.parameters():
        parameter.requires_grad_(False)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    train(trainer, model=model, learning_rate=0.1)
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"classifier.weight", "classifier.bias"}
    assert not any(p.requires_grad for p in model.bert.parameters())


# --- refused ----------------------------------------------------------------------------------------------------------


def test_dataparallel_is_refused(trainer: Make) -> None:
    run = trainer()
    run.args._n_gpu = 2
    with pytest.raises(ChallengerError, match=r"2 GPUs through torch.nn.DataParallel.*torchrun --nproc_per_node 2"):
        run.compute_loss(run.model.train(), tiny_batch())


def test_zero_3_is_refused() -> None:
    model = tiny_bert()
    model.classifier.weight.ds_id = 0  # the mark by which ZeRO-3 knows its partitioned parameters
    with pytest.raises(ChallengerError, match=r"ZeRO-3.*Use ZeRO stage 2, FSDP2, or DDP"):
        refuse_unsupported(model)


def test_fsdp1_is_refused(tmp_path: Any) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = FullyShardedDataParallel(tiny_bert(), device_id=torch.device("cpu"))
        with pytest.raises(ChallengerError, match=r"FSDP1.*fsdp_version: 2"):
            refuse_unsupported(model)
    finally:
        torch.distributed.destroy_process_group()


def test_quantized_is_refused(trainer: Make) -> None:
    """transformers marks a model that it loaded with a quantization_config so."""
    model = tiny_bert()
    model.is_quantized = True
    with pytest.raises(ChallengerError, match=r"weights are quantized.*without quantization_config"):
        refuse_unsupported(model)
