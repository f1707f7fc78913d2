"""Models and batches that cannot be challenged, refused with the way out before they cost time or weights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from .errors import ChallengerError, NotChallengeable
from .inputs.series import OBSERVED_KEYS
from .losses import IGNORED, check_labels, outside, problem_type_of
from .peft_base import without_peft
from .value_checks import Expect, at_once

Found = TypeVar("Found")


def check_arguments(model: Any = None, args: Any = None, *rest: Any, **kwargs: Any) -> None:
    """Raise :class:`ChallengerError` for arguments of a Trainer that are wrong, before it starts to build things."""
    train_dataset = kwargs.get("train_dataset", rest[1] if len(rest) > 1 else None)
    if isinstance(train_dataset, dict):
        raise ChallengerError(
            f"train_dataset is a {type(train_dataset).__name__} with the splits {', '.join(map(repr, train_dataset))}; one"
            " split is expected. Did you mean train_dataset=dataset['train']?"
        )
    if isinstance(args, TrainingArguments) and args.should_save and args.output_dir is not None:
        try:
            os.makedirs(args.output_dir, exist_ok=True)
            if args.save_strategy != "no":
                with tempfile.TemporaryFile(dir=args.output_dir):
                    pass
        except OSError as error:
            raise ChallengerError(
                f"output_dir={args.output_dir!r} cannot be written ({error}). Choose a folder that can be."
            ) from error


def is_sharded(model: nn.Module) -> bool:
    """Whether the parameters are spread over processes by FSDP2 (``fully_shard``)."""
    return any(isinstance(parameter, DTensor) for parameter in model.parameters())


def on_all_processes(
    read: Callable[[], list[Found]], gather: Callable[[Tensor], Tensor], device: torch.device
) -> list[Found]:
    """What ``read()`` returns of each batch of training rows, or its error; none is one too.

    An error on another process is one here as well, which would else wait for that one.
    """
    found, error = [], None
    try:
        if not (found := read()):
            raise ChallengerError(
                "The batches of training rows gave none. A generator can be read once only: pass a list or a DataLoader."
            )
    except Exception as caught:
        error = caught
    failed = gather(torch.tensor([error is not None], device=device))
    if error is not None:
        raise error
    if failed.any():
        raise ChallengerError(f"Process {int(failed.nonzero()[0])} could not go on; it says why.")
    return found


def refuse_other_tasks(model: nn.Module) -> None:
    """Raise :class:`NotChallengeable` for transformers' models that give no single answer for the whole input."""
    base = without_peft(model)
    name = type(base).__name__
    if not type(base).__module__.startswith("transformers.models."):  # a head of the user's own is told by its labels
        return
    if ("Classification" not in name and "Regression" not in name) or "TokenClass" in name or "FrameClass" in name:
        raise NotChallengeable(
            f"{name} is no classifier of whole inputs. Classification and regression of whole inputs can be challenged; token"
            " classification, question answering, multiple choice and language modelling cannot. For a classifier load the model"
            " with a classification head, such as AutoModelForSequenceClassification."
        )


def refuse_several_classes(labels: Tensor, model: nn.Module) -> None:
    """Raise :class:`NotChallengeable` where rows have no single class each: a cue is a cue of a class."""
    config: Any = getattr(model, "config", None)
    problem = problem_type_of(getattr(config, "problem_type", None), getattr(config, "num_labels", None), labels)
    if problem != "single_label_classification" or labels.numel() != len(labels):
        raise NotChallengeable(
            f"Labels of shape {tuple(labels.shape)} and type {labels.dtype} ({problem}) do not give each row one class, and cues"
            " are told by class. Set challenge_selection='sample' to hide relevant units row by row."
        )


