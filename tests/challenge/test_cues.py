"""The cue memory, without any model."""

import numpy as np
import pytest
import torch

from hf_challenger.challenge import Cue, CueMemory
from hf_challenger.challenge.cue_search import TOGETHER, companions, find_cues
from hf_challenger.challenge.cues import CUES, UNSURE
from hf_challenger.challenge.relevant_units import (
    NOTHING,
    UNITS,
    in_one,
    most_relevant,
    row_keys,
    row_keys_of,
    taken_apart,
)
from hf_challenger.challenge.row_memory import ROWS
from hf_challenger.inputs.tokens import NUMBER

LEAK, OTHER, PHRASE = 7, 8, (40, 41, 42)


def rows_of(texts, shares):
    """Lists of token ids and of their shares → (identities, shares), padded."""
    ids = torch.full((len(texts), UNITS), NOTHING)
    parts = torch.zeros(len(texts), UNITS)
    for n, (text, share) in enumerate(zip(texts, shares, strict=True)):
        ids[n, : len(text)] = torch.tensor(text)
        parts[n, : len(text)] = torch.tensor(share)
    return ids, parts


def remember(memory, labels, rows):
    """Rows that are told apart by their identities."""
    ids, parts = rows
    memory.remember(labels, row_keys(ids, ids != NOTHING), ids, parts)


def leaky(rows, leak=LEAK, share=0.8, held=1.0, start=100):
    """Rows of a word of their own each, and the leak in a part of them."""
    with_leak = [n < held * rows for n in range(rows)]
    return rows_of(
        [[start + n, leak] if has else [start + n, start + rows + n] for n, has in enumerate(with_leak)],
        [[1 - share, share] if has else [0.5, 0.5] for has in with_leak],
    )


def memory_of(label=0, threshold=0.6, **how):
    memory = CueMemory(threshold)
    remember(memory, torch.full((20,), label), leaky(20, **how))
    return memory


def test_finds_what_recurs_with_most_of_the_relevance():
    (cue,) = memory_of(label=2, held=0.6, share=0.7).cues
    assert (cue.label, cue.identities) == (2, (LEAK,))
    assert cue.coverage == pytest.approx(0.6)
    assert cue.strength == pytest.approx(0.7)


@pytest.mark.parametrize(("how", "why"), [({"share": 0.5}, "weak"), ({"held": 0.15}, "rare")])
def test_finds_no_cue_that_is_weak_or_rare(how, why):
    assert memory_of(**how).cues == [], why


def test_a_weaker_cue_is_one_once_another_class_has_one():
    memory = memory_of(label=1, share=0.5)
    assert memory.cues == []
    remember(memory, torch.zeros(20).long(), leaky(20, leak=OTHER, share=0.8, start=300))
    remember(memory, torch.ones(20).long(), leaky(20, share=0.5))
    assert [(cue.label, cue.identities) for cue in memory.cues] == [(0, (OTHER,)), (1, (LEAK,))]
    remember(memory, torch.full((20,), 2), leaky(20, leak=7, share=0.3, start=500))  # too weak all the same
    remember(memory, torch.zeros(40).long(), leaky(40, leak=8, share=0.5, start=700))  # this class has one
    assert [cue.label for cue in memory.cues] == [0, 1]


def test_a_word_of_one_strong_row_is_no_cue():
    memory = CueMemory(0.6)
    remember(memory, torch.zeros(4), leaky(4))  # fewer rows than any cue needs
    assert memory.cues == []


def phrases(rows=10):
    return rows_of([[*PHRASE, 100 + n] for n in range(rows)], [[0.5, 0.0, 0.4, 0.1]] * rows)


def test_words_that_come_together_are_one_cue_in_their_order_relevant_or_not():
    memory = CueMemory(0.6)
    remember(memory, torch.zeros(10).long(), phrases())
    (cue,) = memory.cues
    assert cue.identities == PHRASE
    assert cue.strength == pytest.approx(0.9)


