"""LRP on every classifier family of transformers, from tiny random models; ``make test-families`` writes docs/families.md.

The sample runs with the other tests, the whole sweep under the marker ``families``.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from families import MAPPINGS, build, build_batch, families, special
from torch import Tensor, nn

from hf_challenger.attribution import LRP, Composite, rule_coverage
from hf_challenger.attribution.composed_modules import ACTIVATIONS
from hf_challenger.attribution.composites import ELEMENTWISE, FUSED_PRODUCTS, NORMALISERS, POWERS, PRODUCTS, forms_of
from hf_challenger.attribution.rules import Rule, is_data
from hf_challenger.logits import logits_of

SAMPLE = [
    *[("text", name) for name in ("albert", "bart", "bert", "canine", "deberta-v2", "distilbert", "electra", "gpt2")],
    *[("text", name) for name in ("jamba", "llama", "longformer", "mixtral", "qwen3_next", "roberta", "t5", "xlnet")],
    *[("image", name) for name in ("vit", "resnet", "swin")],
    *[("audio", name) for name in ("wav2vec2", "whisper")],
    *[("series", name) for name in ("patchtst", "patchtsmixer")],
]
EVERY = [(modality, name) for modality in MAPPINGS for name in families(modality)]
TABLE = Path(__file__).parents[2] / "docs" / "families.md"

KINDS = {
    "norm": ["layer_norm", "rms_norm", "group_norm", "instance_norm", "normalize", *NORMALISERS],
    "activation": [name for name in ELEMENTWISE if not name.startswith("clamp")] + ["glu", *POWERS],
    "attention": ["scaled_dot_product_attention", "multi_head_attention_forward"],
    "product": [*PRODUCTS, *FUSED_PRODUCTS, "linear", "conv1d", "conv2d"],
}
KIND_OF = {form: kind for kind, names in KINDS.items() for name in names for form in forms_of(name)}


def counting(name: str) -> tuple[Composite, Counter[str]]:
    """The composite, and how often a rule of each kind met data (for products: two data tensors)."""
    composite, hits = Composite.named(name), Counter[str]()

    def counted(operation: Callable[..., Any], rule: Rule) -> Rule:
        kind = KIND_OF.get(operation)

        def rule_and_count(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            data = sum(map(is_data, rule_coverage._tensors((*args, *kwargs.values()))))
            if kind and data > (kind == "product"):
                hits[kind] += 1
            return rule(func, args, kwargs)

        return rule_and_count

    return composite.with_rules({op: counted(op, rule) for op, rule in composite.table.items()}), hits


def expected_kinds(model: nn.Module, batch: dict[str, Any], hits: Counter[str]) -> set[str]:
    """What the names of the modules that run promise. Composed activation modules are counted here: a hook replaces them."""
    kinds: set[str] = set()

    def look(module: nn.Module, *_: Any) -> None:
        name = type(module).__name__
        if "Norm" in name and not list(module.children()) and "BatchNorm" not in name and name != "NoNorm":
            kinds.add("norm")
        if "Attention" in name or "Experts" in name:
            kinds.add("product")
        if name in ("GELU", "SiLU", "Tanh", "Sigmoid", "Mish") or type(module).__module__ == "transformers.activations":
            kinds.add("activation")
        if name in ACTIVATIONS or type(module).__module__ == "transformers.activations":
            hits["activation"] += 1

    handles = [module.register_forward_hook(look) for module in model.modules()]
    with torch.no_grad():
        model(**batch)
    for handle in handles:
        handle.remove()
    return kinds


def gradients_of(model: nn.Module, batch: dict[str, Any]) -> list[Tensor]:
    torch.manual_seed(0)
    model.train().eval()  # LeViT keeps a part of the graph in eval mode until it is next in training mode
    wanted = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(logits_of(model(**batch), model).square().sum(), wanted, allow_unused=True)
    return [torch.zeros(()) if g is None else g for g in found]


def scaled_difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-30))


def check(modality: str, name: str) -> dict[str, Any]:
    """Every promise for one family; a row of the table."""
    family = special(modality, name)
    model = build(modality, name)
    batch = build_batch(modality, name, model)
    before = gradients_of(model, batch)
    torch.manual_seed(0)
    with torch.no_grad():
        plain = logits_of(model(**batch), model)
    seen: list[Tensor] = []

    def target(logits: Tensor) -> Tensor:
        seen.append(logits.detach())
        return logits[:, 1]

    composite, hits = counting("attnlrp")
    torch.manual_seed(0)
    rule_coverage._reported.clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        relevance = LRP(model, composite).attribute(batch, target=target)
    reported = [
        str(w.message) for w in caught if "hides its operations" in str(w.message) or "mixes several" in str(w.message)
    ]

    assert scaled_difference(seen[0], plain) < 1e-5, "logits moved"
    assert relevance.isfinite().all()
    assert relevance.abs().max() > 0
    for old, new in zip(before, gradients_of(model, batch), strict=True):
        assert torch.equal(old, new), "later gradients changed"
    missing = expected_kinds(model, batch, hits) - {kind for kind, count in hits.items() if count}
    assert not missing - ({"product"} if hits["attention"] else set()), f"no rule of kind {missing} was hit: {hits}"

    torch.manual_seed(0)
    gradient = LRP(model, "gradient").attribute(batch, target=1)
    if hits:
        assert scaled_difference(relevance, gradient) > 1e-3, "nothing but Gradient×Input"
    else:  # a network of ReLUs and convolutions: the ε-rule is Gradient×Input there
        torch.testing.assert_close(relevance, gradient, rtol=1e-4, atol=1e-6)
        assert scaled_difference(LRP(model, "epsilon_gamma").attribute(batch, target=1), gradient) > 1e-3

    note = "; ".join(reported)
    if modality == "text":
        at_padding = float(relevance[batch["attention_mask"] == 0].abs().max() / relevance.abs().max())
        if family.no_padding:
            other = {**batch, "input_ids": torch.where(batch["attention_mask"] == 0, 7, batch["input_ids"])}
            with torch.no_grad():
                assert scaled_difference(logits_of(model(**other)), plain) > 1e-4, f"not so: {family.no_padding}"
            note = family.no_padding
        else:
            assert at_padding < 1e-6, "padding is relevant"
    if agreement := fused_and_eager(modality, name, batch):
        assert agreement < 1e-4, f"eager and fused attention differ by {agreement:.1e}"
    return {"works": True, "hits": hits, "note": note, "fused": agreement is not None}


def fused_and_eager(modality: str, name: str, batch: dict[str, Any]) -> float | None:
    """The largest difference between the two, over both ways to treat attention; None where there is only one form."""
    fused = build(modality, name)
    if not getattr(fused, "_supports_sdpa", False) or getattr(fused.config, "_attn_implementation", None) != "sdpa":
        return None
    eager = build(modality, name, "eager")
    eager.load_state_dict(fused.state_dict())
    differences = []
    for composite in ("attnlrp", "cp_lrp"):
        pair = []
        for model in (fused, eager):
            torch.manual_seed(0)
            pair.append(LRP(model, composite).attribute(batch, target=1))
        differences.append(scaled_difference(*pair))
    return max(differences)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("modality", "name"), SAMPLE)
def test_a_sample_of_families(modality: str, name: str) -> None:
    assert check(modality, name)["works"]


@pytest.fixture(scope="module")
def rows() -> Iterator[dict[tuple[str, str], dict[str, Any]]]:
    """Collects what the sweep finds; written to the table once all have run."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    yield found
    if len(found) == len(EVERY):
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(as_table(found))


