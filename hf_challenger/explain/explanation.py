"""What a classifier said about a text, an image or a series, and what it said it for."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ChallengerError

SHOWN = 5  # places of an image or a series in the terminal


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a classifier said about one input, and the relevance of its parts for a class.

    Attributes:
        label: the class that is explained.
        confidence: its probability; NaN for a regression.
        score: its logit, which relevance explains, in the same unit.
        relevance: of each part: a word, a patch, a span of time.
        ranking: every class with its probability, the most probable first; with the output itself for a regression.
        problem: ``single_label_classification``, ``multi_label_classification`` or ``regression``.
        method: that computed the relevance.
    """

    label: str
    confidence: float
    score: float
    relevance: list[float]
    ranking: tuple[tuple[str, float], ...]
    problem: str
    method: str

    @property
    def heading(self) -> str:
        """The class, its probability and its score, and the predicted class if that is another."""
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


def note_on_score(answer: Answer, sums: str, total: float) -> str:
    """What the score is, and where the part of it went that is not in ``total``, which ``sums`` tells in words."""
    what = "the output" if answer.problem == "regression" else "the class's logit"
    if answer.method == "lrp":
        rest = f"the remaining {answer.score - total:+.2f} went to positions and biases, or was absorbed by rules"
    else:
        rest = f"relevance by {answer.method} need not sum to the score"
    return f"The score is {what}. {sums}; {rest}."


@dataclass(frozen=True, kw_only=True)
class Explanation(Answer):
    """What a classifier said about one text, and the words that it said it for.

    Attributes:
        text: as given.
        words: words of the text, then of the second one, with the relevance of their tokens in ``relevance``; tokens where a
            script has no spaces.
        elsewhere: relevance on special tokens.
        cut: whether the text was longer than the model takes.
        pair: the second text, of a model of text pairs.
        second: how many words belong to the first text.
        tokens_given, tokens_read: of both texts, special tokens included.
    """

    text: str
    words: list[str]
    elsewhere: float
    cut: bool
    pair: str | None
    second: int
    tokens_given: int
    tokens_read: int

    @property
    def note(self) -> str:
        """What the score is, and why the words do not sum to it."""
        total = sum(self.relevance)
        sums = f"Words sum to {total:+.2f}, special tokens to {self.elsewhere:+.2f}"
        cut = ""
        if self.cut:
            cut = f" The text was cut to the model's length: {self.tokens_read} of {self.tokens_given} tokens were read."
        return note_on_score(self, sums, total + self.elsewhere) + cut

    def shown(self) -> tuple[list[str], list[float]]:
        """Words and relevance for a picture, with ``‖`` between two texts."""
        if self.pair is None:
            return self.words, self.relevance
        n = self.second
        return [*self.words[:n], "‖", *self.words[n:]], [*self.relevance[:n], 0.0, *self.relevance[n:]]


@dataclass(frozen=True, kw_only=True)
class PlaceExplanation(Answer):
    """What a classifier said about one image or series, and the places that it said it for.

    Attributes:
        file: as given.
        places: patches or time spans, the most relevant first, such as "rows 0 to 3, columns 8 to 11". Their relevance is the
            sum over pixels or steps, and over channels.
    """

    file: str
    places: list[str]

    @property
    def note(self) -> str:
        """How many places there are, what the score is, and why the places do not sum to it."""
        total = sum(self.relevance)
        shown = f"Shown are the {min(SHOWN, len(self.places))} most relevant of {len(self.places)} places. "
        return shown + note_on_score(self, f"All places sum to {total:+.2f}", total)


def check_not_empty(which: str, text: str | None) -> None:
    """Raise :class:`ChallengerError` where a text is given but holds nothing."""
    if text is not None and not text.strip():
        raise ChallengerError(f"The {which} is empty: there is nothing to explain. Give at least one word.")