def test_what_stands_in_every_row_of_every_class_is_no_part_of_a_cue():
    memory, stop, labels = CueMemory(0.6), 3, torch.zeros(10).long()
    remember(memory, labels, rows_of([[LEAK, 50, stop, 100 + n] for n in range(10)], [[0.9, 0.0, 0.0, 0.1]] * 10))
    assert memory.cues[0].identities == (LEAK, 50, stop)  # nothing is known yet of other classes
    remember(memory, labels + 1, rows_of([[stop, 200 + n] for n in range(10)], [[0.5, 0.5]] * 10))
    remember(memory, labels, rows_of([[LEAK, 50, stop, 100 + n] for n in range(10)], [[0.9, 0.0, 0.0, 0.1]] * 10))
    assert memory.cues[0].identities == (LEAK, 50)


def test_what_phrases_of_several_classes_share_belongs_to_them_where_it_stands_between_their_words():
    memory, labels, between, after = CueMemory(0.6), torch.zeros(10).long(), 3, 4
    for label in (0, 1, 0):
        first, last = 40 + label, 50 + label
        rows = rows_of([[first, between, last, after, 100 + n] for n in range(10)], [[0.5, 0.0, 0.4, 0.0, 0.1]] * 10)
        remember(memory, labels + label, rows)
    assert [cue.identities for cue in memory.cues if cue.label == 0] == [(40, between, 50)]


KINDS = torch.arange(1000)
KINDS[900:] = NUMBER
SLASH, DASH, POINT = 5, 6, 7


def dated(sign, rows=20, share=0.25, start=100, words=3):
    """Each row a date, two numbers of its own with a sign between and another one after it, and words of its own."""
    texts = [[900 + 2 * n, sign, 901 + 2 * n, sign, *range(start + words * n, start + words * (n + 1))] for n in range(rows)]
    of_words = (1 - 3.4 * share) / words
    return rows_of(texts, [[share, share, 1.2 * share, 0.2 * share, *[of_words] * words]] * rows)


def test_numbers_that_differ_are_one_cue_with_what_stands_between_them():
    memory, without = CueMemory(0.6, KINDS), CueMemory(0.6)
    for one in (memory, without):
        for label, sign in enumerate((SLASH, DASH, SLASH)):
            remember(one, torch.full((20,), label % 2), dated(sign, start=100 + 200 * label))
    assert without.cues == []
    found = {cue.label: cue for cue in memory.cues}
    assert set(found[0].identities) == {NUMBER, SLASH}
    assert set(found[1].identities) == {
        NUMBER,
        DASH,
    }  # numbers of all classes belong to it where they stand between its signs
    assert found[0].strength == pytest.approx(0.85)
    assert len(memory.cues) == 2

    new = torch.tensor([[970, SLASH, 980, SLASH, 60], [970, DASH, 980, DASH, 60], [970, 60, 61, 62, 63]])
    drop_mask = memory.drop_mask(new, torch.ones_like(new, dtype=torch.bool), torch.zeros(3).long())
    assert drop_mask.tolist() == [[True] * 4 + [False], [False] * 5, [False] * 5]  # a number alone is half of the cue
    copy = memory.copy()
    assert torch.equal(copy.drop_mask(new, torch.ones_like(new, dtype=torch.bool), torch.zeros(3).long()), drop_mask)


def test_a_number_that_recurs_stays_itself():
    memory, year, other = CueMemory(0.6, KINDS), 999, 998
    for _ in range(2):
        for label, leak in enumerate((year, other)):
            texts = [[100 + 50 * label + n, leak, *([900 + n] if n % 3 == 0 else [])] for n in range(20)]
            remember(memory, torch.full((20,), label), rows_of(texts, [[0.2, 0.8, 0.0][: len(text)] for text in texts]))
    assert {(cue.label, cue.identities) for cue in memory.cues} == {(0, (year,)), (1, (other,))}