@pytest.mark.families
@pytest.mark.parametrize(("modality", "name"), EVERY)
def test_every_family(modality: str, name: str, rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    family = special(modality, name)
    if family.broken:
        rows[modality, name] = {"works": False, "note": family.broken}
        with pytest.raises(Exception, match=family.error):  # the reason still holds
            check(modality, name)
        return
    try:
        rows[modality, name] = check(modality, name)
    except Exception as error:
        rows[modality, name] = {"works": False, "note": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        raise


@pytest.mark.families
def test_the_sweep_covers_what_is_promised(rows: dict[tuple[str, str], dict[str, Any]]) -> None:
    working = Counter(modality for (modality, _), row in rows.items() if row["works"])
    assert working["text"] >= 115
    assert working["image"] >= 38
    assert working["audio"] >= 12
    assert working["series"] >= 2


TITLES = {"text": "Sequence classification", "image": "Images", "audio": "Audio", "series": "Time series"}
INTRODUCTION = """# Classifier families

Written by `make test-families` with transformers {version}: every type in the classification mappings, as a tiny random model.
"Works" means all of this:

- Logits under the engine equal the plain ones (1e-5).
- Relevance is finite, 0 on padding, and not Gradient×Input.
- The rules that the model's modules call for were hit, and later gradients are bit-identical.
- Where a model has both, eager and fused attention give the same relevance (1e-4, `attnlrp` and `cp_lrp`).

Columns: how often a rule of each kind was applied to data in one pass.

Relevance is read at the token embeddings. Position, token-type and layout embeddings are weights, not data. Like biases, they
absorb the share that the ε-rule gives them.
"""


def as_table(rows: dict[tuple[str, str], dict[str, Any]]) -> str:
    parts = [INTRODUCTION.format(version=transformers.__version__)]
    for modality, title in TITLES.items():
        own = {name: row for (of, name), row in rows.items() if of == modality}
        works = sum(row["works"] for row in own.values())
        parts.append(f"\n## {title}: {works} of {len(own)}\n")
        parts.append("| type | works | norms | activations | fused attention | products | eager = fused | note |")
        parts.append("|---|---|---|---|---|---|---|---|")
        for name, row in own.items():
            hits = row.get("hits", Counter())
            counts = " | ".join(str(hits[kind]) for kind in KINDS)
            equal = {True: "yes", False: "–"}[bool(row.get("fused"))]
            note = row["note"] or ("" if hits else "ReLUs and convolutions only: the ε-rule is Gradient×Input")
            parts.append(f"| {name} | {'yes' if row['works'] else 'no'} | {counts} | {equal} | {note} |")
    return "\n".join(parts) + "\n"