def refuse_unsupported(model: nn.Module, gpus_of_this_process: int = 1, relevance: bool = True) -> None:
    """Raise :class:`NotChallengeable` for ways of training that the challenge cannot, or was never seen to, go with.

    Args:
        model: with its wrappers, as the training loop calls it.
        gpus_of_this_process: more than one means torch.nn.DataParallel.
        relevance: whether any is computed.
    """
    if gpus_of_this_process > 1:
        raise NotChallengeable(
            f"This process drives {gpus_of_this_process} GPUs through torch.nn.DataParallel, which the challenge does not"
            f" support. Start one process per GPU (torchrun --nproc_per_node {gpus_of_this_process} script.py), or show this"
            " one a single GPU (CUDA_VISIBLE_DEVICES=0)."
        )
    if not relevance:
        return
    if any(type(module).__name__ == "FullyShardedDataParallel" for module in model.modules()):
        raise NotChallengeable(
            "The model is wrapped by FSDP1 (FullyShardedDataParallel), inside which relevance cannot be computed. Use FSDP2"
            " (fsdp_version: 2 in the accelerate configuration, or fully_shard), or DDP if the model fits on one device."
        )
    if any(hasattr(parameter, "ds_id") for parameter in model.parameters()):
        raise NotChallengeable(
            "The parameters are partitioned by DeepSpeed ZeRO-3, inside which relevance cannot be computed. Use ZeRO stage 2,"
            " FSDP2, or DDP if the model fits on one device."
        )
    if any(getattr(module, "is_quantized", False) is True for module in model.modules()):
        raise NotChallengeable(
            "The model's weights are quantized; the operations of quantized layers have no relevance rule yet. Load the model"
            " without quantization_config (dtype='bfloat16' halves its memory; PEFT adapters on it are supported)."
        )


def check_inputs(inputs: Mapping[str, Any], model: nn.Module, expect: Expect = at_once) -> None:
    """Raise :class:`ChallengerError` where inputs would spoil the model or end in an opaque error.

    ``expect`` says when, for what needs their values.
    """
    for name, value in inputs.items():
        if not isinstance(value, Tensor):
            continue
        if not value.numel():
            raise ChallengerError(f"{name!r} is empty: its shape is {tuple(value.shape)}. Leave out rows without content.")
        if value.is_floating_point():
            expect(value.isfinite().all(), partial(_not_finite, name, value, inputs))
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.is_floating_point():
        return
    if ids.dim() != 2:
        raise NotChallengeable(
            f"'input_ids' has shape {tuple(ids.shape)}; (rows, length) is expected. Multiple choice and other tasks with"
            " several texts a row are not supported: pass one text (or text pair) a row."
        )
    vocabulary = _vocabulary(model)
    if vocabulary is not None:
        expect(~((ids < 0) | (ids >= vocabulary)).any(), lambda: _unknown_token(ids, vocabulary))


def _unknown_token(ids: Tensor, vocabulary: int) -> ChallengerError:
    return ChallengerError(
        f"'input_ids' holds {ids[(ids < 0) | (ids >= vocabulary)][0].item()}, but the model embeds {vocabulary} tokens (0 to"
        f" {vocabulary - 1}). Use the tokenizer that belongs to the model, or model.resize_token_embeddings(len(tokenizer))"
        " after adding tokens."
    )


def _not_finite(name: str, value: Tensor, inputs: Mapping[str, Any]) -> ChallengerError:
    """What to say of NaN: steps that a mask leaves out are no exception, since models multiply by it, as PatchTST does."""
    bad = ~value.isfinite()
    row = int(bad.flatten(1).any(1).nonzero()[0]) if value.dim() > 1 else 0
    found = f"{name!r} holds NaN or infinity in row {row} of the batch"
    for key in OBSERVED_KEYS:
        mask = inputs.get(key)
        if not isinstance(mask, Tensor):
            continue
        if mask.dim() == 2 and value.dim() == 3:  # over time, with channels last or first
            mask = mask.unsqueeze(-1 if mask.shape == value.shape[:2] else 1)
        over_value = all(m in (1, n) for m, n in zip(mask.shape, value.shape, strict=False)) and mask.dim() == value.dim()
        if over_value and not (bad & mask.bool()).any():
            return ChallengerError(
                f"{found}, at steps that {key} marks as unobserved. NaN times a mask of 0 is still NaN, in the model as well:"
                " fill unobserved steps with 0."
            )
    return ChallengerError(f"{found}. Clean or impute the data before training.")