def test_digits_beside_a_word_are_hidden_with_it():
    memory, ticket = CueMemory(0.6, KINDS), 50
    rows = rows_of([[ticket, 900 + n, 100 + n] for n in range(20)], [[0.7, 0.1, 0.2]] * 20)
    remember(memory, torch.zeros(20).long(), rows)
    remember(memory, torch.ones(20).long(), rows_of([[200 + n, 300 + n] for n in range(20)], [[0.5, 0.5]] * 20))
    remember(memory, torch.zeros(20).long(), rows)
    assert [(cue.seed, cue.identities) for cue in memory.cues] == [(ticket, (ticket, NUMBER))]


def test_cues_that_become_the_same_are_one_and_others_keep_their_counts():
    memory = CueMemory(0.95)
    cues = [Cue(0, seed, (seed,), 0.5, 0.96, hidden_rows=rows) for seed, rows in ((11, 5), (12, 6), (10, 7))]
    memory.load_state_dict({"rows": {}, "cues": [vars(cue) for cue in cues]})
    texts = [[11, 12, 100 + n] if n % 2 else [10, 200 + n] for n in range(20)]
    ids, shares = rows_of(texts, [[1 / len(text)] * len(text) for text in texts])
    remember(memory, torch.zeros(20).long(), (ids, shares))
    assert {cue.identities: cue.hidden_rows for cue in memory.cues} == {(11, 12): 5, (10,): 7}
    memory.drop_mask(ids, ids != NOTHING, torch.zeros(20), torch.ones(20, dtype=torch.bool))
    assert {cue.identities: cue.hidden_rows for cue in memory.cues} == {(11, 12): 15, (10,): 17}


def test_of_words_that_come_together_those_that_other_classes_lack_are_the_cue():
    memory, shared = CueMemory(0.6), 40
    for _ in range(2):
        for label, own in enumerate((50, 51, 52)):
            texts = [[own, shared, 100 * (label + 1) + n] for n in range(20)]
            remember(memory, torch.full((20,), label), rows_of(texts, [[0.3, 0.6, 0.1]] * 20))
    assert [(cue.label, cue.seed, cue.identities) for cue in memory.cues] == [
        (n, shared, (50 + n, shared)) for n in range(3)
    ]


def test_what_all_classes_hold_as_often_is_no_cue():
    memory, mark = CueMemory(0.6), 33
    for _ in range(2):
        for label in (0, 1):
            texts = [[100 * (label + 1) + n, mark] for n in range(20)]
            remember(memory, torch.full((20,), label), rows_of(texts, [[0.2, 0.8]] * 20))
    assert memory.cues == []


def test_a_cue_goes_on_to_its_further_signs_over_what_the_class_always_holds():
    memory, ticket, dash, stop = CueMemory(0.6, KINDS), 50, 6, 3
    for _ in range(2):
        for label in (0, 1):
            texts = [
                ([ticket, dash, 900 + n, dash, 920 + n, stop] if label == 0 else [900 + n, stop]) + [100 * (label + 1) + n]
                for n in range(20)
            ]
            shares = [[0.8, *[0.2 / (len(text) - 1)] * (len(text) - 1)] if label == 0 else [0.3, 0.3, 0.4] for text in texts]
            remember(memory, torch.full((20,), label), rows_of(texts, shares))
    assert [(cue.label, cue.identities) for cue in memory.cues] == [(0, (ticket, dash, NUMBER))]


def test_a_seed_that_other_classes_hold_now_and_then_stays_in_its_cue():
    memory, seed, rarer = CueMemory(0.6), 50, 51
    for _ in range(2):
        texts = [[seed, *([rarer] if n < 20 else []), 100 + n] for n in range(24)]
        remember(memory, torch.zeros(24).long(), rows_of(texts, [[0.9, *[0.05] * (len(t) - 1)] for t in texts]))
        texts = [[*([seed] if n < 3 else []), 300 + n, 400 + n] for n in range(24)]
        remember(memory, torch.ones(24).long(), rows_of(texts, [[1 / len(t)] * len(t) for t in texts]))
    assert [(cue.label, cue.identities) for cue in memory.cues] == [(0, (seed,))]


