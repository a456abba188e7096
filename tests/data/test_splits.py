"""The rule of rows: which train, which validate, which test."""

from itertools import pairwise

import datasets
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from src.data.splits import choose_rows, shuffled
from src.system.errors import UserError


@pytest.mark.parametrize("seed", [0, 42, 2**31])
@pytest.mark.parametrize("size", [1, 7, 1000, 25_000])
def test_order_is_that_of_datasets(size: int, seed: int) -> None:
    ids = datasets.Dataset.from_dict({"id": range(25_000)})
    expected = ids.shuffle(seed=seed).select(range(size))["id"][:]
    assert shuffled(25_000, seed)[:size].tolist() == expected
    rows = choose_rows({"train": 25_000}, size, 0, 0, seed)
    assert rows["train"].indices.tolist() == expected


def test_rows_of_the_seed_experiment_on_synthetic_ids() -> None:
    splits = {name: datasets.Dataset.from_dict({"id": range(25_000)}) for name in ("train", "test")}
    rows = choose_rows({name: len(split) for name, split in splits.items()}, 1000, 500, 500, 42)
    train, test = (splits[name].shuffle(seed=42) for name in ("train", "test"))
    assert rows["train"].indices.tolist() == train.select(range(1000))["id"][:]
    assert rows["val"].indices.tolist() == train.select(range(24_500, 25_000))["id"][:]
    assert rows["test"].indices.tolist() == test.select(range(500))["id"][:]
    assert [rows[name].split for name in ("train", "val", "test")] == ["train", "train", "test"]


@given(
    n_train=st.integers(1, 200),
    n_test=st.none() | st.integers(0, 200),
    train_size=st.none() | st.integers(1, 200),
    val_size=st.integers(0, 200),
    test_size=st.none() | st.integers(0, 200),
    seed=st.integers(0, 2**32),
)
def test_rule_of_rows(
    n_train: int, n_test: int | None, train_size: int | None, val_size: int, test_size: int | None, seed: int
) -> None:
    """Either the rows are the ones of the rule, or there are too few and it is an error."""
    sizes = {"train": n_train} | ({} if n_test is None else {"test": n_test})
    taken = val_size + (0 if n_test is not None else test_size or 0)
    possible = (
        taken + (train_size or 1) <= n_train
        and (test_size is not None or n_test is not None)
        and (n_test is None or test_size is None or test_size <= n_test)
    )
    if not possible:
        with pytest.raises(UserError):
            choose_rows(sizes, train_size, val_size, test_size, seed)
        return
    rows = choose_rows(sizes, train_size, val_size, test_size, seed)
    order = np.random.default_rng(seed).permutation(n_train).tolist()
    assert rows["train"].indices.tolist() == order[: n_train - taken if train_size is None else train_size]
    assert rows["val"].indices.tolist() == order[n_train - taken : n_train - taken + val_size]
    if n_test is None:
        assert rows["test"].split == "train"
        assert rows["test"].indices.tolist() == order[n_train - (test_size or 0) :]
    else:
        assert rows["test"].split == "test"
        assert rows["test"].indices.tolist() == np.random.default_rng(seed).permutation(n_test).tolist()[:test_size]
    of_train = np.concatenate([subset.indices for subset in rows.values() if subset.split == "train"])
    assert len(set(of_train.tolist())) == len(of_train), "a row has two uses"


@given(
    n_train=st.integers(30, 200),
    n_test=st.none() | st.integers(10, 50),
    sizes=st.lists(st.integers(1, 10) | st.none(), min_size=2, max_size=4),
)
def test_train_size_moves_no_other_row(n_train: int, n_test: int | None, sizes: list[int | None]) -> None:
    assume(len(set(sizes)) > 1)
    splits = {"train": n_train} | ({} if n_test is None else {"test": n_test})
    chosen = [choose_rows(splits, size, 10, 10, 42) for size in sizes]
    for before, after in pairwise(chosen):
        for name in ("val", "test"):
            assert before[name].split == after[name].split
            assert before[name].indices.tolist() == after[name].indices.tolist()


@st.composite
def _classes(draw: st.DrawFn) -> np.ndarray:
    return np.asarray(draw(st.lists(st.integers(0, 4), min_size=20, max_size=150)))


