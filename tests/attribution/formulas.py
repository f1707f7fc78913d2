"""Relevance through a piece of torch code, and the formulas it is compared with: R_in from R_out, without autograd."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from hf_challenger.attribution import Composite
from hf_challenger.attribution.interception import Interception

ATTNLRP = Composite.named("attnlrp")


def tensor(*shape: int, seed: int = 0) -> Tensor:
    """Values away from 0, where the formulas below divide."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values + values.sign() * 0.1


def propagate(composite: str | Composite, call: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    """(relevance of each input ..., relevance of the output): the output's gradient is random, R = value · gradient.

    Along the way: the values under the rules are those of plain torch.
    """
    leaves = [x.clone().requires_grad_() for x in inputs]
    with Interception(Composite.named(composite)):
        output = call(*(leaf.clone() for leaf in leaves))
    with torch.no_grad():
        torch.testing.assert_close(output.detach(), call(*(x.clone() for x in inputs)), rtol=1e-12, atol=1e-12)
    gradient = tensor(*output.shape, seed=99)
    gradients = torch.autograd.grad(output, leaves, gradient, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else x * g for x, g in zip(inputs, gradients, strict=True)]
    return (*found, output.detach() * gradient)


def close(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def through_matrix(x: Tensor, matrix: Tensor, z: Tensor, relevance: Tensor) -> Tensor:
    """R_i = Σ_j x_i M_ij / z_j · R_j, in loops."""
    x, z, relevance, out = x.flatten(), z.flatten(), relevance.flatten(), torch.zeros_like(x.flatten())
    for i in range(len(x)):
        for j in range(len(z)):
            out[i] += x[i] * matrix[i, j] / z[j] * relevance[j]
    return out


def matrix_of(linear: Callable[[Tensor], Tensor], shape: torch.Size) -> Tensor:
    """Row i: what input i alone gives, without bias."""
    basis = torch.eye(shape.numel(), dtype=torch.float64).reshape(-1, *shape)
    return torch.stack([(linear(e) - linear(torch.zeros_like(e))).flatten() for e in basis])


def half_through_matmul(a: Tensor, b: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """AttnLRP Eq. 7 for z = a b: R_a[i,k] = Σ_j a_ik b_kj / (2 z_ij) · R_ij, and likewise for b."""
    z = a @ b
    of_a, of_b = torch.zeros_like(a), torch.zeros_like(b)
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            for k in range(a.shape[1]):
                part = a[i, k] * b[k, j] / (2 * z[i, j]) * relevance[i, j]
                of_a[i, k] += part
                of_b[k, j] += part
    return of_a, of_b
