"""Sentences and tables of the model card, on what was counted in this run and not on what was asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..challenge import ChallengeOptions, Challenger, Cue
from ..challenge.selection import CUES, NAMED, WITHOUT_RELEVANCE
from ..counts import Counts
from .cue_results import CueReport, percent, share

CUES_SHOWN = 10  # in a table; cues.json has all
REPORTED = 5  # of those that were measured
UNITS = {"tokens": "tokens", "series": "blocks of time steps", "patches": "patches", "audio": "blocks of samples"}
DRAWN = {
    "sample": "drawn in proportion to their positive relevance",
    "top": "the most relevant ones",
    "random": "drawn at random, whatever their relevance",
}
HIDDEN = {
    "delete": "deleted",
    "attention": "removed from attention",
    "mask": "replaced by the mask token",
    "mean": "replaced by the mean",
    "zero": "set to zero",
    "noise": "replaced by noise",
    "interpolate": "interpolated from their neighbours",
    "blur": "blurred",
    "swap": "swapped for another row's",
}


def effective(options: ChallengeOptions, challenger: Challenger) -> ChallengeOptions:
    """The options, with the values that the challenger took where they were not set."""
    units: Any = challenger.units
    perturbation = options.challenge_perturbation
    if perturbation == "auto":  # a cue's place is swapped, whatever fills what a row-level selection hides
        by_place = options.challenge_selection == CUES and getattr(units, "places", None)
        perturbation = "swap" if by_place else units.perturbations[0]
    sizes = {size for _, _, size in getattr(units, "_blocks", ())}
    return replace(
        options,
        challenge_hide=challenger.leaks.names,
        challenge_threshold=challenger.memory.threshold,
        challenge_rate=challenger.rate,
        challenge_perturbation=perturbation,
        challenge_unit_size=sizes.pop() if len(sizes) == 1 else options.challenge_unit_size,
    )


def acted(options: ChallengeOptions) -> list[str]:
    """Names of the options that changed something, beside the others."""
    names = [*(["challenge_share"] if options.challenge_selection != NAMED else []), "challenge_selection"]
    if options.challenge_selection == CUES:
        names += ["challenge_threshold", *(["challenge_keep"] if options.challenge_keep else [])]
    elif options.challenge_selection != NAMED:
        names.append("challenge_rate")
    names += ["challenge_hide"] if options.challenge_hide else []
    if options.challenge_selection not in WITHOUT_RELEVANCE:
        names.append("challenge_attribution")
        names += ["challenge_composite"] if options.challenge_attribution == "lrp" else []
    names.append("challenge_perturbation")
    return names + (["challenge_unit_size"] if options.challenge_unit_size else [])


def what_was_hidden(options: ChallengeOptions, kind: str, counts: Counts, cues: Sequence[Cue]) -> str:
    """Some sentences.

    Args:
        options: those of :func:`effective`.
        kind: of the units, as ``challenge_units`` takes it.
        counts: of the training.
        cues: that were found.
    """
    o, units = options, UNITS.get(kind, "units")
    who = f"LRP with the rules `{name_of(o.challenge_composite)}`" if o.challenge_attribution == "lrp" else ""
    who = who or f"`{o.challenge_attribution}`"
    hidden = HIDDEN.get(o.challenge_perturbation, f"hidden by `{o.challenge_perturbation}`")
    said = [f"Counts are of {counts.rows} training rows, each counted once an epoch."]
    if o.challenge_selection == NAMED:
        said.append("No cue was looked for.")
    elif o.challenge_selection != CUES:
        drawn = DRAWN.get(o.challenge_selection, f"chosen by `{o.challenge_selection}`")
        by = "" if o.challenge_selection in WITHOUT_RELEVANCE else f" by {who}"
        said.append(
            f"In {_of(counts.challenged, counts.rows)} rows, {o.challenge_rate:.0%} of the {units} were {hidden}: {drawn}{by}."
        )
    else:
        said.insert(
            0,
            f"A cue holds over {100 * (o.challenge_threshold or 0):.3g}% of the relevance ({who}) of the rows that hold it, and recurs in a"
            " class.",
        )
        if cues:
            said.append(f"The cues below were found. In {_of(counts.challenged, counts.rows)} rows a cue was {hidden}.")
        else:
            plain = "" if counts.leaked else ", so that training was plain `Trainer`'s"
            said.append(f"No cue was found{plain}.")
    if o.challenge_keep and o.challenge_selection == CUES:
        said.append(f"Left alone, as legitimate: {_quoted(o.challenge_keep)}.")
    if o.challenge_hide:
        said.append(_leaks(o, kind, counts, hidden))
    return " ".join(said)


def _leaks(options: ChallengeOptions, kind: str, counts: Counts, hidden: str) -> str:
    names = options.challenge_hide
    named = f"Named as {'a leak' if len(names) == 1 else 'leaks'}: {_quoted(names)}."
    if not counts.leaked:
        return f"{named} No training row held {'it' if len(names) == 1 else 'one'}."
    if kind != "tokens":
        hidden = "swapped for the same place of another row"
    elif len(names) > 1:
        hidden = "exchanged for one another, or hidden"
    return (
        f"{named} In all {_of(counts.leaked, counts.rows)} rows with {'it' if len(names) == 1 else 'one'}, it was {hidden}."
    )


def cues_table(cues: Sequence[Cue]) -> str:
    """A markdown row a cue, the strongest first; empty where there is none."""
    rows = [
        (f"`{cue.text}`", cue.class_name, f"{cue.coverage:.0%}", f"{cue.strength:.2f}", str(cue.hidden_rows))
        for cue in cues[:CUES_SHOWN]
    ]
    return table(("cue", "class", "rows of the class", "strength", "times hidden"), rows) if rows else ""


def cue_report_text(report: CueReport) -> str:
    """The short form of a cue report, in markdown: its sentence, and the cues that the model leans on most."""
    leaned_on = report.leaned_on[:REPORTED]
    said = f"{report.summary} Read: {report.rows_read} of {report.rows_given} rows."
    if not leaned_on:
        return said
    head = ["cue", "class", "rows of the class", "predictions that change", "probability of the class", "accuracy"]
    rows = []
    for cue in leaned_on:
        before, after = cue.as_is, cue.hidden
        row = [f"`{cue.text}`", cue.class_name, percent(cue.coverage), percent(after.changed)]
        row.append(f"{share(before.probability)} → {share(after.probability)}")
        if before.accuracy is not None and after.accuracy is not None:
            row.append(f"{share(before.accuracy)} → {share(after.accuracy)}")
        rows.append(row)
    return f"{said}\n\n{table(head[: len(rows[0])], rows)}"


def calibration_text(temperature: float, expected: float | None, before: Sequence[str]) -> str:
    """Some sentences on the temperature in the model.

    Args:
        temperature: that divides the logits.
        expected: accuracy that it was fitted to, without held-out labels; None: someone applied it.
        before: splits whose shown results were measured without it.
    """
    said = f"Logits are divided by {temperature:.3g}, folded into the last layer."
    if expected is not None:
        said += (
            f" At this temperature the mean confidence on training rows is {expected:.1%}, the accuracy to expect on new rows."
            " It was estimated by a linear probe of the features before training. No held-out labels were used."
        )
    if before:
        said += f" The results of {' and '.join(before)} below were measured before that, without the temperature."
    return said


def options_table(options: ChallengeOptions) -> str:
    """A markdown row for each option that acted."""
    rows = []
    for name in acted(options):
        value = getattr(options, name)
        shown = ", ".join(map(repr, value)) if isinstance(value, list) else name_of(value)
        rows.append((f"`{name}`", shown))
    return table(("option", "value"), rows)


def name_of(value: Any) -> str:
    """A composite by its name, anything else as it prints."""
    return str(getattr(value, "name", value))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """As markdown; bars and line breaks in cells do no harm."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def one_line(text: Any) -> str:
    """Without line breaks and doubled spaces."""
    return " ".join(str(text).split())


def _of(part: int, whole: int) -> str:
    return f"{part} ({part / max(whole, 1):.1%})"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
