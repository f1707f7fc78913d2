"""The rival without relevance: cues told by plain counts of words and classes, before training, and hidden as ours are.

A word is a cue of a class if it comes with the class more often than chance: the z-statistic of Gardner et al. ("Competency
Problems", EMNLP 2021), z = (p - p0) / sqrt(p0 (1 - p0) / n) over the n rows that hold the word, p the class's share of them and
p0 its share of all rows, significant at 1 % after Bonferroni over all words and classes.
"""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import torch

from hf_challenger import ChallengerTrainer
from hf_challenger.challenge.challenger import Challenger
from hf_challenger.challenge.cue_search import LEAST_COVERAGE, companions
from hf_challenger.challenge.cues import CUES, Cue
from hf_challenger.challenge.relevant_units import NOTHING
from hf_challenger.challenge.row_memory import FEWEST_ROWS

SIGNIFICANCE = 0.01


def cues_by_counts(rows: list[list[int]], labels: list[int]) -> list[Cue]:
    """The words with the largest z of each class, at most :data:`CUES`, with what always comes with them.

    Args:
        rows: token ids of each row, without special tokens.
        labels: their classes.
    """
    total, of_class, of_both = Counter(), Counter(labels), defaultdict(Counter)  # type: ignore[var-annotated]
    for row, label in zip(rows, labels, strict=True):
        total.update(set(row))
        of_both[label].update(set(row))
    least = statistics.NormalDist().inv_cdf(1 - SIGNIFICANCE / (len(total) * len(of_class)))
    ids = np.full((len(rows), max(map(len, rows))), NOTHING)
    for n, row in enumerate(rows):
        ids[n, : len(row)] = row
    classes, found = np.array(labels), []
    for label, counts in of_both.items():
        p0, cues = of_class[label] / len(rows), []
        is_own = classes == label
        own = of_class[label]
        z = {word: (k / total[word] - p0) / (p0 * (1 - p0) / total[word]) ** 0.5 for word, k in counts.items()}
        for word in sorted(z, key=lambda w: -z[w]):
            seen = counts[word] >= max(FEWEST_ROWS, LEAST_COVERAGE * own)
            if z[word] < least or len(cues) == CUES or not seen or any(word in cue.identities for cue in cues):
                continue
            members = companions(ids[is_own], word, ids[~is_own])
            cues.append(Cue(label, word, members, counts[word] / own, counts[word] / total[word]))
        found += cues
    return found


class CountsTrainer(ChallengerTrainer):
    """ChallengerTrainer whose memory is filled once, by :func:`cues_by_counts`, and fed by no relevance. Texts only."""

    def _challenger_for(self, model: Any, options: Any) -> Challenger:
        known = self._challenger
        challenger = super()._challenger_for(model, options)
        if challenger is not known:
            tokens: Any = challenger.units
            rows = []
            for row in self.train_dataset:  # type: ignore[union-attr]
                batch = {k: torch.tensor([v]) for k, v in row.items() if k != "labels"}
                rows.append(batch["input_ids"][0][tokens.maskable(batch)[0]].tolist())
            labels = [int(row["labels"]) for row in self.train_dataset]  # type: ignore[union-attr]
            challenger.memory.load_state_dict({"rows": {}, "cues": [vars(c) for c in cues_by_counts(rows, labels)]})
            challenger.memory.remember = lambda *rows: None  # type: ignore[method-assign]  # no relevance
        return challenger
