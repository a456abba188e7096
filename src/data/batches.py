"""Batches: which rows make up each step on each rank, in training and in evaluation."""

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from src.data.labels import IGNORED_LABEL

Batch = dict[str, torch.Tensor]

FILLER_ROW = -1
"""The row number of a rank that has no row in a step. Its row has the ignored label, so it counts in nothing."""

# as in Hugging Face's grouped sampling (transformers.trainer_pt_utils): enough to choose from for little padding, few
# enough that the order of an epoch stays random
_BATCHES_A_CHUNK = 50


def plan_epoch(lengths: np.ndarray, batch_size: int, seed: int, epoch: int, group_by_length: bool) -> list[np.ndarray]:
    """The rows of each step of one epoch, over all ranks together.

    Each row is in exactly one step. All steps have `batch_size` rows, except one that has what is left over. The plan
    depends on the arguments alone: every rank makes the same plan, and a resumed run makes it again.

    Args:
        lengths: tokens of each row, shape (rows,).
        batch_size: rows a step, over all ranks.
        seed: of the order.
        epoch: changes the order.
        group_by_length: puts rows of similar length into one step. The step with the longest row comes first, so that
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
    """The rows of a step that `rank` computes: every `world_size`-th one, so that the ranks' shares are alike."""
    share = step[rank::world_size].tolist()
    return share or [FILLER_ROW]


class TrainBatches(Sampler[list[int]]):
    """The training batches of one rank, from step `start` of `epoch` to the end of that epoch.

    It is no `BatchSampler` and has no `drop_last`: Lightning would rebuild it.
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
        """Steps of a whole epoch, whatever `start` is."""
        return math.ceil(len(self.lengths) / self.rows_per_step)


class EvalBatches(Sampler[list[int]]):
    """The evaluation batches of one rank: each row once over all ranks, the longest first.

    `DistributedSampler` would repeat rows until all ranks have the same number (lightning #7929, #11364).

    Args:
        lengths: tokens of each row, shape (rows,). The rows are in random order.
        limit: a number of batches, or a fraction of them, after which the evaluation will end. These batches are then
            of the first rows, which are a fair sample; the longest are none.
    """

    def __init__(
        self, lengths: np.ndarray, batch_size: int, rank: int, world_size: int, limit: int | float = 1.0
    ) -> None:
        in_all = math.ceil(math.ceil(len(lengths) / world_size) / batch_size)
        evaluated = limit if isinstance(limit, int) else int(in_all * limit)  # as Lightning counts
        sample = min(evaluated * batch_size * world_size, len(lengths))
        self.batches: list[list[int]] = []
        for part in np.split(np.arange(len(lengths)), [sample]):
            order = part[np.argsort(-lengths[part], kind="stable")]
            mine = share_of(order, rank, world_size) if len(order) else []
            self.batches += [mine[i : i + batch_size] for i in range(0, len(mine), batch_size)]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Position(NamedTuple):
    """Where a training loop is.

    Attributes:
        epoch: from 0.
        batch: that is due within the epoch, from 0.
        accumulated: batches whose gradients one optimizer step accumulates.
        last: number of batches after which the epoch ends; its last step may accumulate fewer.
    """

    epoch: int = 0
    batch: int = 0
    accumulated: int = 1
    last: float = math.inf


class TrainLoader(DataLoader[Batch]):
    """A DataLoader that starts where the training loop is, which it asks when its first batch is requested.

    Lightning builds an epoch's iterator before it tells the sampler the epoch (lightning #21938), and tells no step
    within an epoch. So the loop's own progress is read. No batch is loaded only to be skipped.

    Where an optimizer step accumulates several batches, each of them has `NAME_of_step` for its labels `NAME`: how many
    labels the batches of the step have together. A loss that is divided by it weighs each label alike, as in one large
    batch; Lightning's mean over the batches does not, and counts missing batches of the last step as zeros.

    Args:
        batches: the sampler.
        position: tells where the training loop is.
        options: of `DataLoader`.
    """

    def __init__(self, batches: TrainBatches, position: Callable[[], Position], **options: Any) -> None:
        super().__init__(batch_sampler=batches, **options)
        self.batches = batches
        self.position = position

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        now = self.position()
        self.batches.epoch, self.batches.start = now.epoch, now.batch
        batches, due = super().__iter__(), now.batch
        if now.accumulated == 1:
            yield from batches
            return
        while step := list(islice(batches, self._batches_of_step(due, now))):
            due += len(step)
            totals = {
                f"{name}_of_step": torch.stack([(batch[name] != IGNORED_LABEL).sum() for batch in step]).sum()
                for name in ("labels", "next_sentence_label")
                if name in step[0]
            }
            for batch in step:
                yield batch | totals

    @staticmethod
    def _batches_of_step(due: int, now: Position) -> int:
        """How many batches from the one that is due on belong to its optimizer step."""
        rest = now.accumulated - due % now.accumulated
        return int(min(rest, now.last - due)) if due < now.last else rest

    def state_dict(self) -> dict[str, Any]:
        """Empty, since the loop knows the position. Lightning resumes within an epoch only if this method exists."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore; see `state_dict`."""
