"""What is explained: every kind of target, against sums written out by hand."""

import captum.attr
import pytest
import torch
from torch import nn

from hf_challenger.attribution import LRP, contrastive, log_odds
from hf_challenger.attribution.methods import METHODS
from hf_challenger.attribution.targets import TARGETS, named_target, predicted, score_of
from hf_challenger.errors import ChallengerError

LOGITS = torch.tensor([[1.0, 2.0, -1.0], [0.5, -3.0, 4.0]])


def test_an_index_for_all_rows():
    assert score_of(LOGITS, 1).tolist() == [2.0, -3.0]
    assert score_of(LOGITS, torch.tensor(1)).tolist() == [2.0, -3.0]


def test_one_index_a_row():
    for target in ([0, 2], torch.tensor([0, 2]), torch.tensor([[0], [2]]), torch.tensor([0, 2], dtype=torch.int32)):
        assert score_of(LOGITS, target).tolist() == [1.0, 4.0]


def test_none_is_the_prediction_or_the_only_output():
    assert score_of(LOGITS, None).tolist() == [2.0, 4.0]
    assert predicted(LOGITS).tolist() == [1, 2]
    assert score_of(LOGITS[:, :1], None).tolist() == [1.0, 0.5]
    assert score_of(LOGITS[:, 0], None).tolist() == [1.0, 0.5]


def test_contrastive_is_own_minus_best_other():
    assert contrastive(torch.tensor([0, 2]))(LOGITS).tolist() == [1.0 - 2.0, 4.0 - 0.5]
    assert contrastive(1)(LOGITS).tolist() == [2.0 - 1.0, -3.0 - 4.0]
    assert contrastive(None)(LOGITS).tolist() == [2.0 - 1.0, 4.0 - 0.5]


def test_log_odds_are_those_of_the_softmax_probability():
    p = LOGITS.softmax(-1)[[0, 1], [0, 2]]
    assert torch.allclose(log_odds(torch.tensor([0, 2]))(LOGITS), (p / (1 - p)).log(), atol=1e-6)


def test_a_single_output_has_no_others():
    for score in (contrastive(torch.tensor([0, 0])), log_odds(torch.tensor([0, 0]))):
        assert score(LOGITS[:, :1]).tolist() == [1.0, 0.5]


def test_a_callable():
    assert score_of(LOGITS, lambda logits: logits[:, 0] * 2).tolist() == [2.0, 1.0]


def test_multi_label_is_the_sum_over_the_rows_labels():
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]])
    assert score_of(LOGITS, labels).tolist() == [1.0 - 1.0, -3.0 + 4.0]
    for name in ("gold", "contrastive", "log_odds"):
        assert score_of(LOGITS, named_target(name, labels)).tolist() == [0.0, 1.0]


def test_regression_is_its_only_output():
    values = torch.tensor([0.7, -2.0])
    for name in TARGETS:
        assert score_of(LOGITS[:, :1], named_target(name, values)).tolist() == [1.0, 0.5]
        assert score_of(LOGITS[:, 0], named_target(name, values)).tolist() == [1.0, 0.5]


def test_names():
    labels = torch.tensor([0, 2])
    assert score_of(LOGITS, named_target("gold", labels)).tolist() == [1.0, 4.0]
    assert score_of(LOGITS, named_target("predicted", labels)).tolist() == [2.0, 4.0]
    assert score_of(LOGITS, named_target("contrastive", labels)).tolist() == [-1.0, 3.5]
    assert torch.equal(score_of(LOGITS, named_target("log_odds", labels)), log_odds(labels)(LOGITS))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        (3, r"class index in \[0, 2\], as the model has 3 outputs; got 3 to 3"),
        (torch.tensor([0, -1]), r"class index in \[0, 2\].*got -1 to 0"),
        (torch.tensor([0, 1, 2]), r"One target a row is needed: got 3 targets for 2 rows"),
        (torch.tensor([0.5, 1.0]), r"A float target has the shape of the logits, \(2, 3\); got \(2,\)"),
        (lambda logits: logits, r"A callable target returns one score a row, shape \(2,\); got \(2, 3\)"),
        (lambda logits: 1.0, r"one score a row, shape \(2,\); got float"),
    ],
)
def test_errors_say_what_was_expected(target, words):
    with pytest.raises(ChallengerError, match=words):
        score_of(LOGITS, target)


# --- scores with several axes -----------------------------------------------------------------------------------------

PLACES = torch.arange(24.0).reshape(2, 4, 3)  # (rows, places, classes)


