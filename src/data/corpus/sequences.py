"""The examples of pre-training: prepared chunks as masked sequences, drawn anew in each epoch."""

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from src.data.batches import FILLER_ROW, Batch, TrainBatches
from src.data.corpus.chunks import room_for_text
from src.data.corpus.masking import Masking
from src.data.corpus.pairs import FOLLOWS, draw_pair
from src.data.examples import Example, Examples, attention_mask, column
from src.data.labels import IGNORED_LABEL

Draw = tuple[int, int]
"""An epoch and a row."""

_TRIES = 20
_FIXED = (0, 0)  # seed and epoch of evaluation, so that its curves can be compared between epochs and runs


class DrawnBatches(TrainBatches):
    """Training batches whose rows come with their epoch, since a `Sequences` may live in another process."""

    def __iter__(self) -> Iterator[list[Any]]:
        for rows in super().__iter__():
            yield [(self.epoch, row) for row in rows]


class Sequences(Examples):
    """Chunks by number, each as a masked sequence of one or two segments.

    All that is random depends on seed, epoch and row alone, not on the batch or the rank. So a resumed run draws what
    an uninterrupted one does. A row without an epoch, as in evaluation, always gives the same sequence.

    Args:
        rows: of a `Corpus`.
        tokenizer: with which it was prepared.
        sequence_length: tokens of a sequence, special tokens included.
        mask_rate: probability of a token to be masked.
        pairs: makes two segments of a chunk, and takes half of the second ones from another review.
        seed: of the training draws.
    """

    def __init__(
        self,
        rows: datasets.Dataset,
        tokenizer: PreTrainedTokenizerBase,
        sequence_length: int,
        mask_rate: float,
        pairs: bool,
        seed: int,
    ) -> None:
        super().__init__(rows, column(rows, "length"))
        self.tokenizer = tokenizer
        self.room = room_for_text(sequence_length, pairs)
        self.pairs = pairs
        self.seed = seed
        self._masking = Masking(tokenizer, mask_rate)
        self._reviews = column(rows, "review")
        self._last = np.append(self._reviews[1:] != self._reviews[:-1], True)  # chunk of its review

    def __getitems__(self, draws: Sequence[int | Draw]) -> list[Example]:  # type: ignore[override]
        """`input_ids`, `token_type_ids` and `labels`, int64 of shape (tokens,), and `next_sentence_label` of each."""
        keys = [(self.seed, 1 + draw[0], draw[1]) if isinstance(draw, tuple) else (*_FIXED, draw) for draw in draws]
        numbers = [row for _, _, row in keys]
        if numbers == [FILLER_ROW]:
            return [self._filler()]
        rngs = [np.random.default_rng(key) for key in keys]
        if not self.pairs:
            stored = self.rows[numbers]["input_ids"]
            return [self._example(rng, [ids], FOLLOWS) for rng, ids in zip(rngs, stored, strict=True)]
        labels = [int(rng.integers(2)) for rng in rngs]
        others = [self._other_review(rng, row) for rng, row in zip(rngs, numbers, strict=True)]
        stored = self.rows[numbers + others]
        chunks = list(zip(stored["input_ids"], stored["ends"], strict=True))
        pairs = zip(rngs, chunks[: len(numbers)], chunks[len(numbers) :], labels, strict=True)
        return [
            self._example(rng, draw_pair(rng, chunk, other, label, self.room), label)
            for rng, chunk, other, label in pairs
        ]

    def _other_review(self, rng: np.random.Generator, row: int) -> int:
        """A chunk of another review: if possible at least as long as this one, and the last of its review if this is.

        Otherwise length or place would give the label away. There are at least two reviews.
        """
        for _ in range(_TRIES):
            other = int(rng.integers(len(self)))
            alike = self.lengths[other] >= self.lengths[row] and self._last[other] == self._last[row]
            if self._reviews[other] != self._reviews[row] and alike:
                return other
        other = row
        while self._reviews[other] == self._reviews[row]:
            other = int(rng.integers(len(self)))
        return other

    def _example(self, rng: np.random.Generator, segments: Sequence[list[int]], label: int) -> Example:
        ids = [self.tokenizer.cls_token_id]
        types = [0]
        for number, segment in enumerate(segments):
            ids += [*segment, self.tokenizer.sep_token_id]
            types += [number] * (len(segment) + 1)
        inputs, labels = self._masking.mask(rng, ids)
        return {
            "input_ids": inputs,
            "token_type_ids": torch.tensor(types),
            "labels": labels,
            "next_sentence_label": label,
        }

    def _filler(self) -> Example:
        return {
            "input_ids": torch.tensor([self.tokenizer.cls_token_id]),
            "token_type_ids": torch.tensor([0]),
            "labels": torch.tensor([IGNORED_LABEL]),
            "next_sentence_label": IGNORED_LABEL,
        }


class SequenceCollator:
    """Pads sequences to the longest, as `BertForPreTraining` takes them.

    `input_ids`, `attention_mask`, `token_type_ids` and `labels` have the shape (rows, tokens), and
    `next_sentence_label` has the shape (rows,).
    """

    def __init__(self, pad_token_id: int) -> None:
        self.fill = {"input_ids": pad_token_id, "token_type_ids": 0, "labels": IGNORED_LABEL}

    def __call__(self, examples: Sequence[Example]) -> Batch:
        batch = {
            name: pad_sequence([example[name] for example in examples], batch_first=True, padding_value=fill)
            for name, fill in self.fill.items()
        }
        ids = [example["input_ids"] for example in examples]
        batch["attention_mask"] = attention_mask(ids, batch["input_ids"].shape[1])
        batch["next_sentence_label"] = torch.tensor([example["next_sentence_label"] for example in examples])
        return batch
