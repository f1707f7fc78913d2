"""Rows of a batch before and after a challenge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..attribution.methods import METHODS
from ..attribution.targets import named_target
from ..challenge import Challenger
from ..challenge.selection import NAMED
from ..detokenize import pieces
from ..errors import ChallengerError
from ..inputs.blocks import Blocks
from .figures import BLUE, HATCHED, LINES, ORANGE, WIDTH, diverging, largest_of, new_figure, show_image
from .texts import Text, draw_texts


def before_and_after(
    challenger: Challenger, inputs: Mapping[str, Any], labels: Tensor, tokenizer: Any = None, step: int = 0, rows: int = 3
) -> Any:
    """The first rows of a batch that ``challenger`` challenges at ``step``: relevance before, and what is left after.

    Text: a heat map, and the same with hatched boxes for hidden tokens; a word's pieces stand together. Series and images:
    input, relevance, and the challenged input.

    Args:
        inputs: a batch as the model takes it.
        labels: its labels.
        tokenizer: needed for text.
        step: keys the random choices, as in :meth:`~.challenge.Challenger.challenge`.
        rows: how many are drawn at most.

    Raises:
        ChallengerError: if no row is challenged at that step.
    """
    units, options = challenger.units, challenger.options
    if options.challenge_selection == NAMED:
        raise ChallengerError(
            "With challenge_selection='named' no relevance says what is hidden, so that there is nothing to show. Take 'cues'."
        )
    mixed = challenger.challenge(inputs, labels, step)
    index = mixed.challenged.nonzero().flatten()[:rows]
    if not len(index):
        raise ChallengerError(
            f"None of the {len(labels)} rows is challenged at step {step} (challenge_share={options.challenge_share}): no cue is"
            " known yet, or no row holds one. Take another step, more rows, or challenge_share=1."
        )
    method = METHODS[options.challenge_attribution]
    batch = {k: v for k, v in inputs.items() if k != "labels"}
    target = named_target("gold", labels)
    relevance = method(challenger.model, batch, target, options.challenge_composite)
    if isinstance(units, Blocks):
        return _before_and_after_blocks(units, batch, mixed, relevance, index)
    if tokenizer is None:
        raise ChallengerError("Token ids are shown as words: pass tokenizer=….")
    per_token = units.per_unit(relevance)
    texts: list[Text] = []
    names = getattr(getattr(challenger.model, "config", None), "id2label", {})
    shown = units.maskable(batch)
    removed = _hidden_share(per_token, shown, mixed.drop_mask)
    for row in index.tolist():
        kept = shown[row].nonzero().flatten().tolist()
        words, goes_on = pieces(tokenizer, batch[units.key][row, kept].tolist())
        values, hidden = per_token[row, kept].tolist(), mixed.drop_mask[row, kept].tolist()
        label = labels[row]
        name = label.tolist() if label.is_floating_point() else names.get(int(label), int(label))
        texts.append(Text(words, values, f"label {name}: relevance", goes_on=goes_on))
        heading = f"challenged: {float(removed[row]):.0%} of the positive relevance hidden"
        texts.append(Text(words, [0.0] * len(words), heading, hidden, goes_on))
    return draw_texts(texts)


def _hidden_share(relevance: Tensor, maskable: Tensor, drop_mask: Tensor) -> Tensor:
    """``(rows,)``: share of each row's positive relevance that is hidden; 0 where none is positive."""
    positive = (relevance.float().clamp(min=0) * maskable).flatten(1)
    return (positive * drop_mask).sum(1) / positive.sum(1).clamp(min=torch.finfo(torch.float32).tiny)


def _before_and_after_blocks(units: Blocks, batch: Mapping[str, Any], mixed: Any, relevance: Tensor, index: Tensor) -> Any:
    before, after = batch[units.key], mixed.inputs[units.key]
    maskable = units.maskable(batch)
    removed = _hidden_share(units.per_unit(relevance), maskable, mixed.drop_mask)
    hidden = units.hidden(batch, mixed.drop_mask.unflatten(1, maskable.shape[1:]))
    is_image = len(units.axes(before)) == 2
    figure = new_figure(WIDTH, 0.3 + (2.4 if is_image else 1.7) * len(index))
    panels = figure.subplots(len(index), 3, squeeze=False)
    for (first, second, third), i in zip(panels, index, strict=True):
        row = int(i)
        values = relevance[row].detach().cpu().float()
        if is_image:
            values = values.sum(0) if values.dim() == 3 else values
            show_image(first, before[row])
            show_image(third, after[i])
            largest = largest_of(values)
            second.imshow(values.numpy(), cmap=diverging(), vmin=-largest, vmax=largest, interpolation="nearest")
            where = hidden[row].cpu().flatten(0, -3).any(0) if hidden[row].dim() == 3 else hidden[row].cpu()
            shape = where.float().repeat_interleave(8, 0).repeat_interleave(8, 1)  # contours cut the corners of a pixel
            extent = (-0.5, where.shape[1] - 0.5, -0.5, where.shape[0] - 0.5)
            third.contourf(shape.numpy(), levels=[0.5, 1.5], colors="none", hatches=["/////"], extent=extent)
        else:
            axis = units.axes(before)[0] - 1
            for axes, x in ((first, before[row]), (third, after[i])):
                axes.set_prop_cycle(color=LINES)
                axes.plot(x.detach().cpu().movedim(axis, 0).reshape(x.shape[axis], -1).numpy(), linewidth=1)
            values = values.movedim(axis, 0).reshape(before.shape[axis + 1], -1).sum(1)
            second.bar(range(len(values)), values.tolist(), 1.0, color=[ORANGE if v > 0 else BLUE for v in values])
            third.sharey(first)
            for step in hidden[row].cpu().movedim(axis, 0).flatten(1).any(1).nonzero().flatten().tolist():
                third.axvspan(step - 0.5, step + 0.5, **HATCHED)
            first.set_ylabel("value", fontsize=8)
        for axes in (first, second, third):
            axes.set(xticks=[], yticks=[])
        second.set_xlabel("orange: for the class, blue: against", fontsize=8)
        hides = bool(mixed.drop_mask[row].any())
        note = f"{float(removed[row]):.0%} of positive relevance hidden" if hides else "moved to another level"
        third.set_xlabel(note, fontsize=8)
    for axes, name in zip(panels[0], ("before", "relevance", "challenged (hatched: hidden)"), strict=True):
        axes.set_title(name, fontsize=10)
    return figure
