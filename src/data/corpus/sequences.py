"""What pre-training reads in an epoch: prepared chunks as masked sequences, drawn anew each time."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from src.data.batches import EMPTY_SHARE, TrainBatches
from src.data.corpus.masking import NOT_MASKED, Masking
from src.data.corpus.pairs import FOLLOWS, draw_pair

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
        if [row for *_, row in keys] == [EMPTY_SHARE]:
            return [_masked_row(self.tokenizer)]
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
        """A chunk of another review; where one is found soon, as long as this one, and the last of its review if this
        one is, for neither its length nor its being an end should tell.

        There are two reviews at least.
        """
        for tries in itertools.count():
            other = int(rng.integers(len(self._reviews)))
            alike = self._lengths[other] >= self._lengths[row] and self._last[other] == self._last[row]
            if self._reviews[other] != self._reviews[row] and (alike or tries >= _TRIES):
                return other
        raise AssertionError

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


def _masked_row(tokenizer: PreTrainedTokenizerBase) -> Row:
    """Stands in for the row of a rank that has none; it counts in no loss and no metric."""
    one = torch.tensor([tokenizer.cls_token_id])
    return {
        "input_ids": one,
        "token_type_ids": torch.zeros_like(one),
        "labels": torch.full_like(one, NOT_MASKED),
        "next_sentence_label": NOT_MASKED,
    }


class SequenceCollator:
    """Pads rows to the longest: `input_ids`, `attention_mask`, `token_type_ids`, `labels` of shape (rows, tokens),
    and `next_sentence_label` of shape (rows,), as `BertForPreTraining` takes them.
    """

    def __init__(self, pad_token_id: int) -> None:
        self.fill = {"input_ids": pad_token_id, "token_type_ids": 0, "labels": NOT_MASKED}

    def __call__(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        batch = {
            name: torch.nn.utils.rnn.pad_sequence([row[name] for row in rows], batch_first=True, padding_value=fill)
            for name, fill in self.fill.items()
        }
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths[:, None]).long()
        batch["next_sentence_label"] = torch.tensor([row["next_sentence_label"] for row in rows])
        return batch
