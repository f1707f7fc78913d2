#!/usr/bin/env python
"""Does the cue report find a planted cue, and does its order agree with what the model does without each word?

    python benchmarks/cue_report.py --data_dir ../shared/data      # half an hour of one core; finished runs are skipped

Each run trains a classifier with ``Trainer`` and reports on held-out rows that hold the cue as often as the training rows do.
Clean runs have none. Test rows, read without any cue, check whether words called *leaned on* matter on other rows too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hiding import Hiding
from plant import NONE, TEXT_CUES
from scipy.stats import spearmanr
from sets import load
from torch import Tensor
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments, set_seed

from hf_challenger.attribution.methods import METHODS
from hf_challenger.attribution.state import attribution_state
from hf_challenger.report.cue_report import cue_report

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "cue_report.json"
ROWS, STEPS = 300, 150
FEWEST_OF_CLASS = 10  # held-out rows, below which a class does not count: TREC has 5 of abbreviations
WORDS = 20  # the most frequent of each class, whose order is compared
FEWEST = 5  # rows of its class that hold such a word
PLANTED = [(cue, strength) for cue in ("word_anywhere", "phrase") for strength in (0.8, 0.95)]
RUNS = {  # model → (set, cue, strength, seed)
    "minilm": [("sst2", "word", 0.8, 0), ("trec", "word", 0.95, 0), ("sst2", NONE, 0.0, 0), ("trec", NONE, 0.0, 0)],
    "minilm_2_layers": [
        (name, *cue, seed) for seed in (0, 1) for name in ("sst2", "trec") for cue in (*PLANTED, (NONE, 0.0))
    ],
}
KEYS = ("model", "set", "cue", "strength", "seed")
CELLS = [dict(zip(KEYS, (model, *place), strict=True)) for model, places in RUNS.items() for place in places]


def run(cell: dict[str, Any], data_dir: Path) -> dict[str, Any]:
    """Train one classifier and measure its report. Shares of classes are of those with :data:`FEWEST_OF_CLASS` rows."""
    place = cell["model"], data_dir, cell["set"], ROWS, cell["seed"], "test"
    task = load(*place, cell["cue"], cell["strength"])
    set_seed(cell["seed"])
    model, tokenizer = task.build()
    model.get_input_embeddings().requires_grad_(False)  # most of its parameters: this halves the time of a step
    rows: Any = task.held_out
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            max_steps=STEPS,
            learning_rate=2e-4,
            warmup_steps=STEPS // 10,
            per_device_train_batch_size=16,
            seed=cell["seed"],
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        )
        Trainer(model, args, train_dataset=task.train, processing_class=tokenizer).train()
    model.eval()
    began = time.perf_counter()
    report = cue_report(model, rows, tokenizer)
    seconds = time.perf_counter() - began
    result = {**cell, "accuracy": _accuracy(model, tokenizer, rows), "candidates": len(report.cues), "seconds": seconds}
    result["correlations"] = correlations(model, tokenizer, rows)
    if cell["cue"] != NONE:
        count = Counter(row["labels"] for row in rows)
        own = {label: _ids_of_mark(cell["cue"], label, tokenizer) for label in count}
        planted = [len(own[cue.label] & set(cue.identities)) * 2 > len(own[cue.label]) for cue in report.cues]
        first = {cue.label: is_planted for cue, is_planted in zip(report.cues[::-1], planted[::-1], strict=True)}
        named = {c.label for c, is_planted in zip(report.cues, planted, strict=True) if is_planted and c.leaned_on}
        classes = [label for label in count if count[label] >= FEWEST_OF_CLASS]
        result["first"] = bool(planted and planted[0])
        result["first_of_class"] = sum(first.get(label, False) for label in classes) / len(classes)
        result["leaned_on_of_class"] = len(named & set(classes)) / len(classes)
    else:
        fresh: Any = task.test["absent"]
        changed = [_changed(model, tokenizer, fresh, cue.label, set(cue.identities)) for cue in report.leaned_on]
        result["leaned_on"] = len(changed)
        result["words"] = [(cue.text, cue.class_name, c) for cue, c in zip(report.leaned_on, changed, strict=True)]
        result["idle_on_new_rows"] = sum(c is not None and c < 0.02 for c in changed)
    return result


def _ids_of_mark(cue: str, label: int, tokenizer: Any) -> set[int]:
    marked = TEXT_CUES[cue]("", label, np.random.default_rng(0))
    return set(tokenizer(marked, add_special_tokens=False)["input_ids"]) - {tokenizer.convert_tokens_to_ids(".")}


def correlations(model: Any, tokenizer: Any, rows: Any) -> dict[str, float]:
    """Spearman's rank correlation of words' scores with their measured effect: mean over the classes.

    The words are the :data:`WORDS` most frequent of a class, which no score has chosen. A word's effect is the mean fall of its
    class's probability with the word hidden, over the rows of the class that hold it. Its scores are the mean share of those
    rows' positive relevance, by LRP and by Gradient×Input, and the z-statistic of counts.
    """
    hiding = Hiding(model, tokenizer)
    read = [_read(model, hiding, batch) for batch in _batches(rows, tokenizer)]
    labels = [int(y) for batch in read for y in batch["labels"]]
    texts = [ids[keep].tolist() for batch in read for ids, keep in zip(batch["ids"], batch["maskable"], strict=True)]
    found: dict[str, list[float]] = {"LRP": [], "Gradient×Input": [], "counts": []}
    for label in sorted(set(labels)):
        own = Counter(word for text, y in zip(texts, labels, strict=True) if y == label for word in set(text))
        words = [word for word, count in own.most_common(WORDS) if count >= FEWEST]
        effects, scores = [], {name: [] for name in found}  # type: ignore[var-annotated]
        for word in words:
            falls, shares = [], {"LRP": [], "Gradient×Input": []}  # type: ignore[var-annotated]
            for batch in read:
                places = batch["maskable"] & (batch["ids"] == word)
                held = (batch["labels"] == label) & places.any(1) & (batch["maskable"] & ~places).any(1)
                if held.any():
                    inputs = {k: v[held] for k, v in batch["inputs"].items()}
                    without = _probabilities(model, hiding.hide(inputs, places[held]))
                    falls.append((batch["probabilities"][held] - without)[:, label])
                    for name, share in shares.items():
                        share.append((batch[name] * places).sum(1)[held])
            effects.append(float(torch.cat(falls).mean()) if falls else 0.0)
            for name, share in shares.items():
                scores[name].append(float(torch.cat(share).mean()) if share else 0.0)
            in_all = sum(word in set(text) for text in texts)
            p0 = labels.count(label) / len(labels)
            scores["counts"].append((own[word] / in_all - p0) / (p0 * (1 - p0) / in_all) ** 0.5)
        if len(words) > 4:
            for name in found:
                found[name].append(float(spearmanr(scores[name], effects).statistic))
    return {name: float(np.nanmean(values)) for name, values in found.items()}


def _batches(rows: Any, tokenizer: Any, size: int = 32) -> list[dict[str, Tensor]]:
    collate = DataCollatorWithPadding(tokenizer)
    kept = [{k: v for k, v in row.items() if k != "token_type_ids"} for row in rows]  # one text a row
    kept.sort(key=lambda row: len(row["input_ids"]))
    return [dict(collate(kept[k : k + size])) for k in range(0, len(kept), size)]


def _read(model: Any, hiding: Hiding, batch: dict[str, Tensor]) -> dict[str, Any]:
    """Predictions, and each unit's share of its row's positive relevance for its label, by both attributions."""
    labels = batch.pop("labels")
    maskable = hiding.units.maskable(batch)
    found = {"inputs": batch, "labels": labels, "ids": batch["input_ids"], "maskable": maskable}
    found["probabilities"] = _probabilities(model, batch)
    for name, method in (("LRP", "lrp"), ("Gradient×Input", "input_x_gradient")):
        relevance = METHODS[method](model, batch, _gold(labels), "attnlrp")
        positive = hiding.units.per_unit(relevance).clamp(min=0) * maskable
        found[name] = positive / positive.sum(1, keepdim=True).clamp(min=1e-9)
    return found


def _gold(labels: Tensor) -> Any:
    return lambda logits: logits.gather(1, labels.unsqueeze(1)).squeeze(1)


def _probabilities(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    with attribution_state(model), torch.no_grad():
        return model(**inputs).logits.softmax(-1)


def _accuracy(model: Any, tokenizer: Any, rows: Any) -> float:
    right = 0
    for batch in _batches(rows, tokenizer):
        labels = batch.pop("labels")
        right += int((_probabilities(model, batch).argmax(1) == labels).sum())
    return right / len(rows)


def _changed(model: Any, tokenizer: Any, rows: Any, label: int, cue: set[int]) -> float | None:
    """Share of the predictions that change with the cue hidden, over rows of its class that hold it; None: fewer than 10 do."""
    hiding, changed = Hiding(model, tokenizer), []
    for batch in _batches(rows, tokenizer):
        labels = batch.pop("labels")
        maskable = hiding.units.maskable(batch)
        places = maskable & torch.isin(batch["input_ids"], torch.tensor(sorted(cue)))
        present = torch.stack([(batch["input_ids"] == word).any(1) for word in cue]).sum(0) * 2 > len(cue)
        held = (labels == label) & present & (maskable & ~places).any(1)
        if held.any():
            before = _probabilities(model, batch).argmax(1)[held]
            inputs = {k: v[held] for k, v in batch.items()}
            changed += (_probabilities(model, hiding.hide(inputs, places[held])).argmax(1) != before).tolist()
    return sum(changed) / len(changed) if len(changed) >= 10 else None


def table(path: Path = RESULTS) -> str:
    """One line a model: planted cues found, rank correlations, and words of clean models."""
    runs = json.loads(path.read_text())
    lines = [
        "| | " + " | ".join(models := list(dict.fromkeys(r["model"] for r in runs))) + " |",
        "|---" * (len(models) + 1) + "|",
    ]

    def line(what: str, cells: list[str]) -> None:
        lines.append(f"| {what} | {' | '.join(cells)} |")

    planted = {m: [r for r in runs if r["model"] == m and r["cue"] != NONE] for m in models}
    clean = {m: [r for r in runs if r["model"] == m and r["cue"] == NONE] for m in models}
    line("runs with a planted cue", [str(len(planted[m])) for m in models])
    for what, key in (
        ("runs in which it comes first of all", "first"),
        ("classes in which it comes first", "first_of_class"),
        ("classes in which it is called leaned on", "leaned_on_of_class"),
    ):
        line(what, [f"{100 * np.mean([r[key] for r in planted[m]]):.0f} %" for m in models])
    for name in ("LRP", "Gradient×Input", "counts"):
        values = [[r["correlations"][name] for r in (*planted[m], *clean[m])] for m in models]
        line(f"rank correlation with the effect, {name}", [f"{np.mean(v):.2f}" for v in values])
    line("clean runs", [str(len(clean[m])) for m in models])
    line("words called leaned on", [str(sum(r["leaned_on"] for r in clean[m])) for m in models])
    line("of these, under 2 % change on new rows", [str(sum(r["idle_on_new_rows"] for r in clean[m])) for m in models])
    line(
        "seconds of a report on 300 texts",
        [f"{np.mean([r['seconds'] for r in (*planted[m], *clean[m])]):.0f}" for m in models],
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with sst2/ and trec/")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    runs = json.loads(args.output.read_text()) if args.output.is_file() else []
    done = [{key: r[key] for key in KEYS} for r in runs]
    for cell in CELLS:
        if cell not in done:
            runs.append(run(cell, args.data_dir))
            args.output.write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
            print(json.dumps(runs[-1], ensure_ascii=False), flush=True)
    print(table(args.output))


if __name__ == "__main__":
    main()
