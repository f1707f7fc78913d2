"""The accuracy to expect on new rows, against probes computed by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_bert, tiny_rows, tiny_tokenizer

from hf_challenger.calibration import expected_accuracy
from hf_challenger.calibration.accuracy import PENALTIES
from hf_challenger.errors import ChallengerError


def batches(rows: int = 24, size: int = 8) -> list[dict[str, torch.Tensor]]:
    data, tokenizer = tiny_rows(rows), tiny_tokenizer()
    return [dict(tokenizer.pad(data[i : i + size], return_tensors="pt")) for i in range(0, rows, size)]


def left_out_by_hand(features: np.ndarray, labels: np.ndarray) -> float:
    """Each row predicted by a ridge regression with an intercept, fitted by least squares on all the others."""
    x = features - features.mean(0)
    x = np.c_[x / np.linalg.norm(x, axis=1).mean(), np.full(len(x), len(x) ** -0.5)]
    right = dict.fromkeys(PENALTIES, 0)
    for penalty in PENALTIES:
        for i in range(len(x)):
            others = np.arange(len(x)) != i
            a, b = x[others], np.eye(3)[labels[others]]
            weights = np.linalg.solve(a.T @ a + penalty * np.eye(a.shape[1]), a.T @ b)
            right[penalty] += int((x[i] @ weights).argmax() == labels[i])
    return max(right.values()) / len(x)


def test_expected_accuracy_is_that_of_probes_that_left_a_row_out() -> None:
    model = tiny_bert().double().eval()
    features, labels = [], []
    for row in tiny_rows(24):
        with torch.no_grad():
            states = model(input_ids=torch.tensor([row["input_ids"]]), output_hidden_states=True).hidden_states[-1][0]
        features.append(states.mean(0).numpy())
        labels.append(row["labels"])
    best, chance = left_out_by_hand(np.array(features), np.array(labels)), max(np.bincount(labels)) / len(labels)
    expected = 1 - (1 - best) * (1 - 0.5 * (best - chance) / (1 - chance))
    assert expected_accuracy(model, batches()) == pytest.approx(expected)
    assert chance < best < 1
    batch = batches(24, 24)[0]
    batch["labels"] = batch["input_ids"].sum(1) * 7919 % 3  # of which the features tell nothing
    best, chance = (
        left_out_by_hand(np.array(features), batch["labels"].numpy()),
        batch["labels"].bincount().max().item() / 24,
    )
    assert best < chance + 0.1 * (1 - chance)
    assert expected_accuracy(model, [batch]) == pytest.approx(chance + 0.1 * (1 - chance))
    batch["labels"] = torch.ones(24, dtype=torch.long)
    with pytest.raises(ChallengerError, match="24 rows that were read are all of class 1"):
        expected_accuracy(model, [batch])


class LastLayerOnly(torch.nn.Module):
    """A linear layer on the pixels, or on each of two halves that are the same, after one of as many outputs that nobody needs."""

    def __init__(self, halves: bool = False, named: bool = False) -> None:
        super().__init__()
        self.other, self.head = torch.nn.Linear(1, 3), torch.nn.Linear(9, 3)
        self.halves, self.named = halves, named

    def forward(self, pixel_values: torch.Tensor) -> Any:
        x = pixel_values.flatten(1)
        self.other(x[:, :1])
        if self.halves:
            return self.head(torch.stack([x - 1, x + 1], 1)).mean(1)
        return self.head(input=x) if self.named else self.head(x)


class Pixels(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return pixel_values.flatten(1) * self.scale


class PerHalf(LastLayerOnly):
    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.head(torch.cat([pixel_values.flatten(1)] * 2)).unflatten(0, (2, -1)).mean(0)


@pytest.mark.parametrize("how", [{}, {"halves": True}, {"named": True}])
def test_without_tokens_the_probe_reads_what_enters_the_last_layer(how: dict[str, bool]) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 1, 3, 3, dtype=torch.float64), torch.arange(20) % 3
    x[:, 0, 0, 0] += 2 * y
    rows = [{"pixel_values": x[i : i + 7], "labels": y[i : i + 7]} for i in (0, 7, 14)]
    best = left_out_by_hand(x.flatten(1).numpy(), y.numpy())
    skill = (best - 7 / 20) / (1 - 7 / 20)  # of 20 rows the largest class has 7
    assert expected_accuracy(LastLayerOnly(**how).double(), rows) == pytest.approx(1 - (1 - best) * (1 - skill / 2))
    assert 0.4 < best < 1
    with pytest.raises(ChallengerError, match=r"7 labelled rows have the shape \(14, 9\); one vector a row is expected"):
        expected_accuracy(PerHalf().double(), rows)
    with pytest.raises(ChallengerError, match=r"no torch.nn.Linear with 9 outputs"):
        expected_accuracy(Pixels(), rows)


class Blind(LastLayerOnly):
    """What enters the last layer is the same for all rows."""

    def forward(self, pixel_values: torch.Tensor) -> Any:
        return self.head(torch.ones_like(pixel_values.flatten(1)[:, :9]))


def test_the_probe_reads_the_inputs_where_they_predict_better(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(20, 1, 3, 3, dtype=torch.float64), torch.arange(20) % 3
    x[:, 0, 0, 0] += 2 * y
    rows = [{"pixel_values": x[i : i + 7], "labels": y[i : i + 7]} for i in (0, 7, 14)]
    model = Blind().double()
    seen = expected_accuracy(LastLayerOnly().double(), rows)
    assert expected_accuracy(model, rows) == pytest.approx(seen)
    blind = 7 / 20 + 0.1 * 13 / 20  # as little as is expected of any model
    assert blind < seen - 0.1
    longer = [*rows[:2], {**rows[2], "pixel_values": torch.cat([rows[2]["pixel_values"]] * 2, 3)}]
    assert expected_accuracy(model, longer) == pytest.approx(blind)  # padded to several lengths
    monkeypatch.setattr("hf_challenger.calibration.accuracy.LARGEST_INPUT", 8)
    assert expected_accuracy(model, rows) == pytest.approx(blind)


def test_rows_that_are_alone_in_their_class_are_not_counted() -> None:
    model, batch = tiny_bert(num_labels=9).eval(), batches(24, 24)[0]
    batch["labels"][0] = 8
    assert 0 < expected_accuracy(model, [batch]) <= 1
    batch["labels"] = torch.arange(24)
    with pytest.raises(ChallengerError, match="No class has two training rows"):
        expected_accuracy(model, [batch])


def test_labels_below_zero_are_named() -> None:
    batch = batches(24, 24)[0]
    batch["labels"][3] = -1
    with pytest.raises(ChallengerError, match="Label -1 is below 0"):
        expected_accuracy(tiny_bert(), [batch])


def test_padding_is_left_out_without_an_attention_mask() -> None:
    rows = [{k: v for k, v in batch.items() if k != "attention_mask"} for batch in batches()]
    assert 0 < expected_accuracy(tiny_bert(pad_token_id=0), rows) <= 1


def test_batches_that_are_used_up_are_refused() -> None:
    once = iter(batches())
    expected_accuracy(tiny_bert(), once)
    with pytest.raises(ChallengerError, match="A generator can be read once"):
        expected_accuracy(tiny_bert(), once)


class OwnText(torch.nn.Module):
    """A text classifier whose forward knows nothing of output_hidden_states: the mean of its tokens, and a linear layer.

    Args:
        before: whether the linear layer is applied to each token, before the mean.
        states: shape in which hidden states are returned, if at all: one a "token", or a "row".
    """

    def __init__(self, before: bool = False, states: str = "") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = torch.nn.Embedding(45, 16), torch.nn.Linear(16, 3)
        self.before, self.states = before, states

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        tokens, mask = self.embedding(input_ids), attention_mask.unsqueeze(-1)

        def mean(x: torch.Tensor) -> torch.Tensor:
            return (x * mask).sum(1) / mask.sum(1)

        logits = mean(self.head(tokens)) if self.before else self.head(mean(tokens))
        return {"logits": logits, **({"hidden_states": self.shown(tokens, mean(tokens))} if self.states else {})}

    def shown(self, tokens: torch.Tensor, row: torch.Tensor) -> Any:
        return (tokens,) if self.states == "token" else (row.unsqueeze(1),)


class Asked(OwnText):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, output_hidden_states: bool = False) -> Any:
        return super().forward(input_ids, attention_mask)


class Anything(OwnText):
    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **kwargs: Any) -> Any:
        return super().forward(input_ids, attention_mask)


@pytest.mark.parametrize(
    "model",
    [OwnText(), OwnText(before=True), Anything(), Asked(states="row")],
    ids=["own", "token by token", "takes anything", "one state a row"],
)
def test_text_models_without_hidden_states_are_probed_where_the_last_layer_begins(model: OwnText) -> None:
    known = expected_accuracy(Asked(states="token").double(), batches())
    assert expected_accuracy(model.double(), batches()) == pytest.approx(known)
    chance = 8 / 24
    assert chance + 0.1 * (1 - chance) < known < 1
