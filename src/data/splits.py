"""Which rows train, validate and test: a rule on row numbers alone."""

from collections.abc import Mapping
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
    rest = shuffled(split_sizes["train"], seed)
    subsets = {}
    for name, size in (("test", test_size), ("val", val_size)):
        split = SPLITS[name]
        if split in split_sizes:
            there = split_sizes[split]
            if size is not None and size > there:
                raise UserError(f"data.{name}_size is {size}, but the {split} split has {there} rows")
            subsets[name] = Subset(split, shuffled(there, seed)[:size])
            continue
        if size is None:
            raise UserError(f"data.{name}_size must be a number of rows: the data set has no split {split!r}")
        if size > len(rest):
            raise UserError(f"data.{name}_size is {size}, but only {len(rest)} rows are left for it")
        rest, last = rest[: len(rest) - size], rest[len(rest) - size :]
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
    return {"train": Subset("train", rest[:train_size]), **subsets}
