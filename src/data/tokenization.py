"""Text to token ids, cut to a length or into windows. Training, prediction and export all use this file."""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import Literal, TypeVar, get_args

from transformers import PreTrainedTokenizerBase

from src.system.errors import UserError
from src.system.pretrained import reading

T = TypeVar("T")
Truncation = Literal["head", "tail", "head_tail", "windows"]

# Sun et al. 2019 (https://arxiv.org/abs/1905.05583), section 5.3.1: the first 128 and the last 382 of 510 tokens
_HEAD_SHARE = 128 / 510

MIN_LENGTH = 8

_CHARACTERS_AT_ONCE = 500_000  # 400 reviews of IMDb
_BERT = ["BertNormalizer", "BertPreTokenizer"]
_SAMPLE = "a \U000e0fff"  # the second is in no vocabulary: a tokenizer without a token for that raises an error


@dataclass(frozen=True)
class Encoder:
    """Turns texts into token ids.

    Attributes:
        tokenizer: a fast tokenizer.
        max_length: the most tokens of a window, special tokens included.
        truncation: which part of a longer text is kept; "windows" keeps all of it.

    Raises:
        UserError: the settings, which may come from a file, are no such length or truncation.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    truncation: Truncation

    def __post_init__(self) -> None:
        if type(self.max_length) is not int or self.max_length < MIN_LENGTH:
            raise UserError(f"max_length is {self.max_length!r}; it must be a number of at least {MIN_LENGTH}")
        if self.truncation not in get_args(Truncation):
            known = ", ".join(get_args(Truncation))
            raise UserError(f"truncation is {self.truncation!r}; it must be one of {known}")
        prefix, suffix = self.special_tokens()
        if len(prefix) + len(suffix) >= MIN_LENGTH:
            raise UserError(f"the tokenizer puts {len(prefix) + len(suffix)} special tokens around a text")

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """The token ids of the windows of each text, unpadded. There is one window unless `truncation` is "windows"."""
        prefix, suffix = self.special_tokens()
        room = self.max_length - len(prefix) - len(suffix)
        return [
            [prefix + window + suffix for window in cut(body, room, self.truncation)]
            for body in token_ids(self.tokenizer, texts)
        ]

    def places(self, text: str) -> list[list[tuple[int, int] | None]]:
        """Start and end in `text` of each token of `encode([text])[0]`; None for special tokens."""
        prefix, suffix = self.special_tokens()
        encoded = self.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False, split_special_tokens=True
        )
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        body: list[tuple[int, int] | None] = []
        for i, place in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
            body += [place] * (len(_spelled_out(self.tokenizer, i)) if i in special else 1)
        room = self.max_length - len(prefix) - len(suffix)
        before, after = [None] * len(prefix), [None] * len(suffix)
        return [[*before, *window, *after] for window in cut(body, room, self.truncation)]

    def special_tokens(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text: [CLS] and [SEP] for BERT, <s> and </s> for RoBERTa."""
        with reading("the tokenizer"):
            whole = self.tokenizer(_SAMPLE, return_special_tokens_mask=True)
            # by the mask, not by the ids, since a special token may have the id of the unknown token
            ids, mask = whole["input_ids"], whole["special_tokens_mask"]
            if all(mask):
                raise ValueError("it makes no tokens of a text")
        return ids[: mask.index(0)], ids[len(mask) - mask[::-1].index(0) :]

    def special_tokens_as_text(self) -> dict[int, list[int]]:
        """What stands in place of each special token that a tokenizer finds in a text: see `_spelled_out`."""
        special = sorted(set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id})
        return {token: _spelled_out(self.tokenizer, token) for token in special}


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, without special tokens and without truncation.

    A text has no special tokens: `</s>` or `[SEP]` in it is text, where `transformers` would take it for the token.

    A tokenizer needs over 100 bytes of memory for each character, so very long texts are given to it in parts.
    """
    parts = [_parts(tokenizer, text) for text in texts]
    ids = _ids_of(tokenizer, list(chain.from_iterable(parts)))
    return [list(chain.from_iterable(islice(ids, len(of_text)))) for of_text in parts]


def _ids_of(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Iterator[list[int]]:
    """The ids of each text, some texts at a time."""
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    start = 0
    while start < len(texts):
        stop, characters = start, 0
        while stop < len(texts) and (stop == start or characters + len(texts[stop]) <= _CHARACTERS_AT_ONCE):
            characters += len(texts[stop])
            stop += 1
        encoded = tokenizer(
            list(texts[start:stop]),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # no warning that a text is longer than the model's input: it is cut later
            split_special_tokens=True,
        )
        for ids in encoded["input_ids"]:
            if special.isdisjoint(ids):
                yield ids
            else:
                yield [*chain.from_iterable(_spelled_out(tokenizer, i) if i in special else [i] for i in ids)]
        start = stop


def _spelled_out(tokenizer: PreTrainedTokenizerBase, special: int) -> list[int]:
    """The ids of the letters of a special token, for a tokenizer in whose vocabulary `</s>` is a word too.

    A Unigram or word-level model finds it there, although the tokenizer looks for no special tokens.
    """
    letters = " ".join(str(tokenizer.convert_ids_to_tokens(special)))
    ids = tokenizer(letters, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [i for i in ids if i not in tokenizer.all_special_ids or i == tokenizer.unk_token_id]


def _parts(tokenizer: PreTrainedTokenizerBase, text: str) -> list[str]:
    """A very long text, cut at spaces where that does not change its tokens: BERT's are within words."""
    backend = tokenizer.backend_tokenizer
    steps = [type(step).__name__ for step in (backend.normalizer, backend.pre_tokenizer)]
    added = tokenizer.get_added_vocab()
    if len(text) <= _CHARACTERS_AT_ONCE or steps != _BERT or any(len(token.split()) != 1 for token in added):
        return [text]
    parts, start = [], 0
    while len(text) - start > _CHARACTERS_AT_ONCE:
        stop = text.rfind(" ", start + 1, start + _CHARACTERS_AT_ONCE)
        if stop < 0:
            stop = text.find(" ", start + _CHARACTERS_AT_ONCE)
        if stop < 0:
            break
        parts.append(text[start:stop])
        start = stop
    return [*parts, text[start:]]


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> str:
    """What determines its ids, as JSON for a key. Truncation and padding do not belong: each use sets them."""
    facts = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps({name: fact for name, fact in facts.items() if name not in ("truncation", "padding")})