@given(classes=_classes(), parts=st.tuples(*[st.floats(0, 0.3)] * 3), seed=st.integers(0, 99), own_test=st.booleans())
def test_stratified_parts_have_the_proportions_of_the_rows_they_are_taken_from(
    classes: np.ndarray, parts: tuple[float, float, float], seed: int, own_test: bool
) -> None:
    n = len(classes)
    train, val, test = (int(share * n) for share in parts)
    splits = {"train": n} | ({"test": n} if own_test else {})
    of_split = {"train": classes, "test": classes[::-1].copy()}
    rows = choose_rows(splits, train + 1, val, test, seed, of_split.__getitem__)
    again = choose_rows(splits, train + 1, val, test, seed, of_split.__getitem__)
    assert all(np.array_equal(rows[name].indices, again[name].indices) for name in rows)
    left = {"train": list(range(n)), "test": list(range(n))}
    for name, size in (("test", test), ("val", val), ("train", train + 1)):
        split, taken = rows[name].split, rows[name].indices.tolist()
        assert len(taken) == len(set(taken)) == size
        whole = np.bincount(of_split[split][left[split]], minlength=5)
        share = np.bincount(of_split[split][taken], minlength=5)
        assert (np.abs(share - size * whole / whole.sum()) < 1).all(), "a class is off by a row or more"
        # the largest remainders are rounded up
        remainder = size * whole % whole.sum()
        up = share > size * whole // whole.sum()
        assert not (up.any() and (~up).any()) or remainder[up].min() >= remainder[~up].max()
        # of each class, those that come first in the shuffle, or last
        order = [row for row in shuffled(n, seed).tolist() if row in left[split]]
        for label in range(5):
            of_class = [row for row in order if of_split[split][row] == label]
            k = int(share[label])
            first = of_class[:k] if name == "train" or split == "test" else of_class[len(of_class) - k :]
            assert [row for row in taken if of_split[split][row] == label] == first
        assert taken == [row for row in order if row in set(taken)], "the shuffle's order"
        left[split] = [row for row in left[split] if row not in set(taken)]


def test_a_part_in_the_order_of_classes_is_that_without_them() -> None:
    """Rows of one class are divided as rows without classes are."""
    one = lambda _: np.zeros(100, dtype=np.int64)  # noqa: E731
    plain, stratified = (choose_rows({"train": 100}, 30, 20, 10, 7, classes) for classes in (None, one))
    assert all(np.array_equal(plain[name].indices, stratified[name].indices) for name in plain)


def test_training_on_more_rows_adds_to_those_before() -> None:
    few, many = (choose_rows({"train": 100}, size, 10, 10, 42)["train"].indices.tolist() for size in (20, 60))
    assert many[:20] == few


@pytest.mark.parametrize(
    ("splits", "sizes", "words"),
    [
        ({"train": 100}, (81, 10, 10), "data.train_size is 81, but only 80"),
        ({"train": 100, "test": 5}, (10, 10, 6), "data.test_size is 6, but the test split has 5 rows"),
        ({"train": 100}, (10, 10, 101), "data.test_size is 101, but only 100 rows are left"),
        ({"train": 100}, (10, 60, 50), "data.val_size is 60, but only 50 rows are left"),
        ({"train": 100}, (None, 50, 50), "data.train_size is 0, but only 0"),
        ({"train": 100}, (0, 10, 10), "data.train_size is 0; it must be 1 or more"),
        ({"train": 100}, (-1, 10, 10), "data.train_size is -1; it must be 1 or more"),
        ({"train": 100}, (10, -1, 10), "data.val_size is -1; it must be 0 or more"),
        ({"train": 100}, (10, 10, -5), "data.test_size is -5; it must be 0 or more"),
        ({"train": 100}, (10, None, 10), "data.val_size must be a number"),
        ({"train": 100}, (10, 10, None), "data.test_size must be a number"),
    ],
)
def test_too_few_rows_are_named(
    splits: dict[str, int], sizes: tuple[int | None, int | None, int | None], words: str
) -> None:
    with pytest.raises(UserError) as refused:
        choose_rows(splits, *sizes, seed=42)
    assert words in str(refused.value)
