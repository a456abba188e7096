"""Rows to batches: every row once, for every number of ranks, and little padding."""

from itertools import islice

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.data.batches import (
    FILLER_ROW,
    Collator,
    EvalBatches,
    PreparedReviews,
    PreparedWindows,
    TrainBatches,
    TrainLoader,
    plan_epoch,
    share_of,
)
from src.data.labels import IGNORED_LABEL


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


def _rows(n: int) -> datasets.Dataset:
    """Prepared rows in one window each: row i is i + 1 tokens long."""
    lengths = range(1, n + 1)
    ids = [[7] * length for length in lengths]
    return datasets.Dataset.from_dict(
        {"input_ids": ids, "windows": [[length] for length in lengths], "label": list(range(n))}
    )


def _rows_in_windows() -> datasets.Dataset:
    """Prepared rows in windows of 3 and 2 tokens, of 1, and of 2, 2 and 1."""
    windows = [[3, 2], [1], [2, 2, 1]]
    ids = [list(range(10 * i, 10 * i + sum(lengths))) for i, lengths in enumerate(windows)]
    return datasets.Dataset.from_dict({"input_ids": ids, "windows": windows, "label": [1, 0, 2]})


def _loader(n: int, batch_size: int, position: tuple[int, int], workers: int = 0) -> TrainLoader:
    sampler = TrainBatches(
        np.arange(1, n + 1), batch_size=batch_size, seed=3, group_by_length=False, rank=0, world_size=1
    )
    return TrainLoader(
        PreparedWindows(_rows(n)),
        batch_sampler=sampler,
        collate_fn=Collator(0, "longest", 99),
        position=lambda: position,
        num_workers=workers,
    )


def _rows_of(loader: TrainLoader) -> list[list[int]]:
    return [batch["labels"].tolist() for batch in loader]


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_loader_begins_where_the_loop_stands(workers: int) -> None:
    epochs = [_rows_of(_loader(30, 4, (epoch, 0))) for epoch in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    for epoch, start in [(0, 5), (1, 1), (2, 7)]:
        loader = _loader(30, 4, (epoch, start), workers)
        assert _rows_of(loader) == epochs[epoch][start:]
        assert len(loader) == 8, "the length is the whole epoch's, wherever it is begun"
    assert _rows_of(_loader(30, 4, (0, 8), workers)) == []


def test_position_is_read_when_the_first_batch_is_asked_for() -> None:
    """Lightning makes the iterator before the loop has moved to the new epoch (lightning #21938)."""
    position = [(0, 0)]
    loader = _loader(30, 4, (0, 0))
    loader.__dict__["position"] = lambda: position[0]
    batches = iter(loader)
    position[0] = (1, 2)
    assert [batch["labels"].tolist() for batch in islice(batches, 1)] == _rows_of(_loader(30, 4, (1, 2)))[:1]


def test_loader_draws_nothing_from_the_global_generator_if_it_has_its_own() -> None:
    loader = _loader(30, 4, (0, 0))
    loader.generator = torch.Generator().manual_seed(0)
    before = torch.get_rng_state()
    assert len(_rows_of(loader)) == 8
    assert torch.equal(torch.get_rng_state(), before)


def test_padding_to_the_longest_and_to_max_length() -> None:
    rows = PreparedWindows(_rows(10)).__getitems__([4, 1, 2])
    batch = Collator(9, "longest", 20)(rows)
    assert batch["input_ids"].tolist() == [[7, 7, 7, 7, 7], [7, 7, 9, 9, 9], [7, 7, 7, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [4, 1, 2]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    wide = Collator(9, "max_length", 20)(rows)
    assert wide["input_ids"].shape == wide["attention_mask"].shape == (3, 20)
    assert torch.equal(wide["input_ids"][:, :5], batch["input_ids"])
    assert wide["attention_mask"].sum() == batch["attention_mask"].sum()


def test_training_reads_each_window_by_itself() -> None:
    windows = PreparedWindows(_rows_in_windows())
    assert windows.lengths.tolist() == [3, 2, 1, 2, 2, 1]
    assert [(item["windows"], item["label"]) for item in (windows[i] for i in range(len(windows)))] == [
        ([[0, 1, 2]], 1),
        ([[3, 4]], 1),
        ([[10]], 0),
        ([[20, 21]], 2),
        ([[22, 23]], 2),
        ([[24]], 2),
    ]
    assert windows.__getitems__([4, 0]) == [windows[4], windows[0]]


def test_evaluation_reads_all_windows_of_a_review_together() -> None:
    batch = Collator(9, "longest", 20, by_review=True)(PreparedReviews(_rows_in_windows()).__getitems__([2, 1, 0]))
    ids = [[20, 21, 9], [22, 23, 9], [24, 9, 9], [10, 9, 9], [0, 1, 2], [3, 4, 9]]
    assert batch["input_ids"].tolist() == ids
    assert batch["attention_mask"].tolist() == [[int(id_ != 9) for id_ in row] for row in ids]
    assert batch["labels"].tolist() == [2, 0, 1]
    assert batch["review"].tolist() == [0, 0, 0, 1, 2, 2]


def test_rows_that_were_prepared_without_windows_have_one_each() -> None:
    rows = _rows(10).add_column("length", list(range(1, 11)))
    older, indices = rows.remove_columns("windows"), [3, 9, 0]
    assert PreparedWindows(older).lengths.tolist() == PreparedWindows(rows).lengths.tolist() == list(range(1, 11))
    for dataset in (PreparedReviews, PreparedWindows):
        assert dataset(older).__getitems__(indices) == dataset(rows).__getitems__(indices)


@pytest.mark.parametrize("by_review", [False, True])
@pytest.mark.parametrize("rows", [PreparedReviews, PreparedWindows])
def test_empty_share_is_one_masked_row(rows: type[PreparedReviews] | type[PreparedWindows], by_review: bool) -> None:
    batch = Collator(0, "longest", 20, by_review)(rows(_rows_in_windows()).__getitems__([FILLER_ROW]))
    assert {len(values) for values in batch.values()} == {1}
    assert batch["labels"].tolist() == [IGNORED_LABEL]
    assert batch["attention_mask"].sum() == 1, "attention over no token at all is not a number"
