"""A cue report as one HTML page: no script, no outside resource, light and dark, phone and desktop."""

from __future__ import annotations

from html import escape

from ..heatmap_html import STYLE
from .cue_results import KEY, LEAST_CHANGED, LEAST_DROP, LEVEL, CueEffect, CueReport, Example, percent, share
from .pictures import svg

LISTED = 6  # cues in the answer, and cues with examples

PAGE_STYLE = """
body { max-width: 70rem; }
.answer { font-size: 1.5rem; line-height: 1.35; font-weight: 600; margin: 1rem 0; }
.cues { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: .6rem; }
.cues li { border: 1px solid var(--line); border-radius: .5rem; padding: .4rem .8rem; overflow-wrap: anywhere; }
.cues small { display: block; color: var(--quiet); }
table { border-collapse: collapse; width: 100%; font-size: .88rem; font-variant-numeric: tabular-nums; }
th { text-align: left; font-weight: 600; color: var(--quiet); vertical-align: bottom; }
th, td { padding: .4rem .7rem .4rem 0; border-bottom: 1px solid var(--line); }
td:nth-child(2) { overflow-wrap: anywhere; } td:nth-child(n+3) { white-space: nowrap; }
tr.no td { color: var(--quiet); }
mark { background: rgba(var(--for), calc(.8 * var(--most))); color: var(--ink); padding: .05rem .15rem; border-radius: .2rem; }
blockquote { margin: .6rem 0 1.1rem; padding-left: .8rem; border-left: 3px solid var(--line); overflow-wrap: anywhere; }
blockquote small { display: block; color: var(--quiet); }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; width: 11rem; max-width: 100%; }
figure:has(.series) { width: 20rem; } figcaption { color: var(--quiet); font-size: .85rem; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; border: 1px solid var(--line); } image { image-rendering: pixelated; }
.shade { fill: rgb(var(--for)); } .flag, .halo { fill: none; vector-effect: non-scaling-stroke; }
.halo { stroke: #fff; stroke-width: 5px; } .flag { stroke: #1a1a1a; stroke-width: 2px; } svg.series { height: 6rem; }
polyline { fill: none; stroke: var(--ink); stroke-width: 1.4px; vector-effect: non-scaling-stroke; }
@media (max-width: 46rem) {
  figure { width: 9rem; } figure:has(.series) { width: 100%; }
  body { font-size: 16px; margin: 1rem auto; } .answer { font-size: 1.25rem; }
  thead { display: none; } tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  td:nth-child(2) { font-weight: 600; }
  td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .12rem 0; text-align: right; }
  td::before { content: attr(data-name); flex: none; color: var(--quiet); font-weight: 400; text-align: left; }
}
"""


def cue_page(report: CueReport, title: str) -> str:
    """The page as a string: the answer, mean pictures of the classes, the table, and rows with their cue marked. All text is escaped.

    Args:
        report: from :func:`~.cue_report.cue_report`.
        title: of the page.
    """
    labels = "their labels" if report.labelled else "the model's own predictions as classes"
    notes = " ".join([f"{report.rows_read} of {report.rows_given} rows were read, with {labels}.", *report.notes])
    examples = "\n".join(_examples(cue) for cue in report.leaned_on[:LISTED] if cue.examples)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}{PAGE_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<p class="answer">{escape(report.summary)}</p>
{_cues(report)}
<p class="note">{escape(notes)}</p>
{_pictures(report)}
{_table(report)}
{examples}
<footer>A model leans on a cue if, with the cue hidden, significantly more than {percent(LEAST_CHANGED)} of the predictions
change (binomial test at {percent(LEVEL)}) and the mean probability of the class falls by at least {percent(LEAST_DROP)} of itself. Whether a cue is a leak or legitimate evidence
is for a person to decide.</footer>
</body>
</html>
"""


def _cues(report: CueReport) -> str:
    if not report.leaned_on:
        return ""
    items = "\n".join(
        f"<li><strong>{escape(cue.text)}</strong><small>{escape(cue.class_name)}: in {percent(cue.coverage)} of its rows;"
        f" hidden, {percent(cue.hidden.changed)} of their predictions change</small></li>"
        for cue in report.leaned_on[:LISTED]
    )
    if len(report.leaned_on) > LISTED:
        items += f"\n<li>… and {len(report.leaned_on) - LISTED} more<small>in the table</small></li>"
    return f'<ul class="cues">\n{items}\n</ul>'


def _pictures(report: CueReport) -> str:
    if not report.pictures:
        return ""
    figures = "\n".join(
        f"<figure>{svg(p.picture, p.class_name)}<figcaption>{escape(p.class_name)}, mean of {p.rows} rows</figcaption></figure>"
        for p in report.pictures
    )
    key = "Orange: where the class's positive relevance lies, on the mean of its rows."
    return f"""<section>
<h2>What each class rests on</h2>
<div class="pictures">
{figures}
</div>
<p class="note">{key}</p>
</section>"""


def _table(report: CueReport) -> str:
    if not report.cues:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in report.header)
    body = "\n".join(_row(report, cue) for cue in report.cues)
    return f"""<section>
<h2>Candidates</h2>
<table>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table>
<p class="note">{escape(KEY)}</p>
</section>"""


def _row(report: CueReport, cue: CueEffect) -> str:
    cells = zip(report.header, report.cells(cue), strict=True)
    shown = "".join(f'<td data-name="{escape(name)}">{escape(cell)}</td>' for name, cell in cells)
    return f'<tr class="{"yes" if cue.leaned_on else "no"}">{shown}</tr>'


def _examples(cue: CueEffect) -> str:
    exchanged = ""
    if cue.exchanged is not None:
        exchanged = (
            f'<p class="note">Exchanged for “{escape(cue.exchanged_for)}”, {percent(cue.exchanged.changed)} of the predictions'
            " change.</p>\n"
        )
    rows = "\n".join(map(_example, cue.examples))
    if any(example.picture for example in cue.examples):
        rows = f'<div class="pictures">\n{rows}\n</div>\n<p class="note">Outlined: the places of the cue.</p>'
    return f"<section>\n<h2>{escape(cue.text)} ({escape(cue.class_name)})</h2>\n{exchanged}{rows}\n</section>"


def _example(example: Example) -> str:
    (before, sure), (after, less) = example.as_is, example.hidden
    told = f"{before} {share(sure)} → without it {after} {share(less)}"
    if example.picture is not None:
        return f"<figure>{svg(example.picture, told)}<figcaption>{escape(told)}</figcaption></figure>"
    return f"<blockquote>{_marked(example)}<small>{escape(told)}</small></blockquote>"


def _marked(example: Example) -> str:
    """The text, with neighbouring marked pieces in one mark."""
    text, open_mark = "", False
    for n, (piece, goes_on, marked) in enumerate(zip(example.pieces, example.goes_on, example.marked, strict=True)):
        if open_mark and not marked:
            text += "</mark>"
        if n and not goes_on:
            text += " "
        if marked and not open_mark:
            text += "<mark>"
        text, open_mark = text + escape(piece), marked
    return text + ("</mark>" if open_mark else "")
