"""Token ids: relevance is read at their embeddings; a unit is a token."""

from __future__ import annotations

import inspect
import itertools
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

from ..errors import ChallengerError, ChallengerWarning
from ..peft_base import without_peft

logger = logging.get_logger(__name__)

# Roles of special tokens that are structure. An unknown word is content that the vocabulary lacks, and so is a special token of the
# user's own, such as one that marks a source.
STRUCTURE = tuple(f"{role}_token_id" for role in ("pad", "bos", "eos", "sep", "cls"))
# What a token of digits is an example of, and how that reads. No vocabulary is as large.
NUMBER, NUMBER_NAME = 2**31 - 1, "[number]"
MOST_READINGS = 64  # of a name with numbers


class Tokens:
    """Token ids: a unit is a token; its relevance is that of its embedding, summed over the hidden axis.

    Never hidden: padding, special tokens that are structure (:data:`STRUCTURE`), the last token that is attended to, and the last one
    that is not padding by the model's config. One of these two is where a decoder-only classifier reads its answer. They differ where
    texts end with eos and eos is the padding. An encoder's tokenizer puts a special token there anyway.

    Args:
        model: used for its signature and config.
        tokenizer: tells the special tokens. Without one, the first attended token of each row is protected too, and the
            special ids in the model's config.
    """

    key = "input_ids"
    attention_key = "attention_mask"
    is_sequence_of_tokens = True
    threshold = 0.8  # planted words and phrases hold .8 to .99; the strongest natural word (TREC's who) .79

    def __init__(self, model: nn.Module, tokenizer: Any = None, unit_size: int | None = None) -> None:
        if unit_size is not None:
            raise ChallengerError(
                f"challenge_unit_size={unit_size} is for series, images and audio: the unit of text is a token. Leave it unset."
            )
        self.tokenizer = tokenizer
        self.knows_special = tokenizer is not None and hasattr(tokenizer, "all_special_ids")
        config: Any = getattr(model, "config", None)
        text_config = config.get_text_config() if hasattr(config, "get_text_config") else config
        roles = (getattr(tokenizer if self.knows_special else text_config, name, None) for name in STRUCTURE)
        special = {i for role in roles for i in (role if isinstance(role, (list, tuple)) else [role])}
        self.mask_token_id = self.filler_id = None
        if self.knows_special:
            special |= _around_a_text(tokenizer)
            self.mask_token_id = tokenizer.mask_token_id
            # What a hidden token becomes; no padding and no end, which models look for.
            fillers = self.mask_token_id, tokenizer.unk_token_id
            self.filler_id = next((i for i in fillers if i is not None and i not in special), None)
            special.add(self.mask_token_id)
        else:
            warnings.warn(
                "No tokenizer was given, so special tokens are guessed: the first and the last token of each row and the ids"
                " in the model's config are never hidden. Pass processing_class=tokenizer to be exact.",
                ChallengerWarning,
                stacklevel=2,
            )
        self.config: Any = text_config  # asked again for each batch: Trainer sets its pad_token_id when training starts
        self.special_ids = sorted(i for i in special if isinstance(i, int))
        pad = getattr(tokenizer, "pad_token_id", None) if self.knows_special else None
        self.pad_token_id = getattr(text_config, "pad_token_id", None) if pad is None else pad
        self.takes_attention_mask = self.attention_key in inspect.signature(without_peft(model).forward).parameters
        self.perturbations: tuple[str, ...] = ("delete", "attention", "mask") if self.takes_attention_mask else ("mask",)
        self.read_twice = bool(getattr(config, "is_encoder_decoder", False))  # a decoder gets the ids as its own inputs

    def attended(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, length)`` bool: the batch's own attention mask, or everything but padding where it brings none."""
        if self.attention_key in inputs:
            return inputs[self.attention_key].bool()
        ids = inputs[self.key]
        return torch.ones_like(ids, dtype=torch.bool) if self.pad_token_id is None else ids != self.pad_token_id

    def content(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, length)`` bool: neither padding nor special tokens."""
        attended = self.attended(inputs)
        content = attended.clone()
        for special in self.special_ids:
            content &= inputs[self.key] != special
        if not self.knows_special:
            content &= torch.arange(attended.shape[1], device=attended.device) != attended.long().argmax(1, keepdim=True)
        return content

    def maskable(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, length)`` bool: the units that may be hidden."""
        attended = self.attended(inputs)
        position = torch.arange(attended.shape[1], device=attended.device)
        maskable = self.content(inputs) & (position != (position * attended).argmax(1, keepdim=True))
        pad = getattr(self.config, "pad_token_id", None)
        if isinstance(pad, int):
            maskable &= position != (position * (inputs[self.key] != pad)).argmax(1, keepdim=True)
        return maskable

    def cut(self, inputs: Mapping[str, Any], places: Tensor) -> tuple[dict[str, Any], Tensor]:
        """Rows that end before the marked tokens at their end. The model reads its answer from the token before.

        Args:
            inputs: a batch.
            places: ``(rows, length)`` bool; a row of which nothing would be left stays as it is.

        Returns:
            The batch, and ``(rows, length)`` bool: what was cut.
        """
        attended = self.attended(inputs)
        position = torch.arange(attended.shape[1], device=attended.device)
        stays, pad = attended & ~places, getattr(self.config, "pad_token_id", None)
        if isinstance(pad, int):  # an end token that is the padding too is not read
            stays &= inputs[self.key] != pad
        cut = attended & places & (position > (position * stays).argmax(1, keepdim=True)) & stays.any(1, keepdim=True)
        found = dict(inputs)
        found[self.key] = inputs[self.key].masked_fill(cut, self.pad_token_id or 0)
        if self.attention_key in inputs:
            found[self.attention_key] = inputs[self.attention_key].masked_fill(cut, 0)
        return found, cut

    def per_unit(self, relevance: Tensor) -> Tensor:
        """``(rows, length, hidden)`` → ``(rows, length)``, in float32 at least."""
        return relevance.sum(-1, dtype=torch.promote_types(relevance.dtype, torch.float32))

    def identities(self, inputs: Mapping[str, Any]) -> Tensor:
        """``(rows, length)`` integers: what a unit is, wherever it stands: its token id."""
        ids: Tensor = inputs[self.key]
        return ids

    @cached_property
    def _vocabulary(self) -> list[str]:
        """The tokens by their ids; empty where an id is none."""
        try:
            ids = self.tokenizer.get_vocab()
        except Exception:  # no tokenizer, or one that tells no vocabulary
            return []
        found = [""] * (max(ids.values(), default=-1) + 1)
        for token, n in ids.items():
            found[n] = str(token)
        return found

    @cached_property
    def kinds(self) -> Tensor | None:
        """``(vocabulary,)`` int64: :data:`NUMBER` for a token of digits, itself for any other. None: no vocabulary is known."""
        # "##12" within a word, "▁12" and "Ġ12" at its start, "12</w>" and "12@@".
        bare = (re.sub(r"^(##|[▁Ġ ]+)|(</w>|@@)$", "", token) for token in self._vocabulary)
        found = [NUMBER if token.isdecimal() else n for n, token in enumerate(bare)]
        return torch.tensor(found) if found else None

    @cached_property
    def _of_words(self) -> Tensor:
        """``(vocabulary,)`` int64: 0 a sign, 1 a token that begins a word, 2 one that goes on with it; empty where nothing tells."""
        tokens = self._vocabulary
        pieces = any(t.startswith("##") for t in tokens)
        if not pieces and not any(t.startswith(("▁", "Ġ")) for t in tokens):
            return torch.zeros(0, dtype=torch.long)
        begins = [not t.startswith("##") if pieces else t.startswith(("▁", "Ġ")) for t in tokens]
        return torch.tensor(
            [t.lstrip("#▁Ġ")[:1].isalnum() * (1 if first else 2) for t, first in zip(tokens, begins, strict=True)]
        )

    def whole_words(self, inputs: Mapping[str, Any], places: Tensor) -> Tensor:
        """``(rows, length)`` bool: the marked tokens, and what goes on with their words: of "INC0012" more than "inc"."""
        ids, known = inputs[self.key], len(self._of_words)
        if not known:
            return places
        self._of_words = self._of_words.to(ids.device)
        of_words = torch.where(ids < known, self._of_words[ids.clamp(0, known - 1)], 0)
        goes_on = torch.nn.functional.pad((of_words[:, 1:] == 2) & (of_words[:, :-1] > 0), (1, 0))
        position = torch.arange(ids.shape[1], device=ids.device)
        begin = torch.where(goes_on, -1, position).cummax(1).values
        return torch.where(places, position, -1).cummax(1).values >= begin

    def text_of(self, identities: Sequence[int]) -> str:
        """Tokens as text; as tokens, such as "##ing", where they begin within a word."""
        if NUMBER in identities:
            runs = itertools.groupby(identities, lambda i: i == NUMBER)
            return " ".join(NUMBER_NAME if number else self.text_of(list(run)) for number, run in runs)
        if not hasattr(self.tokenizer, "decode"):
            return " ".join(f"token {i}" for i in identities)
        if hasattr(self.tokenizer, "convert_ids_to_tokens"):
            tokens = self.tokenizer.convert_ids_to_tokens(list(identities))
            if tokens and str(tokens[0]).startswith("##"):
                return " ".join(tokens)
        return str(self.tokenizer.decode(list(identities))).strip()

    def read_name(self, name: str, option: str) -> list[list[int]]:
        """The token ids of a text, as it stands at the start of a text and within one; the second first.

        A name that is made of tokens of the vocabulary, such as "##ing", is also read as these. "[number]" is any token of
        digits.
        """
        if not hasattr(self.tokenizer, "encode"):
            raise ChallengerError(f"{option}={[name]!r} needs a tokenizer. Pass processing_class=tokenizer.")
        encode, unknown = self.tokenizer.encode, self.tokenizer.unk_token_id
        readings: list[Callable[[str], list[int]]] = [
            lambda text: encode(f" {text}", add_special_tokens=False),
            lambda text: encode(text, add_special_tokens=False),
        ]
        if hasattr(self.tokenizer, "convert_tokens_to_ids"):
            readings.append(lambda text: self.tokenizer.convert_tokens_to_ids(text.split()))
        if NUMBER_NAME in name.split() and NUMBER_NAME not in self._vocabulary:
            found = self._with_numbers(name, readings)
        else:
            found = [read(name.strip()) for read in readings]
        # "[UNK]" itself is a name: what the vocabulary lacks, such as an emoji, may be a leak.
        named = name.count(self.tokenizer.unk_token) if self.tokenizer.unk_token else 0
        variants = [list(v) for v in dict.fromkeys(map(tuple, found)) if v and v.count(unknown) <= named and None not in v]
        if not variants:
            as_read = self.text_of(found[0])
            more = f"; the name {as_read!r} is all that reads so" if as_read else ""
            raise ChallengerError(
                f"{option} names {name!r}, of which the tokenizer knows no such tokens ({as_read or 'nothing'} comes out). Name it as"
                f" trainer.cues shows it{more}."
            )
        if len(variants[0]) > 1:
            pieces = " ".join(repr(self.text_of([i])) for i in variants[0])
            how = "in any order" if NUMBER in variants[0] else "side by side"
            how = "of which a row holds more than half" if option == "challenge_keep" else how
            logger.warning("%s: %r is read as %d tokens %s: %s.", option, name, len(variants[0]), how, pieces)
        return variants

    def _with_numbers(self, name: str, readings: Sequence[Callable[[str], list[int]]]) -> list[list[int]]:
        """A name in which "[number]" is any token of digits. Its words may stand in any order, each at the start of a text or within
        one, so that each is read by itself.
        """
        of_words = []
        for word in name.split():
            found = [[NUMBER]] if word == NUMBER_NAME else [read(word) for read in readings]
            # A row that holds half of a name's tokens holds it: none may be a space alone.
            kept = [[i for i in ids if i == NUMBER or (i is not None and self.text_of([i]))] for ids in found]
            known = [ids for ids in kept if ids and self.tokenizer.unk_token_id not in ids]
            fewest = min(map(len, known), default=0)
            of_words.append(list(dict.fromkeys(tuple(ids) for ids in known if len(ids) == fewest)))
        return [list(itertools.chain(*ids)) for ids in itertools.islice(itertools.product(*of_words), MOST_READINGS)]

    def places_of(self, name: str, inputs: Mapping[str, Any], option: str = "the name") -> Tensor:
        """``(rows, length)`` bool: the tokens of that text, where they stand side by side."""
        ids = inputs[self.key]
        places = torch.zeros_like(ids, dtype=torch.bool)
        for sequence in self.read_name(name, option):
            n = len(sequence)
            starts = same(ids.unfold(1, n, 1), torch.tensor(sequence, device=ids.device), self.kinds).all(-1)
            for offset in range(n):
                places[:, offset : offset + starts.shape[1]] |= starts
        return places


def same(identities: Tensor, wanted: Tensor, kinds: Tensor | None) -> Tensor:
    """Where an identity, or the kind of it, is the wanted one; bool, both broadcast.

    Args:
        identities: integers.
        wanted: identities or kinds.
        kinds: ``(identities,)`` int64, what each is an example of (a number), itself where of nothing; None: of nothing.
    """
    found = identities == wanted
    return found if kinds is None else found | (kinds_of(identities, kinds) == wanted)


def kinds_of(identities: Tensor, kinds: Tensor) -> Tensor:
    """The kind of each; an identity that the table does not know, such as padding of -1, stays itself."""
    identities = identities.long()
    known = (identities >= 0) & (identities < len(kinds))
    return torch.where(known, kinds.to(identities.device)[identities.masked_fill(~known, 0)], identities)


def _around_a_text(tokenizer: Any) -> set[int]:
    """What the tokenizer puts around any text, such as the language of mBART."""
    try:
        return set(tokenizer("")["input_ids"])
    except Exception:  # one of tables or of pages takes more than a text; the roles must do
        return set()
