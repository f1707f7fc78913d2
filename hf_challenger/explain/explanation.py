"""What a classifier said about a text, and the words that it said it for."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ChallengerError


@dataclass(frozen=True)
class Explanation:
    """What a classifier said about one text, and what it said it for.

    Attributes:
        text: as given.
        label: the class that is explained.
        confidence: its probability; NaN for a regression.
        score: its logit, which relevance explains, in the same unit.
        words: words of the text, then of the second one; tokens where a script has no spaces.
        relevance: of each word: the sum over its tokens.
        elsewhere: relevance on special tokens.
        cut: whether the text was longer than the model takes.
        pair: the second text, of a model of text pairs.
        second: how many words belong to the first text.
        tokens_given, tokens_read: of both texts, special tokens included.
        ranking: every class with its probability, the most probable first; with the output itself for a regression.
        problem: ``single_label_classification``, ``multi_label_classification`` or ``regression``.
        method: that computed the relevance.
    """

    text: str
    label: str
    confidence: float
    score: float
    words: list[str]
    relevance: list[float]
    elsewhere: float
    cut: bool
    pair: str | None = None
    second: int = 0
    tokens_given: int = 0
    tokens_read: int = 0
    ranking: tuple[tuple[str, float], ...] = ()
    problem: str = "single_label_classification"
    method: str = "lrp"

    @property
    def heading(self) -> str:
        if self.problem == "regression":
            return f"{self.label}, output {self.score:.2f}"
        predicted, highest = self.ranking[0]
        if self.problem == "multi_label_classification":
            below = " (below 0.5: not predicted)" if self.confidence < 0.5 else ""
            return f"{self.label}, probability {self.confidence:.2f}{below}, score {self.score:.2f}"
        if self.label == predicted:
            return f"{self.label}, confidence {self.confidence:.2f}, score {self.score:.2f}"
        other = f" (predicted: {predicted}, {highest:.2f})"
        return f"{self.label}, probability {self.confidence:.2f}{other}, score {self.score:.2f}"

    @property
    def note(self) -> str:
        """What the score is, and why the words do not sum to it."""
        total = sum(self.relevance)
        what = "the output" if self.problem == "regression" else "the class's logit"
        if self.method == "lrp":
            rest = f"the remaining {self.score - total - self.elsewhere:+.2f} went to positions and biases, or was absorbed by rules"
        else:
            rest = f"relevance by {self.method} need not sum to the score"
        cut = ""
        if self.cut:
            cut = f" The text was cut to the model's length: {self.tokens_read} of {self.tokens_given} tokens were read."
        return f"The score is {what}. Words sum to {total:+.2f}, special tokens to {self.elsewhere:+.2f}; {rest}.{cut}"

    def shown(self) -> tuple[list[str], list[float]]:
        """Words and relevance for a picture, with ``‖`` between two texts."""
        if self.pair is None:
            return self.words, self.relevance
        n = self.second
        return [*self.words[:n], "‖", *self.words[n:]], [*self.relevance[:n], 0.0, *self.relevance[n:]]


def check_not_empty(which: str, text: str | None) -> None:
    """Raise :class:`ChallengerError` where a text is given but holds nothing."""
    if text is not None and not text.strip():
        raise ChallengerError(f"The {which} is empty: there is nothing to explain. Give at least one word.")
