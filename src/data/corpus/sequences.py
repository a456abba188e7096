"""The training examples of pre-training: prepared chunks as masked sequences, drawn anew in each epoch."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from src.data.batches import FILLER_ROW, TrainBatches
from src.data.corpus.masking import Masking
from src.data.corpus.pairs import FOLLOWS, draw_pair
from src.data.labels import IGNORED_LABEL

Row = dict[str, Any]
Draw = tuple[int, int]
"""An epoch and a row of it."""

_TRIES = 20
_FIXED = (0, 0)  # the seed and the epoch of evaluation, so that its curves compare between epochs and between runs


class DrawnBatches(TrainBatches):
    """Training batches whose rows come with their epoch, for a `Sequences` that may live in another process."""

    def __iter__(self) -> Iterator[list[Any]]:
        for rows in super().__iter__():
            yield [(self.epoch, row) for row in rows]


class Sequences(Dataset[Row]):
    """Chunks by number, each as a sequence of one or two segments with some of its tokens masked.

    All that is random depends on seed, epoch and row alone: neither on the batch nor on the rank, and a resumed run
    draws as one that never stopped. A number without an epoch, as evaluation asks for, always gives the same sequence.

    Args:
        rows: prepared chunks (`src.data.corpus.prepared`).
        tokenizer: that they were made with.
        sequence_length: tokens of a sequence, special tokens included.
        mask_rate: probability of a token to be masked.
        pairs: makes two segments of a chunk; half of the second ones are of another review.
        seed: of the training draws.
    """

    def __init__(
        self,
        rows: Any,
        tokenizer: PreTrainedTokenizerBase,
        sequence_length: int,
        mask_rate: float,
        pairs: bool,
        seed: int,
    ) -> None:
        self.rows = rows
        self.tokenizer = tokenizer
        self.sequence_length = sequence_length
        self.pairs = pairs
        self.seed = seed
        self._masking = Masking(tokenizer, mask_rate)
        self._reviews, self._lengths = (np.asarray(rows.data.column(name).to_numpy()) for name in ("review", "length"))
        self._last = np.append(self._reviews[1:] != self._reviews[:-1], True)  # of its review

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Row:
        return self.__getitems__([index])[0]

    def __getitems__(self, draws: Sequence[int | Draw]) -> list[Row]:
        """`input_ids`, `token_type_ids` and `labels`, int64 of shape (tokens,), and `next_sentence_label` of each."""
        keys = [(self.seed, 1 + draw[0], draw[1]) if isinstance(draw, tuple) else (*_FIXED, draw) for draw in draws]
        if [row for *_, row in keys] == [FILLER_ROW]:
            return [_filler_row(self.tokenizer)]
        rngs = [np.random.default_rng(key) for key in keys]
        numbers = [row for *_, row in keys]
        labels = [int(rng.integers(2)) for rng in rngs] if self.pairs else []
        others = [self._other_review(rng, row) for rng, row in zip(rngs, numbers, strict=True)] if self.pairs else []
        stored = self.rows[[*numbers, *others]]
        chunks = list(zip(stored["input_ids"], stored["ends"], strict=True))
        if not self.pairs:
            return [self._row(rng, [ids], FOLLOWS) for rng, (ids, _) in zip(rngs, chunks, strict=True)]
        room = self.sequence_length - 3
        drawn = []
        for i, (rng, label) in enumerate(zip(rngs, labels, strict=True)):
            pair = draw_pair(rng, chunks[i], chunks[len(numbers) + i], label, room)
            drawn.append(self._row(rng, [pair.first, pair.second], pair.label))
        return drawn

    def _other_review(self, rng: np.random.Generator, row: int) -> int:
        """A chunk of another review, if possible as long as this one and, like it, the last of its review or not.

        Otherwise length or place would give the label away. There are at least two reviews.
        """
        for _ in range(_TRIES):
            other = int(rng.integers(len(self._reviews)))
            alike = self._lengths[other] >= self._lengths[row] and self._last[other] == self._last[row]
            if self._reviews[other] != self._reviews[row] and alike:
                return other
        other = row
        while self._reviews[other] == self._reviews[row]:
            other = int(rng.integers(len(self._reviews)))
        return other

    def _row(self, rng: np.random.Generator, segments: list[list[int]], label: int) -> Row:
        cls, sep = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        ids = [cls]
        types = [0]
        for number, segment in enumerate(segments):
            ids += [*segment, sep]
            types += [number] * (len(segment) + 1)
        inputs, labels = self._masking.mask(rng, ids)
        return {
            "input_ids": inputs,
            "token_type_ids": torch.tensor(types),
            "labels": labels,
            "next_sentence_label": label,
        }


def _filler_row(tokenizer: PreTrainedTokenizerBase) -> Row:
    """The filler row of a rank that has no row in a step; it counts in no loss and no metric."""
    one = torch.tensor([tokenizer.cls_token_id])
    return {
        "input_ids": one,
        "token_type_ids": torch.zeros_like(one),
        "labels": torch.full_like(one, IGNORED_LABEL),
        "next_sentence_label": IGNORED_LABEL,
    }


class SequenceCollator:
    """Pads rows to the longest: `input_ids`, `attention_mask`, `token_type_ids`, `labels` of shape (rows, tokens),
    and `next_sentence_label` of shape (rows,), as `BertForPreTraining` takes them.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.fill = {"input_ids": pad_token_id, "token_type_ids": 0, "labels": IGNORED_LABEL}

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        batch = {
            name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill)
            for name, fill in self.fill.items()
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        batch["next_sentence_label"] = torch.tensor([row["next_sentence_label"] for row in rows])
        return batch
