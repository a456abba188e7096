"""Text to token ids, cut to a length or into windows: the one definition that training, prediction and export share."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from src.system.errors import UserError

Truncation = Literal["head", "tail", "head_tail", "windows"]

# Sun et al. 2019 (https://arxiv.org/abs/1905.05583), section 5.3.1: the first 128 and the last 382 of 510 tokens
_HEAD_SHARE = 128 / 510

MIN_LENGTH = 8


@dataclass(frozen=True)
class Encoder:
    """Turns reviews into token ids of at most `max_length`, special tokens included.

    Attributes:
        tokenizer: a fast tokenizer.
        max_length: tokens the network reads at once, with the special ones.
        truncation: which part of a longer review is kept; "windows" is all of it.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    truncation: Truncation

    def encode(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """The token ids of the windows of each text, not padded; one window, unless `truncation` is "windows"."""
        prefix, suffix = self.special_tokens()
        room = self.max_length - len(prefix) - len(suffix)
        return [
            [prefix + window + suffix for window in cut(body, room, self.truncation)]
            for body in token_ids(self.tokenizer, texts)
        ]

    def special_tokens(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text: [CLS] and [SEP] for BERT, <s> and </s> for RoBERTa."""
        body = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self.tokenizer("a")["input_ids"]
        start = next(i for i in range(len(whole)) if whole[i : i + len(body)] == body)
        return whole[:start], whole[start + len(body) :]


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """The ids of each text, of whatever length, without special tokens."""
    if not texts:
        return []
    # verbose=False: the tokenizer warns of texts over the model's length, which are about to be cut
    encoded = tokenizer(
        list(texts),
        add_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> str:
    """What determines the ids that it gives, for a key: not its truncation and padding, which every use of it sets."""
    facts = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps({name: fact for name, fact in facts.items() if name not in ("truncation", "padding")})


def cut(body: list[int], room: int, truncation: Truncation) -> list[list[int]]:
    """What is read of the tokens `body`, in windows of at most `room`.

    One window with the first, the last, or a quarter from the start and the rest from the end; or all of them, in as
    few windows as will do, which are alike in length, so that none is too short to say something.
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


def check_length(max_length: int, longest: int | None, model: str, option: str = "data.max_length") -> None:
    """Refuses a length that the model cannot take; `longest` is the number of its position embeddings, if limited.

    Raises:
        UserError: `max_length` is below 8 or above `longest`; `option` is what the user calls it.
    """
    if max_length < MIN_LENGTH:
        raise UserError(f"{option} is {max_length}; it must be at least {MIN_LENGTH}")
    if longest is not None and max_length > longest:
        raise UserError(f"{option} is {max_length}, but {model} takes at most {longest} tokens")


def check_texts(texts: Iterable[object], column: str, rows: np.ndarray, split: str) -> None:
    """Refuses texts that are missing, empty or no strings; `rows` are their numbers in the split, after `where`.

    Raises:
        UserError: with the number of such rows, and the first of them by name.
    """
    bad = []
    for row, text in zip(rows.tolist(), texts, strict=True):
        if text is not None and not isinstance(text, str):
            raise UserError(f"the column {column!r} of the split {split!r} holds no text but {type(text).__name__}")
        if text is None or not text.strip():
            bad.append(row)
    if bad:
        named = ", ".join(map(str, sorted(bad)[:5])) + (", …" if len(bad) > 5 else "")
        some = "1 row" if len(bad) == 1 else f"{len(bad)} rows"
        raise UserError(f"no text in the column {column!r} of {some} of the split {split!r}: {named}")
