"""Recurrent layers: signal takes all (Arras et al. 2017, arXiv 1706.07206).

torch's ``lstm`` and ``gru`` arrive as one operation each. They are unrolled here, and each product gate ⊙ signal gives all of
its relevance to the signal: gates are constants. tanh is elementwise, hence the identity rule.

    LSTM   c' = f ⊙ c + i ⊙ g          h' = o ⊙ tanh(c')              f, i, o constant
    GRU    n = tanh(W x + r ⊙ (U h))   h' = (1 - z) ⊙ n + z ⊙ h       r, z constant
    RNN    h' = tanh(W x + U h), or relu
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .rules import Rule, is_data, pass_unchanged, value_of

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State, Sequence[Tensor]], State]  # (x, state, weights) -> new state; its first is the output


def _tanh(x: Tensor) -> Tensor:
    return pass_unchanged(x, torch.tanh(x.detach()), torch.tanh)


def _affine(x: Tensor, state: State, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """W x + b, U h + b."""
    biases = weights[2:4] if len(weights) > 2 and weights[2] is not None else (None, None)
    return F.linear(x, weights[0], biases[0]), F.linear(state[0], weights[1], biases[1])


def lstm_step(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    gates = sum(_affine(x, state, weights)).chunk(4, -1)  # type: ignore[union-attr]
    i, f, o = (torch.sigmoid(gates[n].detach()) for n in (0, 1, 3))
    c = f * state[1] + i * _tanh(gates[2])
    h = o * _tanh(c)
    return (F.linear(h, weights[4]) if len(weights) > 4 else h), c  # weights[4]: proj_size


def gru_step(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    of_x, of_h = (part.chunk(3, -1) for part in _affine(x, state, weights))
    r, z = (torch.sigmoid((of_x[n] + of_h[n]).detach()) for n in (0, 1))
    n = _tanh(of_x[2] + r * of_h[2])
    return ((1 - z) * n + z * state[0],)


def rnn_tanh_step(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    return (_tanh(sum(_affine(x, state, weights))),)  # type: ignore[arg-type]


def rnn_relu_step(x: Tensor, state: State, weights: Sequence[Tensor]) -> State:
    return (torch.relu(sum(_affine(x, state, weights))),)  # type: ignore[arg-type]


def cell(step: Step) -> Rule:
    """``torch.lstm_cell`` and its like: a single step."""

    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, state, *weights = args
        new = step(x, tuple(state) if isinstance(state, (list, tuple)) else (state,), weights)
        return new if isinstance(state, (list, tuple)) else new[0]

    return rule


def unrolled(step: Step) -> Rule:
    """``torch.lstm`` and its like, for padded and for packed sequences, several layers, both directions."""

    def rule(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values = func(*args, **kwargs)
        if not is_data(values[0]):
            return values
        if isinstance(args[3], bool):
            x, state, weights, has_biases, layers, _, _, both, batch_first = args
            x = x.transpose(0, 1) if batch_first else x
            sizes = [x.shape[1]] * x.shape[0]
            data = x.flatten(0, 1)
        else:  # packed: rows sorted by length, the rows still alive at each time one after the other
            data, batch_sizes, state, weights, has_biases, layers, _, _, both = args
            sizes = batch_sizes.tolist()
        state = tuple(state) if isinstance(state, (list, tuple)) else (state,)
        directions = 2 if both else 1
        per_cell = len(weights) // (layers * directions)
        last: list[State] = []
        for layer in range(layers):
            outputs = []
            for direction in range(directions):
                at = layer * directions + direction
                own = list(weights[at * per_cell : (at + 1) * per_cell])
                if not has_biases and per_cell > 2:  # a projection but no biases
                    own = [*own[:2], None, None, *own[2:]]
                output, end = _run(step, data, sizes, tuple(s[at] for s in state), own, bool(direction))
                outputs.append(output)
                last.append(end)
            data = torch.cat(outputs, -1)
        if isinstance(args[3], bool):
            data = data.unflatten(0, (len(sizes), sizes[0]))
            data = data.transpose(0, 1) if args[-1] else data
        unrolled_values = (data, *(torch.stack(part) for part in zip(*last, strict=True)))
        return tuple(value_of(ours, value.detach()) for ours, value in zip(unrolled_values, values, strict=True))

    return rule


def _run(
    step: Step, data: Tensor, sizes: list[int], state: State, weights: Sequence[Tensor], backwards: bool
) -> tuple[Tensor, State]:
    """One layer in one direction. Rows whose sequence is over (or, backwards, not yet begun) keep their state."""
    chunks = list(data.split(sizes))
    outputs: list[Tensor] = []
    for x in reversed(chunks) if backwards else chunks:
        alive = len(x)
        new = step(x, tuple(s[:alive] for s in state), weights)
        outputs.append(new[0])
        state = tuple(torch.cat([n, s[alive:]]) for n, s in zip(new, state, strict=True))
    return torch.cat(outputs[::-1] if backwards else outputs), state


UNROLLED: dict[Callable[..., Any], Rule] = {
    torch.lstm: unrolled(lstm_step),
    torch.gru: unrolled(gru_step),
    torch.rnn_tanh: unrolled(rnn_tanh_step),
    torch.rnn_relu: unrolled(rnn_relu_step),
    torch.lstm_cell: cell(lstm_step),
    torch.gru_cell: cell(gru_step),
    torch.rnn_tanh_cell: cell(rnn_tanh_step),
    torch.rnn_relu_cell: cell(rnn_relu_step),
}