def test_a_tuple_names_the_index_on_each_axis_as_in_captum():
    assert score_of(PLACES, (1, 2)).tolist() == [5.0, 17.0]
    assert score_of(LOGITS, (1,)).tolist() == [2.0, -3.0]
    assert score_of(PLACES.unsqueeze(-1), (1, 2, 0)).tolist() == [5.0, 17.0]


def test_a_list_of_tuples_names_one_index_a_row():
    for target in ([(0, 2), (3, 1)], torch.tensor([[0, 2], [3, 1]])):
        assert score_of(PLACES, target).tolist() == [2.0, 12 + 10.0]


def test_float_targets_and_callables_take_scores_of_any_shape():
    weights = torch.zeros(2, 4, 3)
    weights[:, 1, 2], weights[:, 0, 0] = 2.0, 1.0
    assert score_of(PLACES, weights).tolist() == [10.0, 12 + 34.0]
    assert score_of(PLACES, lambda scores: scores[:, 3, 0]).tolist() == [9.0, 21.0]


def test_axes_of_length_1_do_not_count():
    for scores in (LOGITS.unsqueeze(1), LOGITS.unsqueeze(2), LOGITS.reshape(2, 1, 3, 1)):
        assert score_of(scores, torch.tensor([0, 2])).tolist() == [1.0, 4.0]
        assert score_of(scores, None).tolist() == [2.0, 4.0]
        assert contrastive(1)(scores).tolist() == contrastive(1)(LOGITS).tolist()


@pytest.mark.parametrize(
    "target", [None, 1, [0, 2], torch.tensor([0, 2]), torch.tensor([[0], [2]]), contrastive(1), log_odds(None), (1,)]
)
def test_a_target_without_a_place_is_refused(target):
    with pytest.raises(
        ChallengerError, match=r"scores of shape \(2, 4, 3\).*tuple of 2 indices, \(place, class\).*callable"
    ):
        score_of(PLACES, target)


def test_an_index_beyond_its_axis_is_refused():
    with pytest.raises(ChallengerError, match=r"class index in \[0, 3\], as the model has 4 outputs; got 4 to 4"):
        score_of(PLACES, (4, 0))
    with pytest.raises(ChallengerError, match=r"class index in \[0, 2\].*got -1 to 1"):
        score_of(PLACES, [(0, -1), (0, 1)])


class Tagger(nn.Module):
    """(rows, places, classes): each place sees itself alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(4, 3, bias=False)

    def forward(self, x):
        return self.head(x)


def test_relevance_of_a_place_is_at_that_place():
    model, x = Tagger(), torch.rand(2, 5, 4)
    relevance = LRP(model).attribute(x, target=(3, 1))
    expected = torch.zeros_like(x)
    expected[:, 3] = x[:, 3] * model.head.weight[1].detach()
    assert torch.allclose(relevance, expected)
    per_row = LRP(model).attribute(x, target=[(3, 1), (0, 1)])
    assert torch.equal(per_row[0], relevance[0])
    assert per_row[1, 1:].abs().sum() == 0
    theirs = captum.attr.InputXGradient(model).attribute(x.requires_grad_(), target=[(3, 1), (0, 1)])
    assert torch.allclose(per_row, theirs)
    for name in ("input_x_gradient", "captum_lrp"):
        assert torch.allclose(METHODS[name](model, {"x": x.detach()}, (3, 1), "attnlrp"), expected, atol=1e-6)
        with pytest.raises(ChallengerError, match=r"scores of shape \(2, 5, 3\)"):
            METHODS[name](model, {"x": x.detach()}, 1, "attnlrp")


def test_relevance_is_linear_in_the_target():
    """Through a real pass: the contrastive map is the difference of the two classes' maps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    maps = torch.stack([LRP(model).attribute(x, target=k) for k in range(3)])
    own = torch.tensor([0, 1, 2, 0, 1])
    best_other = model(x).scatter(1, own.unsqueeze(1), float("-inf")).argmax(1)
    rows = torch.arange(5)
    assert torch.allclose(LRP(model).attribute(x, target=contrastive(own)), maps[own, rows] - maps[best_other, rows])
    weights = model(x).scatter(1, own.unsqueeze(1), float("-inf")).softmax(-1)
    others = sum(weights[:, k, None] * maps[k] for k in range(3))
    assert torch.allclose(LRP(model).attribute(x, target=log_odds(own)), maps[own, rows] - others)
    labels = torch.tensor([[1.0, 0, 1]] * 5)
    assert torch.allclose(LRP(model).attribute(x, target=labels), maps[0] + maps[2])
