"""How often will a fine-tuned model be right on new rows? An estimate that costs one forward pass, before training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attribution.state import attribution_state
from .checks import on_all_processes
from .errors import ChallengerError
from .head import head_of
from .losses import IGNORED

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the ridge, relative to features of mean length 1
# Training takes away a share of the probe's error: this, times the probe's skill. Where features tell nothing, some hundred rows teach
# little; where they tell classes apart, fine-tuning took a half (TREC) to nothing (SST-2) on development sets.
TAKEN_BY_TRAINING = 0.5
# Numbers a row: of larger images and recordings, a linear probe of the numbers as they are tells little.
LARGEST_INPUT = 10_000
LEAST_SKILL = 0.1  # expected of any trained model: below it, confidences would be made as good as equal


def expected_accuracy(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    attended: Callable[[Mapping[str, Any]], Tensor] | None = None,
    gather: Callable[[Tensor], Tensor] = lambda rows: rows,
    rows: int | None = None,
) -> float:
    """From the leave-one-out accuracy a of a linear probe on the features that a model has *before* it is fine-tuned.

    Features of texts are the last hidden states, averaged over the attended tokens; of all else they are what enters the last
    linear layer, random features if the network was never trained, or the inputs themselves, if they tell more, are of one size and
    not too large. 1 - (1 - a)(1 - s/2) is expected, where the probe's skill s = (a - c)/(1 - c) compares it with the share c of
    the largest class (Cohen's κ for a guesser of that class), and at least c + .1(1 - c). The probe is a ridge regression onto the
    classes, whose leave-one-out predictions have a closed form (Allen, Technometrics 1974), with the best of :data:`PENALTIES`.

    Args:
        model: before training; left as it is, and so are random states.
        batches: training rows, as the model takes them, with ``labels`` ``(rows,)``; -100 is left out.
        attended: texts: inputs → ``(rows, length)`` bool, the tokens that count. None for all else.
        gather: collects rows of all processes.
        rows: of all processes, without those that fill up the last batches. None: all that come.

    Raises:
        ChallengerError: where no rows come, the model returns no hidden states (texts) or has no linear layer at its end (all
            else), where those are not one vector a row, or no class has two rows.
    """

    def read() -> list[tuple[Tensor, Tensor, Tensor]]:
        found = []
        for batch in batches:
            inputs = {k: v for k, v in batch.items() if k != "labels"}
            features = _entering_the_head(model, inputs) if attended is None else _of_tokens(model, inputs, attended(inputs))
            if len(features) != len(batch["labels"]):
                raise ChallengerError(
                    f"What {type(model).__name__} tells of {len(batch['labels'])} labelled rows is {tuple(features.shape)}, not"
                    " one vector a row."
                )
            given = features[:, :0] if attended is not None else _numbers(inputs, features)
            found.append((features, given, batch["labels"]))
        return found

    with attribution_state(model), torch.no_grad():
        found = on_all_processes(read, gather, next(model.parameters()).device)
        labels = torch.cat([gather(answers).cpu() for *_, answers in found])[:rows]
        widths = torch.cat([gather(torch.full_like(answers, given.shape[1])).cpu() for _, given, answers in found])
        kinds = (0, 1) if len(widths) and 0 < widths.min() == widths.max() else (0,)  # series may be padded to many lengths
        told_by = [torch.cat([gather(row[kind]).double().cpu() for row in found])[:rows] for kind in kinds]
    known = labels != IGNORED
    labels = labels[known]
    # A row that is alone in its class cannot be told from the others.
    told = labels.bincount()[labels] > 1 if len(labels) else labels.bool()
    if not told.any():
        raise ChallengerError("No class has two training rows, from which its accuracy on new rows could be estimated.")
    guesses = [guess for x in told_by for guess in _left_out(x[known], labels)]
    probe = max(float((guess == labels)[told].double().mean()) for guess in guesses)
    chance = float(labels.bincount().max() / len(labels))
    if chance == 1:
        return 1.0
    skill = (probe - chance) / (1 - chance)
    return max(1 - (1 - probe) * (1 - TAKEN_BY_TRAINING * max(skill, 0.0)), chance + LEAST_SKILL * (1 - chance))


def _entering_the_head(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    features = head_of(model, inputs).features.float()
    return features if features.dim() == 2 else features.flatten(1, -2).mean(1)


def _numbers(inputs: Mapping[str, Any], features: Tensor) -> Tensor:
    """The float inputs of each row, ``(rows, numbers)``; no numbers where there are too many."""
    rows = len(features)
    given = [
        v.reshape(rows, -1)
        for v in inputs.values()
        if isinstance(v, Tensor) and v.is_floating_point() and v.dim() and len(v) == rows
    ]
    if not given or sum(v.shape[1] for v in given) > LARGEST_INPUT:
        return features[:, :0]
    return torch.cat([v.to(features) for v in given], 1).nan_to_num()


def _of_tokens(model: nn.Module, inputs: Mapping[str, Any], attended: Tensor) -> Tensor:
    hidden, mask = _last_hidden(model, inputs), attended.unsqueeze(-1)
    if hidden.dim() != 3 or hidden.shape[1] != mask.shape[1]:
        raise ChallengerError(f"{type(model).__name__}'s last hidden states are {tuple(hidden.shape)}, not one a token.")
    return (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)


def _last_hidden(model: nn.Module, inputs: Mapping[str, Any]) -> Tensor:
    try:
        outputs = model(**inputs, output_hidden_states=True)
    except TypeError as error:
        raise ChallengerError(f"{type(model).__name__} takes no output_hidden_states=True ({error}).") from error
    for name in ("hidden_states", "encoder_hidden_states"):
        states = outputs.get(name) if isinstance(outputs, dict) else None
        if states:
            return states[-1].float()
    raise ChallengerError(f"{type(model).__name__} returns no hidden states.")


def _left_out(x: Tensor, labels: Tensor) -> list[Tensor]:
    """For each penalty the class of each row by a ridge regression on all the others."""
    x = x - x.mean(0)
    x = x / x.norm(dim=1).mean().clamp(min=1e-12)
    wanted = F.one_hot(labels).double()
    values, u = torch.linalg.eigh(x @ x.T + 1 / len(x))  # with the constant feature; one for all penalties
    values = values.clamp(min=0)
    found = []
    for penalty in PENALTIES:
        kept = values / (values + penalty)
        fitted, own = u * kept @ (u.T @ wanted), (u**2 @ kept).unsqueeze(1)
        found.append(((fitted - own * wanted) / (1 - own)).argmax(1))
    return found