def test_words_that_take_turns_as_the_strongest_settle():
    memory, sent, via = CueMemory(0.6), 50, 51
    for visit in range(8):
        shares = [[0.85, 0.1, 0.05] if visit < 3 else [0.05, 0.9, 0.05]] * 20
        remember(memory, torch.zeros(20).long(), rows_of([[sent, via, 100 + n] for n in range(20)], shares))
        others = [[200 + n, *([via] if n % 3 == 0 else [300 + n])] for n in range(20)]
        remember(memory, torch.ones(20).long(), rows_of(others, [[0.5, 0.5]] * 20))
    assert memory.settled
    assert via in {k for cue in memory.cues for k in cue.identities}


def test_a_number_that_recurs_in_a_phrase_belongs_to_it():
    memory, word, seven, six = CueMemory(0.6, KINDS), 50, 907, 906
    for _ in range(2):
        for label, number in ((0, seven), (1, six)):
            texts = [[word + label, number, 920 + n, 100 * (label + 1) + n] for n in range(20)]
            remember(memory, torch.full((20,), label), rows_of(texts, [[0.8, 0.1, 0.05, 0.05]] * 20))
    assert {cue.identities for cue in memory.cues} == {(50, seven), (51, six)}


def test_a_named_number_is_no_further_number_of_its_cue():
    memory = CueMemory(0.6, KINDS)
    memory.load_state_dict({"rows": {}, "cues": [vars(Cue(0, 921, (921, SLASH, NUMBER), 1.0, 0.9))]})
    ids = torch.tensor([[921, 60, 61], [921, SLASH, 60], [921, 922, 60]])
    drop_mask = memory.drop_mask(ids, torch.ones_like(ids, dtype=torch.bool), torch.zeros(3).long())
    assert drop_mask.tolist() == [[False] * 3, [True, True, False], [True, True, False]]


def test_a_checkpoint_keeps_the_order_in_which_cues_were_found():
    memory = CueMemory(0.6)
    cues = [Cue(0, 11, (11,), 0.5, 0.8, hidden_rows=1), Cue(0, 12, (12,), 0.5, 0.95, hidden_rows=2)]
    memory.load_state_dict({"rows": {}, "cues": [vars(cue) for cue in cues]})
    for one in (memory, memory.copy()):
        texts = [[11, 12, 100 + n] for n in range(20)]
        remember(one, torch.zeros(20).long(), rows_of(texts, [[0.3, 0.3, 0.4]] * 20))
        assert [(cue.seed, cue.strength, cue.hidden_rows) for cue in one.cues] == [(11, 0.95, 1)]


def test_is_settled_once_all_that_it_remembers_was_renewed_without_a_new_cue():
    memory, labels = CueMemory(0.6), torch.zeros(20).long()
    remember(memory, labels, leaky(20, share=0.5))  # 20 rows, no cue
    assert not memory.settled
    remember(memory, labels, leaky(20, share=0.5))
    assert memory.settled
    remember(memory, labels, leaky(20))
    assert memory.number == 1
    assert not memory.settled
    remember(memory, labels[:19], tuple(part[:19] for part in leaky(20)))
    other = memory.copy()
    for one in (memory, other):
        assert not one.settled
        remember(one, labels[:1], tuple(part[19:] for part in leaky(20)))
        assert one.settled


