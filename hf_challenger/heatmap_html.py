"""A page that shows texts with the relevance of their words: one file, no script, no outside resource, light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .errors import ChallengerError

STYLE = """
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #ffffff; --quiet: #5c5c5c; --line: #d5d5d5;
        --for: 224, 130, 20; --against: 67, 133, 200; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #f2f2f2; --paper: #17191c; --quiet: #a9adb3; --line: #3c4147; --for: 176, 92, 0; --against: 30, 96, 168; }
}
body { background: var(--paper); color: var(--ink); font: 17px/1.5 system-ui, sans-serif; max-width: 52rem;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 0 0 .5rem; }
section { border-top: 1px solid var(--line); padding: 1rem 0; }
.words { overflow-wrap: anywhere; }
.words span { display: inline-block; padding: .1rem .35rem; margin: .12rem .06rem; border-radius: .25rem;
              text-align: center; vertical-align: top; max-width: 100%; }
.for { background: rgba(var(--for), var(--a)); } .against { background: rgba(var(--against), var(--a)); }
.words small { display: block; font-size: .68rem; line-height: 1.1; color: var(--ink); }
footer, .key, .note { color: var(--quiet); font-size: .85rem; } .key span { color: var(--ink); padding: .1rem .5rem; border-radius: .25rem; }
"""


def html_page(rows: Sequence[tuple[Sequence[str], Sequence[float], str, str]], title: str) -> str:
    """The page as a string. All text is escaped; colours are scaled to the largest relevance of each row.

    Args:
        rows: ``(words, relevance of each, heading, note)``.
        title: of the page.
    """
    sections = "\n".join(_section(*row) for row in rows)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="key"><span class="for" style="--a:.8">orange</span> speaks for the class,
<span class="against" style="--a:.8">blue</span> against it. Numbers are relevance; the strongest colour is the largest of
each text.</p>
{sections}
</body>
</html>
"""


def _section(words: Sequence[str], relevance: Sequence[float], heading: str, note: str) -> str:
    if len(words) != len(relevance):
        raise ChallengerError(f"One relevance a word is expected; got {len(relevance)} for {len(words)} words.")
    if not all(map(math.isfinite, relevance)):
        raise ChallengerError("Relevance holds NaN or infinity. Compute it in fp32, and check the model's weights.")
    largest = max(map(abs, relevance), default=0.0) or 1.0
    spans = "\n".join(
        f'<span class="{"for" if value >= 0 else "against"}" style="--a:{abs(value) / largest:.3f}">{escape(word)}'
        f"<small>{value:+.2f}</small></span>"
        for word, value in zip(words, relevance, strict=True)
    )
    return f'<section>\n<h2>{escape(heading)}</h2>\n<p class="words">\n{spans}\n</p>\n<p class="note">{escape(note)}</p>\n</section>'
