"""Recurrent rules against their relevance formulas, in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from formulas import ATTNLRP, close, propagate, tensor, through_matrix
from torch import Tensor, nn

from hf_challenger.attribution.interception import Interception

# --- recurrent layers -------------------------------------------------------------------------------------------------


def split_by(parts: list[Tensor], z: Tensor, relevance: Tensor) -> list[Tensor]:
    """z = Σ parts (+ bias): each part gets its share."""
    return [part / z * relevance for part in parts]


def affine_backwards(x: Tensor, w: Tensor, part_relevance: Tensor) -> Tensor:
    """Relevance of the vector x for w x, of which ``part_relevance`` is the relevance."""
    return through_matrix(x, w.T, w @ x, part_relevance)


def lstm_by_hand(x: Tensor, layer: nn.LSTM, relevance: Tensor) -> Tensor:
    """Arras et al. 2017, one row: x (T, d), relevance of the outputs h (T, n) → (T, d)."""
    w, u, b = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0 + layer.bias_hh_l0
    n, time = layer.hidden_size, len(x)
    h, c = [torch.zeros(n).double()], [torch.zeros(n).double()]
    gates = []
    for t in range(time):
        z = w @ x[t] + u @ h[t] + b
        i, f, g, o = z[:n].sigmoid(), z[n : 2 * n].sigmoid(), z[2 * n : 3 * n].tanh(), z[3 * n :].sigmoid()
        c.append(f * c[t] + i * g)
        h.append(o * c[t + 1].tanh())
        gates.append((i, f, g, z[2 * n : 3 * n]))
    of_x, of_h, of_c = torch.zeros_like(x), torch.zeros(n).double(), torch.zeros(n).double()
    for t in reversed(range(time)):
        i, f, g, z = gates[t]
        of_c = of_c + of_h + relevance[t]  # h = o ⊙ tanh(c): all to c
        of_old, of_g = split_by([f * c[t], i * g], c[t + 1], of_c)
        wx, uh = w[2 * n : 3 * n] @ x[t], u[2 * n : 3 * n] @ h[t]
        of_wx, of_uh = split_by([wx, uh], z, of_g)
        of_x[t] = affine_backwards(x[t], w[2 * n : 3 * n], of_wx)
        of_h = affine_backwards(h[t], u[2 * n : 3 * n], of_uh) if t else torch.zeros(n).double()
        of_c = of_old
    return of_x


def gru_by_hand(x: Tensor, layer: nn.GRU, relevance: Tensor) -> Tensor:
    w, u, b, bu = layer.weight_ih_l0, layer.weight_hh_l0, layer.bias_ih_l0, layer.bias_hh_l0
    n, time = layer.hidden_size, len(x)
    h, steps = [torch.zeros(n).double()], []
    for t in range(time):
        a, d = w @ x[t] + b, u @ h[t] + bu
        r, z = (a[:n] + d[:n]).sigmoid(), (a[n : 2 * n] + d[n : 2 * n]).sigmoid()
        m = a[2 * n :] + r * d[2 * n :]
        h.append((1 - z) * m.tanh() + z * h[t])
        steps.append((r, z, m))
    of_x, of_h = torch.zeros_like(x), torch.zeros(n).double()
    for t in reversed(range(time)):
        r, z, m = steps[t]
        of_new, of_old = split_by([(1 - z) * m.tanh(), z * h[t]], h[t + 1], of_h + relevance[t])
        wx, uh = w[2 * n :] @ x[t], u[2 * n :] @ h[t]
        of_wx, of_uh = split_by([wx, r * uh], m, of_new)
        of_x[t] = affine_backwards(x[t], w[2 * n :], of_wx)
        of_h = of_old + (affine_backwards(h[t], u[2 * n :], of_uh) if t else 0)
    return of_x


@pytest.mark.parametrize(("make", "by_hand"), [(nn.LSTM, lstm_by_hand), (nn.GRU, gru_by_hand)])
def test_recurrent_layers_let_the_signal_take_all(make: Any, by_hand: Callable[..., Tensor]) -> None:
    torch.manual_seed(0)
    layer = make(3, 4, batch_first=True).double().requires_grad_(False)
    x = tensor(2, 5, 3)
    found, relevance = propagate("attnlrp", lambda x: layer(x)[0], x)
    for row in range(2):
        close(found[row], by_hand(x[row], layer, relevance[row]))


@pytest.mark.parametrize("make", [nn.LSTM, nn.GRU, nn.RNN])
def test_packed_bidirectional_layers_give_each_row_what_it_gets_alone(make: Any) -> None:
    torch.manual_seed(0)
    layer = make(3, 4, num_layers=2, bidirectional=True, batch_first=True).double().requires_grad_(False)
    x, lengths = tensor(2, 5, 3), [5, 3]

    def packed(x: Tensor) -> Tensor:
        sequence = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(layer(sequence)[0], batch_first=True)[0]

    leaf = x.clone().requires_grad_()
    with Interception(ATTNLRP):
        output = packed(leaf)
    (gradient,) = torch.autograd.grad(output.sum(), leaf)
    for row, length in enumerate(lengths):
        alone = x[row : row + 1, :length].clone().requires_grad_()
        with Interception(ATTNLRP):
            output_alone = layer(alone)[0]
        close(output[row : row + 1, :length], output_alone)
        (gradient_alone,) = torch.autograd.grad(output_alone.sum(), alone)
        close(gradient[row, :length], gradient_alone[0])
        assert (gradient[row, length:] == 0).all()


@pytest.mark.parametrize(
    ("make", "cell"),
    [(nn.LSTM, nn.LSTMCell), (nn.GRU, nn.GRUCell), (nn.RNN, nn.RNNCell)],
)
def test_cells_step_as_their_layers_do(make: Any, cell: Any) -> None:
    torch.manual_seed(0)
    layer = make(3, 4).double().requires_grad_(False)
    one = cell(3, 4).double().requires_grad_(False)
    for own, theirs in zip(one.parameters(), layer.parameters(), strict=True):
        own.copy_(theirs)
    x = tensor(5, 2, 3)

    def by_cells(x: Tensor) -> Tensor:
        state, outputs = None, []
        for step in x:
            state = one(step, state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs)

    close(propagate("attnlrp", lambda x: layer(x)[0], x)[0], propagate("attnlrp", by_cells, x)[0])


def test_projected_and_biasless_lstms_keep_their_values() -> None:
    torch.manual_seed(0)
    for options in ({"proj_size": 2}, {"bias": False}, {"proj_size": 2, "bias": False}):
        layer = nn.LSTM(3, 4, **options).double().requires_grad_(False)
        found, relevance = propagate("attnlrp", lambda x, layer=layer: layer(x)[0], tensor(5, 2, 3))
        if options == {"bias": False}:  # neither biases nor gates take anything: relevance is conserved
            close(found.sum(), relevance.sum())