def bad_loss(loss: Tensor, model: nn.Module, step: int, seen_at: int) -> ChallengerError:
    """What to say of a NaN or infinite loss. Waits for the device.

    Args:
        loss: the value.
        model: tells whether its weights are spoiled already.
        step: of the loss.
        seen_at: step at which this is asked; the weights have changed where that is a later one.
    """
    spoiled = next((name for name, parameter in model.named_parameters() if not parameter.isfinite().all()), None)
    cause = (
        "the loss or the model's logits overflowed, with finite weights and inputs"
        if spoiled is None
        else f"the model's weights hold NaN or infinity (first in {spoiled})"
        if seen_at > step
        else f"the model's weights already hold NaN or infinity (first in {spoiled})"
    )
    weights = "were not changed in this step" if seen_at == step else f"have changed since: this is step {seen_at}"
    return ChallengerError(
        f"The loss is {loss.item()} at step {step}: {cause}. The weights {weights}. Lower the learning rate, clip gradients"
        " (max_grad_norm), train in bf16 or fp32, and resume from the last checkpoint."
    )


def _vocabulary(model: nn.Module) -> int | None:
    try:
        table = model.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return getattr(table, "num_embeddings", None)


def refuse_labels(labels: Tensor, model: nn.Module, where: str, cause: Exception | None = None) -> None:
    """Raise :class:`ChallengerError`, which says where, for labels that are no class of a classifier."""
    try:
        refuse_other_tasks(model)
        check_classes(labels, model)
    except NotChallengeable:
        return
    except ChallengerError as error:
        raise ChallengerError(f"{where}: {error}") from (cause or error)


def check_classes(labels: Tensor, model: nn.Module, expect: Expect = at_once) -> None:
    """:func:`~.losses.check_labels` before the first forward pass, where the width of the logits is known in advance."""
    known = _outputs(model)
    if known is not None:
        logits = torch.empty(len(labels), known[1], device="meta")
        check_labels(logits, labels, problem_type_of(*known, labels), expect)


def name_bad_label(inputs: Mapping[str, Any], columns: Iterable[str], model: nn.Module, error: IndexError) -> None:
    """Raise :class:`ChallengerError` where a label of a batch that was evaluated is the cause of the error."""
    labels = next((inputs[name] for name in columns if name in inputs), None)
    if isinstance(labels, Tensor):
        refuse_labels(labels, model, "In evaluation", error)


def harmless_labels(labels: Tensor, model: nn.Module) -> Tensor:
    """Labels that are no class of the model as -100: a kernel of the loss would end the process before a check is read."""
    known = _outputs(model)
    if known is None or problem_type_of(*known, labels) != "single_label_classification":
        return labels
    return labels.masked_fill(outside(labels, known[1]), IGNORED)


def harmless_ids(inputs: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """The same of token ids that the model does not embed: they become some that it does."""
    ids, vocabulary = inputs.get("input_ids"), _vocabulary(model)
    if not isinstance(ids, Tensor) or ids.is_floating_point() or vocabulary is None:
        return inputs
    return {**inputs, "input_ids": ids.clamp(0, vocabulary - 1)}


def _outputs(model: nn.Module) -> tuple[str | None, int] | None:
    """``(problem_type, number of outputs)`` by the config. A head of the user's own may not follow its config: None."""
    base = without_peft(model)
    config: Any = getattr(base, "config", None)
    if not type(base).__module__.startswith("transformers.") or config is None or not hasattr(base, "num_labels"):
        return None
    return config.problem_type, config.num_labels
