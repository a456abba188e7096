"""Text to token ids, cut to a length: the one definition that training, prediction and export share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from transformers import PreTrainedTokenizerBase

from src.errors import UserError

Truncation = Literal["head", "tail", "head_tail"]

# Sun et al. 2019 (https://arxiv.org/abs/1905.05583), section 5.3.1: the first 128 and the last 382 of 510 tokens
_HEAD_SHARE = 128 / 510

MIN_LENGTH = 8


@dataclass(frozen=True)
class Encoder:
    """Turns reviews into token ids of at most `max_length`, special tokens included.

    Attributes:
        tokenizer: a fast tokenizer.
        max_length: tokens a review may have, with the special ones.
        truncation: which part of a longer review is kept.
    """

    tokenizer: PreTrainedTokenizerBase
    max_length: int
    truncation: Truncation

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, not padded."""
        prefix, suffix = self._special_tokens()
        room = self.max_length - len(prefix) - len(suffix)
        # verbose=False: the tokenizer warns of texts over the model's length, which are about to be cut
        bodies = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return [prefix + cut(body, room, self.truncation) + suffix for body in bodies]

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """What the tokenizer puts before and after a text: [CLS] and [SEP] for BERT, <s> and </s> for RoBERTa."""
        body = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        whole = self.tokenizer("a")["input_ids"]
        start = next(i for i in range(len(whole)) if whole[i : i + len(body)] == body)
        return whole[:start], whole[start + len(body) :]


def cut(body: list[int], room: int, truncation: Truncation) -> list[int]:
    """At most `room` of the tokens `body`: the first, the last, or a quarter from the start, the rest from the end."""
    if len(body) <= room:
        return body
    if truncation == "head":
        return body[:room]
    if truncation == "tail":
        return body[-room:]
    head = round(room * _HEAD_SHARE)
    return body[:head] + body[len(body) - (room - head) :]


def check_length(max_length: int, longest: int | None, model: str) -> None:
    """Refuses a length that the model cannot take; `longest` is the number of its position embeddings, if limited.

    Raises:
        UserError: `max_length` is below 8 or above `longest`.
    """
    if max_length < MIN_LENGTH:
        raise UserError(f"data.max_length is {max_length}; it must be at least {MIN_LENGTH}")
    if longest is not None and max_length > longest:
        raise UserError(f"data.max_length is {max_length}, but {model} takes at most {longest} tokens")


def check_texts(texts: Sequence[object], column: str, rows: np.ndarray, split: str) -> None:
    """Refuses texts that are missing, empty or no strings; `rows` are their numbers in the source's split.

    Raises:
        UserError: with the number of such rows, and the first of them by name.
    """
    if any(not isinstance(text, str) and text is not None for text in texts[:1]):
        raise UserError(f"the column {column!r} holds no text but {type(texts[0]).__name__}")
    bad = [int(row) for row, text in zip(rows, texts, strict=True) if not isinstance(text, str) or not text.strip()]
    if bad:
        named = ", ".join(map(str, sorted(bad)[:5])) + (", …" if len(bad) > 5 else "")
        raise UserError(f"{len(bad)} rows of the split {split!r} have an empty or missing {column!r}: rows {named}")
