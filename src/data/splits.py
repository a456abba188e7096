"""Which rows train, validate and test: a rule on row numbers alone."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from src.system.errors import UserError

USES = {"train": "training", "val": "validation", "test": "testing"}
"""What the rows of each subset are for, in words."""
SPLITS = {"val": "validation", "test": "test"}
"""The split that a subset is from, where there is one."""


@dataclass(frozen=True)
class Subset:
    """Row numbers in the order in which they are used, and the split of the data set that they count in."""

    split: str
    indices: np.ndarray


def shuffled(n_rows: int, seed: int) -> np.ndarray:
    """The order into which `datasets.Dataset.shuffle(seed)` brings `n_rows` rows (the tests compare the two)."""
    return np.random.default_rng(seed).permutation(n_rows)


def choose_rows(
    split_sizes: Mapping[str, int],
    train_size: int | None,
    val_size: int | None,
    test_size: int | None,
    seed: int,
    classes: Callable[[str], np.ndarray] | None = None,
) -> dict[str, Subset]:
    """The rows of "train", "val" and "test".

    Training takes the first `train_size` rows of the shuffled training split. Validation and testing take the first
    `val_size` and `test_size` rows of their own shuffled splits. Without a split of its own, testing takes the last
    `test_size` rows of the shuffled training split, and validation the last `val_size` before them. So changing
    `train_size` moves no validation or test row.

    Args:
        split_sizes: rows of the splits "train" and, where there are such, "validation" and "test".
        train_size: None takes all rows that remain.
        val_size: None takes the whole validation split, and is refused where there is none.
        test_size: None takes the whole test split, and is refused where there is none.
        seed: of the shuffles.
        classes: gives the class of each row of a split, int64 of shape (rows,). With it, a part of a split has the
            proportions of the classes among the rows that it is taken from: the first (or last) rows of each class in
            the shuffle, as many as the largest remainder gives it.

    Raises:
        UserError: there are too few rows, or a size is missing or too small.
    """
    least = {
        "train_size": (train_size, 1),
        "val_size": (val_size, 0),
        "test_size": (test_size, 0),
        "subset_seed": (seed, 0),
    }
    for name, (number, minimum) in least.items():
        if number is not None and number < minimum:
            raise UserError(f"data.{name} is {number}; it must be {minimum} or more")
    of_train = classes("train") if classes else None
    rest = shuffled(split_sizes["train"], seed)
    subsets = {}
    for name, size in (("test", test_size), ("val", val_size)):
        split = SPLITS[name]
        if split in split_sizes:
            there = split_sizes[split]
            if size is not None and size > there:
                raise UserError(f"data.{name}_size is {size}, but the {split} split has {there} rows")
            order, part = shuffled(there, seed), size not in (None, 0, there)
            subsets[name] = Subset(split, _divide(order, size, classes(split) if classes and part else None)[0])
            continue
        if size is None:
            raise UserError(f"data.{name}_size must be a number of rows: the data set has no split {split!r}")
        if size > len(rest):
            raise UserError(f"data.{name}_size is {size}, but only {len(rest)} rows are left for it")
        last, rest = (rows[::-1] for rows in _divide(rest[::-1], size, of_train))
        subsets[name] = Subset("train", last)
    if train_size is None:
        train_size = len(rest)
    if train_size > len(rest) or train_size == 0:
        taken = split_sizes["train"] - len(rest)
        raise UserError(
            f"data.train_size is {train_size}, but only {len(rest)} of the training split's {split_sizes['train']} "
            f"rows are left beside {taken} for validation and testing; lower data.train_size or data.val_size (null "
            "takes all that remain)"
        )
    return {"train": Subset("train", _divide(rest, train_size, of_train)[0]), **subsets}


def _divide(order: np.ndarray, size: int | None, classes: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The first `size` rows of an order (None: all), and the others, both in that order.

    With `classes`, they are the first of each class: its share of `size`, rounded down, and one more for the classes
    with the largest remainders (of equal ones, the class with the lower number).
    """
    if classes is None or size is None:
        return order[:size], order[len(order) if size is None else size :]
    of_row = classes[order]
    counts = np.bincount(of_row)
    quota, remainder = np.divmod(size * counts, max(len(order), 1))
    quota[np.argsort(-remainder, kind="stable")[: size - quota.sum()]] += 1
    by_class = np.argsort(of_row, kind="stable")
    place = np.empty_like(order)  # of a row among those of its class
    place[by_class] = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    taken = place < quota[of_row]
    return order[taken], order[~taken]
