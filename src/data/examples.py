"""The examples of fine-tuning: prepared reviews, or their windows, by number, and the collator that pads them."""

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset

from src.data.batches import FILLER_ROW, Batch
from src.data.labels import IGNORED_LABEL

Example = dict[str, Any]
Padding = Literal["longest", "max_length"]


class Examples(Dataset[Example]):
    """Examples by number, made of prepared rows, which are read from disk on request.

    Attributes:
        rows: the prepared rows.
        lengths: tokens of each example, int64 of shape (examples,).
    """

    def __init__(self, rows: datasets.Dataset, lengths: np.ndarray) -> None:
        self.rows = rows
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Example]:
        """Several at once, which is much quicker than one by one. `[FILLER_ROW]` gives an example to be ignored."""
        raise NotImplementedError


def column(rows: datasets.Dataset, name: str) -> np.ndarray:
    """A column of integers of prepared rows, int64 of shape (rows,)."""
    return np.asarray(rows.data.column(name), dtype=np.int64)


class ReviewExamples(Examples):
    """Reviews, each with all its windows. Its label is the number of a class, or 0 or 1 for each label."""

    def __init__(self, rows: datasets.Dataset) -> None:
        # Arrow's arrays, not Python's lists: a batch of 128 reviews in a tenth of the time
        arrow = rows.select_columns(["input_ids", "windows", "label"]).with_format("arrow")
        super().__init__(arrow, column(rows, "length"))
        feature = rows.features["label"]
        self._several = len(feature.feature.names) if isinstance(feature, datasets.List) else None

    def __getitems__(self, indices: list[int]) -> list[Example]:
        if indices == [FILLER_ROW]:
            ignored = IGNORED_LABEL if self._several is None else [IGNORED_LABEL] * self._several
            return [{"windows": [self[0]["windows"][0][:1]], "label": ignored}]
        stored = self.rows[indices]
        ids, sizes = (stored[name].combine_chunks() for name in ("input_ids", "windows"))
        windows = iter(np.split(np.asarray(ids.flatten()), np.asarray(sizes.flatten()).cumsum()[:-1]))
        counts = sizes.value_lengths().to_pylist()
        return [
            {"windows": list(islice(windows, n)), "label": self._label(label)}
            for n, label in zip(counts, stored["label"].to_pylist(), strict=True)
        ]

    def _label(self, stored: int | list[int]) -> int | list[int]:
        """The number of a class; or for each label whether the text has it, 0 or 1."""
        if isinstance(stored, int) or self._several is None:
            return stored
        has = set(stored)
        return [int(i in has) for i in range(self._several)]


class WindowExamples(ReviewExamples):
    """The windows of all reviews, each as an example of its own with the label of its review."""

    def __init__(self, rows: datasets.Dataset) -> None:
        super().__init__(rows)
        windows = rows.data.column("windows").combine_chunks()
        counts = np.asarray(windows.value_lengths())
        self.lengths = np.asarray(windows.flatten(), dtype=np.int64)
        self._review = np.repeat(np.arange(len(counts)), counts)
        self._place = np.arange(len(self.lengths)) - np.repeat(np.cumsum(counts) - counts, counts)

    def __getitems__(self, indices: list[int]) -> list[Example]:
        if indices == [FILLER_ROW]:
            return super().__getitems__(indices)
        reviews = super().__getitems__(self._review[indices].tolist())
        return [
            {"windows": [review["windows"][place]], "label": review["label"]}
            for review, place in zip(reviews, self._place[indices].tolist(), strict=True)
        ]


@dataclass
class Collator:
    """Pads the windows of some examples into a batch.

    `input_ids` and `attention_mask` have the shape (windows, tokens), `labels` has the shape (examples,), or (examples,
    labels) where a text may have several. With `by_review`, `review` of shape (windows,) gives the number within the
    batch of the review that a window belongs to; without, each example has one window.

    Attributes:
        padding: to the longest window of the batch, or to `max_length`.
    """

    pad_token_id: int
    padding: Padding
    max_length: int
    by_review: bool = False

    def __call__(self, examples: Sequence[Example]) -> Batch:
        windows = [window for example in examples for window in example["windows"]]
        width = self.max_length if self.padding == "max_length" else max(map(len, windows))
        mask = attention_mask(windows, width)
        input_ids = torch.full(mask.shape, self.pad_token_id)
        input_ids[mask.bool()] = torch.from_numpy(np.concatenate(windows)).long()
        batch = {
            "input_ids": input_ids,
            "attention_mask": mask,
            "labels": torch.tensor([example["label"] for example in examples]),
        }
        if self.by_review:
            counts = torch.tensor([len(example["windows"]) for example in examples])
            batch["review"] = torch.repeat_interleave(torch.arange(len(examples)), counts)
        return batch


def attention_mask(sequences: Sequence[Sized], width: int) -> torch.Tensor:
    """1 at the tokens of each sequence, 0 at the padding after them; int64 of shape (sequences, width)."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return (torch.arange(width) < lengths[:, None]).long()