def cut(body: list[T], room: int, truncation: Truncation) -> list[list[T]]:
    """The windows of at most `room` tokens in which `body` is read.

    "head", "tail" and "head_tail" (a quarter from the start, the rest from the end) keep one window. "windows" keeps
    all tokens, in as few windows as possible and of equal length, so that no window is too short to be informative.
    """
    if len(body) <= room:
        return [body]
    if truncation == "windows":
        n = math.ceil(len(body) / room)
        ends = [len(body) * i // n for i in range(n + 1)]
        return [body[start:end] for start, end in pairwise(ends)]
    if truncation == "head":
        return [body[:room]]
    if truncation == "tail":
        return [body[-room:]]
    head = round(room * _HEAD_SHARE)
    return [body[:head] + body[len(body) - (room - head) :]]


def check_length(option: str, length: int, longest: int | None = None, model: str = "") -> None:
    """Refuses a length that is too short to be useful or too long for the model.

    Args:
        option: that gives the length, for the message.
        longest: the most tokens that the model takes, if it sets a limit.
        model: its name, for the message.

    Raises:
        UserError: `length` is below 8 or above `longest`.
    """
    if length < MIN_LENGTH:
        raise UserError(f"{option} is {length}; it must be at least {MIN_LENGTH}")
    if longest is not None and length > longest:
        raise UserError(f"{option} is {length}, but {model} takes at most {longest} tokens")
