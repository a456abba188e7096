"""Rows to batches: every row once, for every number of ranks, and little padding."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.data.batches import (
    FILLER_ROW,
    EvalBatches,
    Position,
    TrainBatches,
    TrainLoader,
    plan_epoch,
    share_of,
)
from src.data.examples import Collator, WindowExamples
from tests.data.conftest import rows_of_one_window


def _realistic_lengths(n: int, cut_at: int = 512, seed: int = 0) -> np.ndarray:
    """Like those of IMDb's reviews in WordPiece tokens: median 233, mean 314, 15% over 512."""
    lengths = np.random.default_rng(seed).lognormal(np.log(233), 0.77, size=n)
    return np.clip(lengths, 10, cut_at).astype(np.int64)


def _padding(lengths: np.ndarray, batches: list[list[int]]) -> float:
    """Computed tokens over real ones."""
    return sum(len(rows) * lengths[rows].max() for rows in batches) / sum(lengths[rows].sum() for rows in batches)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=300),
    batch_size=st.integers(1, 9),
    world_size=st.integers(1, 4),
    seed=st.integers(0, 99),
    epoch=st.integers(0, 3),
    grouped=st.booleans(),
)
def test_plan_covers_every_row_once_with_equal_steps_on_every_rank(
    lengths: list[int], batch_size: int, world_size: int, seed: int, epoch: int, grouped: bool
) -> None:
    of_ranks = []
    for rank in range(world_size):
        batches = TrainBatches(
            np.array(lengths),
            batch_size=batch_size,
            seed=seed,
            group_by_length=grouped,
            rank=rank,
            world_size=world_size,
        )
        batches.epoch = epoch
        of_ranks.append(list(batches))
        assert len(batches) == len(of_ranks[-1]), "Lightning plans the schedule by len()"
    assert len({len(batches) for batches in of_ranks}) == 1, "ranks that wait for each other need as many steps"
    dealt = [row for batches in of_ranks for batch in batches for row in batch if row != FILLER_ROW]
    assert sorted(dealt) == list(range(len(lengths)))
    for step in zip(*of_ranks, strict=True):
        sizes = [sum(row != FILLER_ROW for row in batch) for batch in step]
        assert max(sizes) <= batch_size
        assert max(sizes) - min(sizes) <= 1
        assert all(batch for batch in step), "a rank without a batch"
    if grouped:
        first = [row for batches in of_ranks for row in batches[0] if row != FILLER_ROW]
        assert max(lengths[row] for row in first) == max(lengths), "out of memory must show at once"


def test_order_differs_between_epochs_and_seeds_and_is_the_same_when_made_again() -> None:
    lengths = _realistic_lengths(100)
    orders = {
        (seed, epoch, grouped): np.concatenate(plan_epoch(lengths, 8, seed, epoch, grouped)).tolist()
        for seed in (1, 2)
        for epoch in (0, 1)
        for grouped in (False, True)
    }
    assert len({tuple(order) for order in orders.values()}) == len(orders)
    for (seed, epoch, grouped), order in orders.items():
        assert np.concatenate(plan_epoch(lengths, 8, seed, epoch, grouped)).tolist() == order


@pytest.mark.parametrize(("cut_at", "world_size"), [(512, 1), (256, 1), (512, 4)])
def test_grouping_saves_padding_and_stays_random(cut_at: int, world_size: int) -> None:
    lengths = _realistic_lengths(1000, cut_at)
    plan = {
        grouped: [
            share_of(step, rank, world_size)
            for step in plan_epoch(lengths, 8 * world_size, 42, 0, grouped)
            for rank in range(world_size)
        ]
        for grouped in (False, True)
    }
    assert _padding(lengths, plan[True]) <= 1.10
    assert _padding(lengths, plan[False]) > 1.3
    # sorted within chunks of 50 batches only: neither short nor long batches come first
    means = [lengths[rows].mean() for rows in plan[True]]
    half = len(means) // 2
    assert 0.8 < np.mean(means[:half]) / np.mean(means[half:]) < 1.25


