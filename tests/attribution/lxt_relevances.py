"""Writes lxt_relevances.json, relevances by LXT of the classifiers below: pip install --no-deps lxt==2.1, then run this file.

LXT, by the authors of AttnLRP, is not needed by the tests, which compare with the numbers in that file. It changes the classes
of transformers for the whole process, so that each case runs in one of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

FILE = Path(__file__).with_suffix(".json")
# LXT's rules for Llama under "cp_LRP" also stop the gate of the MLP, as ours do not.
CASES = [("llama", "attnLRP"), ("qwen3", "attnLRP"), ("gpt2", "attnLRP"), ("gpt2", "cp_LRP")]
LABELS = torch.tensor([1, 2])


def classifier(name: str) -> tuple[nn.Module, Tensor]:
    """A decoder of two layers, with weights that need no random numbers, and token ids of two rows."""
    small = {"vocab_size": 20, "num_labels": 3, "pad_token_id": 0}
    gated = {**small, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    model: Any
    if name == "gpt2":
        model = GPT2ForSequenceClassification(
            GPT2Config(**small, n_positions=16, n_embd=16, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=1)
        )
    elif name == "llama":
        model = LlamaForSequenceClassification(LlamaConfig(**gated, num_key_value_heads=2))
    else:
        model = Qwen3ForSequenceClassification(Qwen3Config(**gated, num_key_value_heads=2, head_dim=4))
    with torch.no_grad():
        for k, (parameter_name, parameter) in enumerate(model.named_parameters()):
            numbers = torch.arange(parameter.numel(), dtype=torch.float64)
            scale, shift = (0.2, 1.0) if "norm" in parameter_name or "ln_" in parameter_name else (0.4, 0.0)
            parameter.copy_((torch.sin(1.7 * numbers + k) * scale + shift).reshape(parameter.shape))
    ids = torch.tensor([[3, 7, 11, 4, 19, 8], [5, 5, 2, 17, 9, 1]])
    return model.double().eval(), ids


class _Functions(dict[str, Any]):
    def get_interface(self, name: str, default: Any) -> Any:
        return self.get(name, default)


def by_lxt(name: str, rules: str) -> list[list[float]]:
    """``(rows, tokens)``: the relevance of each token for its row's label."""
    from types import ModuleType

    for other in ("bert", "vit_torch"):  # written for transformers 4, and for torchvision; imported with the others
        stub = ModuleType(f"lxt.efficient.models.{other}")
        stub.modeling_bert = stub.vision_transformer = stub.attnLRP = stub.cp_LRP = other  # type: ignore[attr-defined]
        sys.modules[stub.__name__] = stub
    from importlib import import_module

    from lxt.efficient import monkey_patch

    maps = import_module(f"lxt.efficient.models.{name}")
    modeling = getattr(maps, f"modeling_{name}")
    monkey_patch(modeling, getattr(maps, rules))
    if type(modeling.ALL_ATTENTION_FUNCTIONS) is dict:  # LXT's functions, which transformers 5 looks up by a method
        modeling.ALL_ATTENTION_FUNCTIONS = _Functions(modeling.ALL_ATTENTION_FUNCTIONS)
    model, ids = classifier(name)
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()  # type: ignore[operator]
    # The logits are read at the last token, which is not padding, as with ids.
    logits = model(inputs_embeds=embedded, attention_mask=torch.ones_like(ids)).logits
    logits.gather(1, LABELS.unsqueeze(1)).sum().backward()
    assert embedded.grad is not None
    return (embedded * embedded.grad).sum(-1).tolist()


def main() -> None:
    if len(sys.argv) == 3:
        print(json.dumps(by_lxt(*sys.argv[1:])))
        return
    found: dict[str, Any] = {
        "made_by": f"lxt {version('lxt')}, transformers {version('transformers')}, tests/attribution/{Path(__file__).name}"
    }
    for case in CASES:
        done = subprocess.run([sys.executable, __file__, *case], capture_output=True, text=True, check=True)
        found["-".join(case)] = json.loads(done.stdout.splitlines()[-1])
    FILE.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