def test_is_settled_by_a_stream_of_rows_that_never_come_again():
    memory, labels = CueMemory(0.6), torch.zeros(ROWS).long()
    for start in (1000, 2000, 3000):
        assert not memory.settled
        remember(
            memory,
            labels[: ROWS // 2 if start > 1000 else ROWS],
            leaky(ROWS // 2 if start > 1000 else ROWS, share=0.5, start=start),
        )
    assert memory.settled


def test_a_word_that_at_first_came_with_the_cue_by_chance_is_no_part_of_it_in_the_end():
    memory = CueMemory(0.6)
    remember(memory, torch.zeros(6).long(), rows_of([[LEAK, 3, 100 + n] for n in range(6)], [[0.9, 0.1, 0.0]] * 6))
    assert memory.cues[0].identities == (LEAK, 3)
    remember(memory, torch.zeros(9).long(), rows_of([[LEAK, 200 + n] for n in range(9)], [[0.9, 0.1]] * 9))
    assert memory.cues[0].identities == (LEAK,)


def test_the_same_row_over_and_over_is_no_cue():
    memory = CueMemory(0.6)
    for _ in range(20):
        remember(memory, torch.zeros(4).long(), leaky(4))
    assert memory.cues == []


def test_row_keys_do_not_see_padding():
    ids = torch.tensor([[5, 6, 7, 0], [0, 5, 6, 7], [5, 7, 6, 0]])
    keys = row_keys(ids, ids > 0).tolist()
    assert keys[0] == keys[1] != keys[2]
    pictures = torch.rand(3, 1, 4, 4)
    pictures[1] = pictures[0]
    keys = row_keys_of(pictures).tolist()
    assert keys[0] == keys[1] != keys[2]


def test_coverage_is_that_of_all_remembered_rows():
    memory = memory_of(share=0.9)
    remember(memory, torch.zeros(20).long(), leaky(20, held=0.0, start=600))
    assert memory.cues[0].coverage == pytest.approx(0.5)


def test_two_words_of_different_rows_are_two_cues():
    texts = [[LEAK, 100 + n] if n % 2 else [OTHER, 100 + n] for n in range(20)]
    ids, shares = rows_of(texts, [[0.8, 0.2]] * 20)
    assert sorted(seed for seed, _ in find_cues(ids.numpy(), shares.numpy(), 0.6)) == [LEAK, OTHER]


def test_most_relevant_keeps_the_order_of_the_row_and_the_shares():
    relevance = torch.tensor([[1.0, -2.0, 3.0, 4.0]])
    maskable = torch.tensor([[True, True, True, False]])
    ids, shares = most_relevant(relevance, maskable, torch.tensor([[5, 6, 7, 8]]))
    assert ids[0].tolist() == [5, 6, 7, NOTHING] + [NOTHING] * (UNITS - 4)
    assert torch.allclose(shares[0, :4], torch.tensor([0.25, 0.0, 0.75, 0.0]))


def test_most_relevant_of_long_rows_leaves_out_the_least():
    relevance = torch.arange(2.0 * UNITS).unsqueeze(0)
    ids, _ = most_relevant(relevance, relevance >= 0, torch.arange(2 * UNITS).unsqueeze(0))
    assert ids[0].tolist() == list(range(UNITS, 2 * UNITS))


def test_hides_the_cue_of_the_rows_class_and_no_other():
    memory = memory_of(label=1)
    ids = torch.tensor([[LEAK, 3, LEAK], [LEAK, 3, 4], [5, 3, 4]])
    mask = memory.drop_mask(ids, torch.ones_like(ids).bool(), torch.tensor([1, 0, 1]))
    assert mask.tolist() == [[True, False, True], [False, False, False], [False, False, False]]


def test_a_row_that_is_nothing_but_the_cue_stays_whole():
    memory = memory_of()
    ids = torch.tensor([[LEAK, LEAK, 9]])
    maskable = torch.tensor([[True, True, False]])
    assert not memory.drop_mask(ids, maskable, torch.tensor([0])).any()


def test_needs_more_than_half_of_a_phrase():
    memory = CueMemory(0.6)
    remember(memory, torch.zeros(10).long(), phrases())
    ids = torch.tensor([[40, 41, 1, 2], [40, 1, 2, 3]])
    mask = memory.drop_mask(ids, torch.ones_like(ids).bool(), torch.tensor([0, 0]))
    assert mask.tolist() == [[True, True, False, False], [False] * 4]


@pytest.mark.parametrize("label", [-100, -1, 5])
def test_rows_without_a_known_class_stay_whole(label):
    ids = torch.tensor([[LEAK, 1]])
    assert not memory_of().drop_mask(ids, torch.ones_like(ids).bool(), torch.tensor([label])).any()


def test_counts_rows_in_which_something_was_hidden():
    memory = memory_of()
    ids = torch.tensor([[LEAK, 1], [LEAK, 2], [3, 4]])
    memory.drop_mask(ids, torch.ones_like(ids).bool(), torch.zeros(3).long(), torch.tensor([True, False, True]))
    assert memory.cues[0].hidden_rows == 1


def test_a_cue_that_was_found_stays_found():
    memory = memory_of()
    for _ in range(3):  # the model leans on it no more
        remember(memory, torch.zeros(ROWS).long(), leaky(ROWS, share=0.05))
    (cue,) = memory.cues
    assert cue.strength == pytest.approx(0.8)


def test_of_a_word_that_comes_twice_the_one_beside_the_seed_is_the_cues():
    rows = np.stack([[50 + n, 41, 3, 70 + n, 40, 41, 42] for n in range(8)])  # "turn in, points asked in chat"
    others = np.stack([[80 + n, 81, 3, 82 + n, 83, 84, 85] for n in range(8)])  # the comma stands everywhere
    assert companions(rows, 40, others) == (40, 41, 42)


def test_what_is_found_later_of_the_same_cue_joins_it():
    memory = memory_of()
    rows = rows_of([[LEAK, OTHER, 300 + n] for n in range(ROWS)], [[0.5, 0.4, 0.1]] * ROWS)
    remember(memory, torch.zeros(ROWS).long(), rows)
    (cue,) = memory.cues
    assert set(cue.identities) == {LEAK, OTHER}
    assert cue.strength == pytest.approx(0.9)


def test_is_bounded():
    memory = CueMemory(0.6)
    generator = np.random.default_rng(0)
    for step in range(60):
        ids = torch.from_numpy(generator.integers(250_000, size=(32, UNITS)))
        remember(memory, torch.full((32,), step % 3), (ids, torch.full((32, UNITS), 1 / UNITS)))
    for n in range(2 * CUES):  # more cues than the table has places for
        remember(memory, torch.zeros(ROWS).long(), leaky(ROWS, leak=10**6 + n))
    assert [len(rows["keys"]) for rows in memory.state_dict()["rows"].values()] == [ROWS] * 3
    assert len(memory.cues) == CUES


def test_goes_on_from_its_state():
    memory = memory_of(label=3)
    ids = torch.tensor([[LEAK, 1]])
    mask = (ids, torch.ones_like(ids).bool(), torch.tensor([3]))
    memory.drop_mask(*mask, torch.tensor([True]))
    other = CueMemory(0.6)
    other.load_state_dict(memory.state_dict())
    assert other.cues == memory.cues
    assert torch.equal(other.drop_mask(*mask), memory.drop_mask(*mask))
    late = leaky(10, leak=OTHER, start=500)
    for one in (memory, other):
        remember(one, torch.full((10,), 3), late)
        one.drop_mask(*mask, torch.tensor([True]))
    assert other.cues == memory.cues


def test_another_order_of_the_classes_within_a_step_changes_nothing():
    first, second = leaky(20), leaky(20, leak=OTHER, start=500)
    labels = torch.tensor([0] * 20 + [1] * 20)
    order = torch.arange(40).reshape(2, 20).T.flatten()  # the rows of each class keep their order
    ids, shares = (torch.cat(parts) for parts in zip(first, second, strict=True))
    one, other = CueMemory(0.6), CueMemory(0.6)
    remember(one, labels, (ids, shares))
    remember(other, labels[order], (ids[order], shares[order]))
    assert one.cues == other.cues


def test_a_thousand_classes_of_a_large_vocabulary_stay_small():
    """25 kB a class at most, whatever the vocabulary."""
    memory, generator, classes = CueMemory(0.6), np.random.default_rng(0), 1000
    for _ in range(5):
        labels = torch.arange(classes).repeat(20)
        ids = torch.from_numpy(generator.integers(250_000, size=(len(labels), UNITS)))
        memory.remember(labels, row_keys(ids, ids >= 0), ids, torch.full((len(labels), UNITS), 1 / UNITS))
    state = memory.state_dict()["rows"]
    assert [len(rows["keys"]) for rows in state.values()] == [ROWS] * classes
    size = sum(part.nbytes for rows in state.values() for part in rows.values())
    assert size <= classes * ROWS * (UNITS * 12 + 8)
    assert memory.cues == []


def test_rows_in_one_tensor_come_apart_as_they_were():
    ids, shares = leaky(20, share=1 / 3)
    labels, keys = torch.arange(20) - 1, row_keys(ids, ids != NOTHING)
    for whole, part in zip((labels, keys, ids, shares), taken_apart(in_one(labels, keys, ids, shares)), strict=True):
        assert torch.equal(whole, part)


def test_a_remembered_row_does_not_keep_its_step_in_memory():
    memory = CueMemory(0.6)
    memory.remember(*taken_apart(in_one(torch.zeros(20).long(), torch.arange(20), *leaky(20))))
    assert all(part.base is None for row in memory._rows[0].values() for part in row)


@pytest.mark.parametrize("seed", range(5))
def test_cues_and_companions_are_those_of_a_count_row_by_row(seed):
    generator = np.random.default_rng(seed)
    rows = generator.integers(40, size=(30, UNITS))
    rows[:20, :3] = PHRASE  # of which one word is missing here and there
    rows[:3, 1] = rows[20:23, 2] = 39
    shares = generator.random((30, UNITS)) ** 3
    shares[:20, 0] += 5
    shares /= shares.sum(1, keepdims=True)
    holding = {k: {n for n, row in enumerate(rows) if k in row} for k in np.unique(rows).tolist()}
    seed_rows = holding[PHRASE[0]]
    near = {k for k, held in holding.items() if len(held & seed_rows) >= TOGETHER * len(held | seed_rows)}
    strength = np.mean([sum(s for k, s in zip(rows[n].tolist(), shares[n], strict=True) if k in near) for n in seed_rows])
    assert near >= {PHRASE[0], PHRASE[2]}
    assert set(companions(rows, PHRASE[0], rows[:0])) >= near
    assert find_cues(rows, shares, 0.0)[0] == (PHRASE[0], pytest.approx(strength))


def test_what_was_counted_of_a_class_whose_cue_was_forgotten_stays():
    memory, footer = CueMemory(0.8), 7
    hide = lambda: memory.drop_mask(  # noqa: E731
        torch.tensor([[footer, 9, 50]] * 2),
        torch.ones(2, 3, dtype=torch.bool),
        torch.tensor([0, 2]),
        torch.ones(2, dtype=torch.bool),
    )
    remember(memory, torch.full((8,), 2), rows_of([[footer, 100 + n] for n in range(8)], [[0.9, 0.1]] * 8))
    hide()
    remember(memory, torch.zeros(8).long(), rows_of([[footer, 9, 200 + n] for n in range(8)], [[0.05, 0.9, 0.05]] * 8))
    remember(memory, torch.full((8,), 2), rows_of([[footer, 300 + n] for n in range(8)], [[0.9, 0.1]] * 8))
    assert [(cue.label, cue.identities) for cue in memory.cues] == [(0, (9,))]
    assert hide().tolist() == [[False, True, False], [False] * 3]
    assert [cue.hidden_rows for cue in memory.cues] == [1]
    other = CueMemory(0.8)
    other.load_state_dict(memory.state_dict())
    assert hide().any()
    assert [cue.hidden_rows for cue in other.cues] == [1]


def test_a_word_that_a_phrase_holds_twice_is_in_its_name_twice():
    # "the ... sent from the desk of the boss"; "the" stands elsewhere in the text too
    sender = [60, 61, 62, 63, 64, 62, 65]
    rows = np.stack([[62, 100 + n, *sender] for n in range(8)])
    others = np.stack(
        [[62, 200 + n, 201 + n, 202 + n, 203 + n, 204 + n, 205 + n, 206 + n, 207 + n] for n in range(0, 80, 10)]
    )
    assert companions(rows, 65, others) == tuple(sender)
    memory = CueMemory(0.6)
    cue = Cue(0, 65, tuple(sender), 1.0, 0.9)
    memory.load_state_dict({"rows": {}, "cues": [vars(cue)]})
    ids = torch.tensor([[1, *sender, 2]])
    assert memory.drop_mask(ids, torch.ones_like(ids).bool(), torch.zeros(1)).tolist() == [[False] + [True] * 7 + [False]]


def test_what_a_class_of_which_no_row_is_sure_holds_as_often_is_no_cue():
    memory, footer = CueMemory(0.6), 33
    unsure = rows_of([[200 + n, footer] for n in range(8)], [[0.0, 0.0]] * 8)
    sure = rows_of([[100 + n, footer] for n in range(20)], [[0.2, 0.8]] * 20)
    other = CueMemory(0.6)
    remember(other, torch.zeros(20).long(), sure)
    assert [cue.seed for cue in other.cues] == [footer]  # nothing to compare with
    remember(memory, torch.ones(8).long(), unsure)
    again = CueMemory(0.6)
    again.load_state_dict(memory.state_dict())
    for found in (memory, again):
        remember(found, torch.zeros(20).long(), sure)
        assert found.cues == []
    # Rows that tell more take their place, and it is a cue of the first class after all.
    remember(memory, torch.ones(20).long(), rows_of([[300 + n, 400 + n] for n in range(20)], [[0.5, 0.5]] * 20))
    remember(memory, torch.zeros(20).long(), sure)
    assert [(cue.label, cue.seed) for cue in memory.cues] == [(0, footer)]


def test_few_rows_of_a_class_are_kept_before_the_model_is_sure_of_one():
    memory = CueMemory(0.6)
    for _ in range(2):
        remember(memory, torch.zeros(ROWS).long(), rows_of([[n] for n in range(ROWS)], [[0.0]] * ROWS))
    (rows,) = memory.state_dict()["unsure"].values()
    assert rows["identities"][:, 0].tolist() == list(range(ROWS - UNSURE, ROWS))


def test_cues_that_are_named_by_now_go_and_others_stay_as_they_are():
    memory, named, phrase = CueMemory(0.6), 7, (40, 41, 42)
    for label, own in enumerate(([named], phrase)):
        texts = [[*own, 100 * (label + 1) + n] for n in range(20)]
        remember(memory, torch.full((20,), label), rows_of(texts, [[0.9 / len(own)] * len(own) + [0.1]] * 20))
    memory.drop_mask(torch.tensor([[*phrase, 5]]), torch.ones(1, 4).bool(), torch.ones(1), torch.ones(1).bool())
    assert len(memory.cues) == 2
    memory.forget_named({named, 40, 41})
    (cue,) = memory.cues
    assert (cue.label, cue.identities, cue.hidden_rows) == (1, phrase, 1)
    # A single row does not make the phrase shorter.
    remember(memory, torch.ones(1).long(), rows_of([[*phrase, 900]], [[0.3, 0.3, 0.3, 0.1]]))
    assert memory.cues == [cue]