@given(batch_size=st.integers(1, 9), seed=st.integers(0, 5))
def test_evaluation_covers_each_row_once(batch_size: int, seed: int) -> None:
    for n in range(1, 41):
        lengths = np.random.default_rng(seed).integers(1, 50, size=n)
        for world_size in range(1, 5):
            of_ranks = [list(EvalBatches(lengths, batch_size, rank, world_size)) for rank in range(world_size)]
            dealt = [row for batches in of_ranks for batch in batches for row in batch]
            assert sorted(row for row in dealt if row != FILLER_ROW) == list(range(n))
            # a rank without rows has one masked row, so that it takes part in the sum over the ranks
            assert dealt.count(FILLER_ROW) == max(0, world_size - n)
            assert all(batches for batches in of_ranks)
            assert max(map(len, of_ranks)) - min(map(len, of_ranks)) <= 1
            for batches in of_ranks:
                order = [lengths[row] for batch in batches for row in batch if row != FILLER_ROW]
                assert order == sorted(order, reverse=True), "the longest first"
                assert all(len(batch) <= batch_size for batch in batches)


def _loader(n: int, batch_size: int, position: Position, workers: int = 0) -> TrainLoader:
    sampler = TrainBatches(
        np.arange(1, n + 1), batch_size=batch_size, seed=3, group_by_length=False, rank=0, world_size=1
    )
    return TrainLoader(
        sampler,
        lambda: position,
        dataset=WindowExamples(rows_of_one_window(n)),
        collate_fn=Collator(0, "longest", 99),
        num_workers=workers,
    )


def _rows_of(loader: TrainLoader) -> list[list[int]]:
    return [batch["labels"].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_loader_begins_where_the_loop_stands(workers: int) -> None:
    epochs = [_rows_of(_loader(30, 4, Position(epoch, 0))) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    for epoch, start in [(0, 5), (1, 1), (2, 7)]:
        loader = _loader(30, 4, Position(epoch, start), workers)
        assert _rows_of(loader) == epochs[epoch][start:]
        assert len(loader) == 8, "the length is the whole epoch's, wherever it is begun"
    assert _rows_of(_loader(30, 4, Position(0, 8), workers)) == []


def test_position_is_read_when_the_first_batch_is_asked_for() -> None:
    """Lightning makes the iterator before the loop has moved to the new epoch (lightning #21938)."""
    position = [Position()]
    loader = _loader(30, 4, Position(0, 0))
    loader.position = lambda: position[0]
    batches = iter(loader)
    position[0] = Position(1, 2)
    assert [batch["labels"].tolist() for batch in islice(batches, 1)] == _rows_of(_loader(30, 4, Position(1, 2)))[:1]


def test_loader_draws_nothing_from_the_global_generator_if_it_has_its_own() -> None:
    loader = _loader(30, 4, Position(0, 0))
    loader.generator = torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    assert len(_rows_of(loader)) == 8
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("last", "start", "totals"),
    [
        (np.inf, 0, [12, 12, 12, 12, 12, 12, 6, 6]),  # 8 batches of 4, the last of 2: steps of 3, 3 and 2 batches
        (5, 0, [12, 12, 12, 8, 8]),
        (np.inf, 3, [12, 12, 12, 6, 6]),
        (np.inf, 4, [8, 8, 6, 6]),
    ],
)
def test_batches_tell_the_rows_of_their_optimizer_step(last: float, start: int, totals: list[int]) -> None:
    loader = _loader(30, 4, Position(0, start, accumulated=3, last=last))
    batches = list(loader)
    assert [int(batch["labels_of_step"]) for batch in batches][: len(totals)] == totals
    assert [batch["labels"].tolist() for batch in batches] == _rows_of(_loader(30, 4, Position(0, start)))


@pytest.mark.parametrize(("limit", "n"), [(2, 2), (0.5, 4), (20, 8)])
def test_limited_evaluation_is_a_fair_sample(limit: int | float, n: int) -> None:
    """The first rows, which are in random order, and not the longest. The others come after them."""
    lengths = np.arange(1, 33)
    batches = list(EvalBatches(lengths, 4, 0, 1, limit))
    assert sorted(row for batch in batches[:n] for row in batch) == list(range(4 * n))
    assert sorted(row for batch in batches for row in batch) == list(range(32))
    assert [row for batch in batches[:n] for row in batch] == list(reversed(range(4 * n))), "the longest of them first"
