"""Runs of tokens in place of others, against lists that are put together in Python."""

import pytest
import torch
from tiny import tiny_bert

from hf_challenger.challenge.exchange import exchange_runs, longest_run
from hf_challenger.challenge.named_cues import NamedCues
from hf_challenger.inputs import Tokens
from hf_challenger.keyed_random import Draw

CLS, SEP = 2, 3
WIDTH = 12


@pytest.fixture(scope="module")
def units():
    with pytest.warns(UserWarning, match="No tokenizer"):
        return Tokens(tiny_bert())


def batch_of(rows, side, width=WIDTH):
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for n, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        ids[n, where], mask[n, where] = torch.tensor(row), 1
    return {"input_ids": ids, "attention_mask": mask}


def rows_in(batch):
    return [ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)]


def expected(row, start, length, new):
    before, after = row[:start], row[start + length : -1]
    over = max(len(row) - length + len(new) - WIDTH, 0)
    cut = min(over, len(after))
    after = after[: len(after) - cut]
    return [*before[: len(before) - (over - cut)], *new, *after, row[-1]]


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_other_run_stands_there_and_the_last_token_stays(units, side):
    generator = torch.Generator().manual_seed(0)

    def number(low, high):
        return int(torch.randint(low, high, (), generator=generator))

    rows, runs = [], []
    for _ in range(300):
        inside = number(4, WIDTH - 1)
        rows.append([CLS, *(number(10, 90) for _ in range(inside)), SEP])
        length = number(0, 4)
        runs.append(
            (number(1, inside - length + 1) if length else 0, length, [number(100, 200) for _ in range(number(0, 5))])
        )
    batch = batch_of(rows, side)
    start = torch.tensor(
        [begin + (WIDTH - len(row) if side == "left" else 0) for row, (begin, _, _) in zip(rows, runs, strict=True)]
    )
    new = torch.zeros(len(rows), 5, dtype=torch.long)
    for n, (_, _, tokens) in enumerate(runs):
        new[n, : len(tokens)] = torch.tensor(tokens)
    lengths = torch.tensor([length for _, length, _ in runs])
    found, source = exchange_runs(batch, units, start, lengths, new, torch.tensor([len(tokens) for _, _, tokens in runs]))
    want = [
        row if not length else expected(row, begin, length, tokens)
        for row, (begin, length, tokens) in zip(rows, runs, strict=True)
    ]
    assert rows_in(found) == want
    # A model may read its answer at the last place, as XLNet does: rows keep the side of their padding.
    again = batch_of(want, side)
    assert torch.equal(found["input_ids"], again["input_ids"])
    assert torch.equal(found["attention_mask"], again["attention_mask"])
    came = source >= 0
    assert torch.equal(found["input_ids"][came], batch["input_ids"].gather(1, source.clamp(min=0))[came])


def test_the_longest_run_is_found_and_the_first_of_equal_ones():
    mask = torch.tensor([[0, 1, 0, 1, 1], [1, 1, 0, 1, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], dtype=torch.bool)
    start, length = longest_run(mask)
    assert start.tolist() == [3, 0, 0, 0]
    assert length.tolist() == [2, 2, 0, 5]


def test_names_of_any_length_come_equally_often_to_rows_of_any_name(units):
    """A longer name that was cut would tell which name stood there."""
    names = NamedCues(units, [], "challenge_hide")
    names.names, names.sequences, names._donors = ["a", "b c d"], [[[50]], [[60, 61, 62]]], [[50], [60, 61, 62]]
    rows = [[CLS, *([50] if n % 2 else [60, 61, 62]), *range(10, 10 + n % 8), SEP] for n in range(600)]
    batch = batch_of(rows, "right")
    found, held = names.removed(batch, Draw(0, 4, 0, torch.arange(600)), lambda inputs, mask, *_: inputs)
    assert held.all()
    for was in (0, 1):
        of_name = rows_in(found)[was::2]
        short, long, none = (sum(wanted(row) for row in of_name) / 300 for wanted in (
            lambda row: 50 in row,
            lambda row: any(row[n : n + 3] == [60, 61, 62] for n in range(len(row))),
            lambda row: not {50, 60, 61, 62} & set(row),
        ))  # fmt: skip
        assert [short, long, none] == pytest.approx([1 / 3] * 3, abs=0.08)
        assert short + long + none == pytest.approx(1)
