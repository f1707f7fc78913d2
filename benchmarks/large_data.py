#!/usr/bin/env python
"""Whether the cue memory, the cue report and the calibration stay flat or linear on large data.

    python benchmarks/large_data.py                  # minutes on one core; writes results/large_data.csv and the picture

1,000 classes, 128,000 token ids, up to 100,000 rows and documents of 4,096 tokens. Seconds are the processor's. Every class has a cue.
Memory is that of the cue memory as it is saved, or else what the process needed more than before (Linux).
"""

from __future__ import annotations

import argparse
import csv
import os
import pickle
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
RESULTS = HERE / "results" / "large_data.csv"
PICTURE = HERE.parent / "docs" / "pictures" / "large_data.png"
VOCABULARY, CLASSES, BATCH, WORDS = 128_000, 1000, 32, 16
LENGTHS = (512, 1024, 2048, 4096)
Line = dict[str, Any]


def timed(call: Callable[[], Any]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def with_memory(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds, and the largest growth of the process in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the largest size so far
    before = _status("VmRSS")
    return timed(call), (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def taken_in(classes: int, rows: int, points: int) -> tuple[list[Line], Any]:
    """``remember`` for a batch of 32 rows, and the memory's size, at so many points of a stream."""
    import torch

    from hf_challenger.challenge.cues import CueMemory
    from hf_challenger.challenge.relevant_units import UNITS

    torch.manual_seed(0)
    memory, found, spent, batches = CueMemory(0.8), [], 0.0, 0
    for batch in range(rows // BATCH):
        labels = torch.randint(classes, (BATCH,))
        ids = torch.randint(classes, VOCABULARY, (BATCH, UNITS))
        ids[:, 0] = labels  # the cue
        shares = torch.full((BATCH, UNITS), 0.1 / UNITS)
        shares[:, 0] = 0.9
        keys = torch.arange(batch * BATCH, (batch + 1) * BATCH)
        spent += timed(lambda step=(labels, keys, ids, shares): memory.remember(*step))
        batches += 1
        if (batch + 1) % (rows // BATCH // points) == 0:
            mib = len(pickle.dumps(memory.state_dict())) / 2**20
            line = {"what": f"memory takes in 32 rows, {classes:,} classes", "by": "rows seen", "size": (batch + 1) * BATCH}
            found.append({**line, "seconds": spent / batches, "mib": mib})
            spent, batches = 0.0, 0
    return found, memory


def documents(memory: Any, rows: int = 8) -> list[Line]:
    """What the length of a row costs: hiding its cues, and telling the memory what it leans on."""
    import torch

    from hf_challenger.challenge.relevant_units import most_relevant, row_keys

    found = []
    for length in LENGTHS:
        labels, ids = torch.randint(CLASSES, (rows,)), torch.randint(CLASSES, VOCABULARY, (rows, length))
        maskable, relevance = torch.ones_like(ids, dtype=torch.bool), torch.randn(rows, length)
        calls: dict[str, Callable[[], Any]] = {
            f"cues hidden in {rows} rows": lambda i=ids, m=maskable, y=labels: memory.drop_mask(i, m, y, y >= 0),
            f"{rows} rows read for the memory": lambda i=ids, m=maskable, r=relevance: (
                most_relevant(r, m, i),
                row_keys(i, m),
            ),
        }
        for what, call in calls.items():
            call()
            seconds = min(timed(call) for _ in range(7))
            found.append({"what": what, "by": "tokens a row", "size": length, "seconds": seconds, "mib": ""})
    return found


def classifier() -> Any:
    """A bag of words of 1,000 classes that leans on a cue for each, without training."""
    import torch
    from torch import Tensor, nn

    class BagOfWords(nn.Module):
        main_input_name = "input_ids"

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.words = nn.Embedding(VOCABULARY, 64)
            self.classifier = nn.Linear(64, CLASSES, bias=False)
            with torch.no_grad():
                self.words.weight *= 0.1
                self.words.weight[:CLASSES] *= 30
                self.classifier.weight.copy_(self.words.weight[:CLASSES] / 3)

        def get_input_embeddings(self) -> nn.Module:
            return self.words

        def forward(
            self, input_ids: Tensor, attention_mask: Tensor, labels: Any = None, output_hidden_states: Any = None
        ) -> Any:
            states = self.words(input_ids) * attention_mask.unsqueeze(-1)
            return {"logits": self.classifier(states.mean(1)), "hidden_states": (states,)}

    return BagOfWords()


def data(rows: int) -> list[dict[str, Any]]:
    import torch

    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(CLASSES, (rows,), generator=generator)
    ids = torch.randint(CLASSES, VOCABULARY, (rows, WORDS), generator=generator)
    ids[:, 3] = labels
    mask = torch.ones(WORDS, dtype=torch.long)
    return [{"input_ids": x, "attention_mask": mask, "labels": y} for x, y in zip(ids, labels, strict=True)]


def reports(sizes: tuple[int, ...], all_rows: tuple[int, ...]) -> list[Line]:
    """The report by default, which reads 500 rows, and one that reads all of them."""
    from hf_challenger.report.cue_report import cue_report

    model, found = classifier(), []
    cue_report(model, data(200))  # first calls allocate
    for what, numbers in (("report that reads 500 rows", sizes), ("report that reads all rows", all_rows)):
        for size in numbers:
            rows = data(size)
            options = {} if numbers is sizes else {"rows": size}
            seconds, mib = with_memory(lambda rows=rows, options=options: cue_report(model, rows, **options))
            found.append({"what": what, "by": "rows given", "size": size, "seconds": seconds, "mib": mib})
    return found


def calibrations(sizes: tuple[int, ...]) -> list[Line]:
    """Both passes of :class:`CalibrationCallback`, which reads 1,000 training rows at most."""
    from hf_challenger import ChallengerConfig, ChallengerTrainer
    from hf_challenger.calibration import CalibrationCallback

    found = []
    for size in (sizes[0], *sizes):  # the first one warms up
        with tempfile.TemporaryDirectory() as folder:
            config = ChallengerConfig(folder, use_cpu=True, report_to="none", per_device_eval_batch_size=BATCH)
            trainer = ChallengerTrainer(classifier(), config, train_dataset=data(size))
            callback = CalibrationCallback(trainer)

            def both(callback: Any = callback, trainer: Any = trainer, config: Any = config) -> None:
                callback.on_train_begin(config, trainer.state, trainer.control)
                callback.on_train_end(config, trainer.state, trainer.control)
                assert "calibration_temperature" in trainer.state.log_history[-1]

            with warnings.catch_warnings():
                warnings.simplefilter("error")  # a calibration that fails only warns
                seconds, mib = with_memory(both)
        found.append({"what": "calibration", "by": "rows given", "size": size, "seconds": seconds, "mib": mib})
    return found[1:]


def read(path: Path) -> dict[str, list[Line]]:
    series: dict[str, list[Line]] = {}
    for row in csv.DictReader(path.open()):
        series.setdefault(row["what"], []).append(row)
    return series


def table(path: Path = RESULTS) -> str:
    """The first and the last point of each curve."""
    if not path.is_file():
        return "No results yet."
    lines = ["| what | from … to | milliseconds | MiB |", "|---|---|---|---|"]
    for what, rows in read(path).items():
        first, last = rows[0], rows[-1]
        milliseconds = " … ".join(f"{1000 * float(row['seconds']):,.3g}" for row in (first, last))
        mib = " … ".join(f"{float(row['mib']):,.0f}" for row in (first, last)) if first["mib"] else ""
        lines.append(f"| {what} | {int(first['size']):,} … {int(last['size']):,} {first['by']} | {milliseconds} | {mib} |")
    return "\n".join(lines)


def picture(path: Path, output: Path) -> None:
    """A panel for the rows and one for the tokens, both axes logarithmic: what is linear rises as the dotted line."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullFormatter

    figure, panels = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", width_ratios=(3, 2))
    for n, (what, rows) in enumerate(read(path).items()):
        axes = panels[int(rows[0]["by"].startswith("tokens"))]
        axes.plot([int(r["size"]) for r in rows], [float(r["seconds"]) for r in rows], "o-", color=f"C{n}", ms=3, label=what)
    for axes, label in zip(panels, ("rows", "tokens a row"), strict=True):
        sizes, seconds = axes.lines[-1].get_data()
        ends = (min(sizes), max(sizes))
        axes.plot(ends, [seconds[0], seconds[0] * ends[1] / ends[0]], ":", color="0.5", linewidth=1, label="linear")
        axes.set(xscale="log", yscale="log", xlabel=label, ylabel="seconds")
        axes.xaxis.set_minor_formatter(NullFormatter())
    panels[1].set_xticks(LENGTHS, [f"{length:,}" for length in LENGTHS])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7)
    figure.savefig(output, dpi=130)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="No tokenizer was given")
    sizes = (args.rows // 100, args.rows // 10, args.rows)
    lines: list[Line] = []
    for classes in (10, CLASSES):
        found, memory = taken_in(classes, args.rows, 5)
        lines += found
        print(f"taken in, {classes} classes", flush=True)
    lines += documents(memory)
    print("documents", flush=True)
    lines += calibrations(sizes)
    print("calibration", flush=True)
    lines += reports(sizes, (args.rows // 20, args.rows // 10, args.rows // 5))
    with args.output.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["what", "by", "size", "seconds", "mib"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    if args.output == RESULTS:
        picture(args.output, PICTURE)


if __name__ == "__main__":
    main()
