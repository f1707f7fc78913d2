"""Writes zennit_relevances.json, relevances by zennit of the networks below: pip install zennit==0.5.1, then run this file.

zennit itself is not needed by the tests, which compare with the numbers in that file.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

FILE = Path(__file__).with_suffix(".json")
# zennit's rule → that rule with the options it is given; its stabiliser is 1e-6 throughout.
RULES = {"epsilon": {"epsilon": 1e-6}, "epsilon_large": {"epsilon": 0.05}, "gamma": {"gamma": 0.25}, "zplus": {}}
COMPOSITE = "epsilon_plus"  # z+ in convolutions, epsilon elsewhere; the composite that is most used on images


def network(name: str) -> tuple[nn.Sequential, Tensor]:
    """A network with weights that need no random numbers, and an input with positive numbers, as after a ReLU."""
    if name == "linear":
        model, shape = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), (2, 6)
    else:
        layers = [nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)]
        model, shape = nn.Sequential(*layers), (2, 1, 6, 6)
    model = model.double().eval()
    with torch.no_grad():
        for k, parameter in enumerate(model.parameters()):
            numbers = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((torch.sin(1.7 * numbers + k) * 0.5).reshape(parameter.shape))
            if parameter.dim() == 1:
                parameter.zero_()
    numbers = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return model, (torch.cos(0.9 * numbers) + 1.2).reshape(shape)


def relevance(model: nn.Module, x: Tensor) -> object:
    """Of the largest output of each row, after zennit has registered its rules."""
    x.requires_grad_()
    out = model(x)
    rows, best = torch.arange(len(x)), out.detach().argmax(1)
    # For outputs below 0 zennit's gamma favours negative terms, where captum's does not.
    assert (out[rows, best] > 0).all()
    seed = torch.zeros_like(out)
    seed[rows, best] = out.detach()[rows, best]
    return torch.autograd.grad(out, x, seed)[0].tolist()


def main() -> None:
    import sys
    from types import ModuleType

    sys.modules["zennit.torchvision"] = ModuleType("zennit.torchvision")  # needs torchvision, and none of it is used here
    from zennit.composites import EpsilonPlus
    from zennit.rules import Epsilon, Gamma, Pass, ZPlus

    made = {"epsilon": Epsilon, "epsilon_large": Epsilon, "gamma": Gamma, "zplus": ZPlus}
    found: dict[str, object] = {}
    for name in ("linear", "convolutions"):
        for rule, options in RULES.items():
            model, x = network(name)
            handles = [
                (Pass() if isinstance(module, nn.ReLU) else made[rule](**options)).register(module)
                for module in model
                if not isinstance(module, nn.Flatten)
            ]
            found[f"{name}-{rule}"] = relevance(model, x)
            for handle in handles:
                handle.remove()
        model, x = network(name)
        with EpsilonPlus().context(model):
            found[f"{name}-{COMPOSITE}"] = relevance(model, x)
    FILE.write_text(
        json.dumps({"made_by": f"zennit {version('zennit')}, tests/attribution/{Path(__file__).name}", **found}) + "\n"
    )


if __name__ == "__main__":
    main()
