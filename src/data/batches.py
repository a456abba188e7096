"""Rows to batches: which rows make up each step on each rank, and how they are padded."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from src.data.labels import IGNORED_LABEL

Padding = Literal["longest", "max_length"]

# HF's grouped sampling (transformers.trainer_pt_utils) sorts within chunks of 50 batches too: long enough for little
# padding, short enough that an epoch's order stays random
_BATCHES_A_CHUNK = 50

FILLER_ROW = -1
"""The number of the filler row: a rank that has no row in a step gets it, and it counts in nothing."""


def plan_epoch(lengths: np.ndarray, batch_size: int, seed: int, epoch: int, group_by_length: bool) -> list[np.ndarray]:
    """The rows of each step of one epoch, over all ranks together.

    Every row stands in exactly one step. All steps have `batch_size` rows, but for one that takes what is left over.
    The plan depends on the arguments alone, so every rank makes the same, and a resumed run makes it again.

    Args:
        lengths: tokens of each row, shape (rows,).
        batch_size: rows a step, over all ranks.
        seed, epoch: of the order, which differs from epoch to epoch.
        group_by_length: puts rows of like length into one step. The step with the longest row comes first, so that
            running out of memory shows at once.
    """
    rng = np.random.default_rng((seed, epoch))
    order = rng.permutation(len(lengths))
    if not group_by_length:
        return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    chunk = batch_size * _BATCHES_A_CHUNK
    steps: list[np.ndarray] = []
    for i in range(0, len(order), chunk):
        part = order[i : i + chunk]
        part = part[np.argsort(-lengths[part], kind="stable")]
        steps += [part[j : j + batch_size] for j in range(0, len(part), batch_size)]
    longest = max(range(len(steps)), key=lambda i: lengths[steps[i][0]])
    rest = [i for i in range(len(steps)) if i != longest]
    return [steps[longest]] + [steps[i] for i in rng.permutation(rest)] if rest else steps


def share_of(step: np.ndarray, rank: int, world_size: int) -> list[int]:
    """The rows that `rank` computes of a step: every `world_size`-th one, so that shares are alike in length."""
    share = step[rank::world_size].tolist()
    return share or [FILLER_ROW]


class TrainBatches(Sampler[list[int]]):
    """Batches of one rank for training, from any step of any epoch on.

    Not a subclass of `BatchSampler`, and without its `drop_last`: Lightning would rebuild it.
    """

    def __init__(
        self, lengths: np.ndarray, *, batch_size: int, seed: int, group_by_length: bool, rank: int, world_size: int
    ) -> None:
        self.lengths = lengths
        self.rows_per_step = batch_size * world_size
        self.seed = seed
        self.group_by_length = group_by_length
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.start = 0

    def __iter__(self) -> Iterator[list[int]]:
        steps = plan_epoch(self.lengths, self.rows_per_step, self.seed, self.epoch, self.group_by_length)
        for step in steps[self.start :]:
            yield share_of(step, self.rank, self.world_size)

    def __len__(self) -> int:
        """Steps of a whole epoch, wherever it is begun."""
        if not self.group_by_length:
            return math.ceil(len(self.lengths) / self.rows_per_step)
        chunk = self.rows_per_step * _BATCHES_A_CHUNK
        whole, rest = divmod(len(self.lengths), chunk)
        return whole * _BATCHES_A_CHUNK + math.ceil(rest / self.rows_per_step)


class EvalBatches(Sampler[list[int]]):
    """Batches of one rank for evaluation: each row once over all ranks, the longest first.

    In place of `DistributedSampler`, which repeats rows until all ranks have as many (lightning #7929, #11364).
    """

    def __init__(self, lengths: np.ndarray, batch_size: int, rank: int, world_size: int) -> None:
        order = np.argsort(-lengths, kind="stable")
        mine = share_of(order, rank, world_size)
        self.batches = [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class TrainLoader(DataLoader[dict[str, torch.Tensor]]):
    """A DataLoader that begins where the training loop stands, found out when its first batch is asked for.

    Lightning builds an epoch's iterator before it tells the sampler the epoch (lightning #21938), and knows no
    position within one; so the loop's own progress is read instead. Seeking costs nothing: no batch is skipped.

    Args:
        position: gives (epoch, step within the epoch) of the batch that is due.
    """

    def __init__(self, *args: Any, position: Callable[[], tuple[int, int]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.__dict__["position"] = position

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:  # type: ignore[override]
        self.batch_sampler.epoch, self.batch_sampler.start = self.__dict__["position"]()  # type: ignore[union-attr]
        yield from super().__iter__()

    def state_dict(self) -> dict[str, Any]:
        """Empty: the position is the loop's. That it is here tells Lightning that a run can resume in mid-epoch."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore; see `state_dict`."""


class Collator:
    """Makes a batch of reviews, of each of which some windows are read.

    `input_ids` and `attention_mask` have the shape (windows, tokens), `labels` (reviews,). With `by_review`, `review`
    of the shape (windows,) tells to which review of the batch a window belongs; without, each has one.
    """

    def __init__(self, pad_token_id: int, padding: Padding, max_length: int, by_review: bool = False) -> None:
        self.pad_token_id = pad_token_id
        self.padding = padding
        self.max_length = max_length
        self.by_review = by_review

    def __call__(self, reviews: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        windows = [window for review in reviews for window in review["windows"]]
        width = self.max_length if self.padding == "max_length" else max(map(len, windows))
        input_ids = torch.full((len(windows), width), self.pad_token_id, dtype=torch.long)
        attention_mask = torch.zeros((len(windows), width), dtype=torch.long)
        for i, window in enumerate(windows):
            input_ids[i, : len(window)] = torch.as_tensor(window, dtype=torch.long)
            attention_mask[i, : len(window)] = 1
        labels = torch.tensor([review["label"] for review in reviews], dtype=torch.long)
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        if self.by_review:
            counts = torch.tensor([len(review["windows"]) for review in reviews])
            batch["review"] = torch.repeat_interleave(torch.arange(len(reviews)), counts)
        return batch


class PreparedReviews(Dataset[dict[str, Any]]):
    """Prepared reviews by number, each with all its windows, read from Arrow on disk as they are asked for."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        if indices == [FILLER_ROW]:
            return [_filler(self.rows[0])]
        return _reviews(self.rows[indices])


class PreparedWindows(PreparedReviews):
    """The windows of all prepared reviews by number, each as a review of its own with the label of the whole.

    Attributes:
        lengths: tokens of each window, int64 of shape (windows,).
    """

    def __init__(self, rows: Any) -> None:
        super().__init__(rows)
        if "windows" in rows.column_names:
            windows = rows.data.column("windows").combine_chunks()
            counts = windows.value_lengths().to_numpy(zero_copy_only=False)
            lengths = windows.flatten()
        else:
            counts, lengths = np.ones(len(rows), dtype=np.int64), rows.data.column("length")
        self.lengths = np.asarray(lengths.to_numpy(), dtype=np.int64)
        self._review = np.repeat(np.arange(len(counts)), counts)
        self._place = np.arange(len(self.lengths)) - np.repeat(np.cumsum(counts) - counts, counts)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        if indices == [FILLER_ROW]:
            return super().__getitems__(indices)
        reviews = super().__getitems__(self._review[indices].tolist())
        return [
            {"windows": [review["windows"][place]], "label": review["label"]}
            for review, place in zip(reviews, self._place[indices].tolist(), strict=True)
        ]


def _reviews(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Reviews with their windows, from columns of prepared rows."""
    ids = columns["input_ids"]
    lengths = columns.get("windows") or [[len(row)] for row in ids]
    return [
        {"windows": [row[end - length : end] for length, end in zip(parts, accumulate(parts), strict=True)], "label": y}
        for row, parts, y in zip(ids, lengths, columns["label"], strict=True)
    ]


def _filler(row: dict[str, Any]) -> dict[str, Any]:
    """A review of one token whose label is ignored."""
    return {"windows": [row["input_ids"][:1]], "label": IGNORED_LABEL}
