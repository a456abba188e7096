"""Which rows train, validate and test: a rule on row numbers alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from src.system.errors import UserError

USES = {"train": "training", "val": "validation", "test": "testing"}
"""What the rows of each subset are for, in words."""


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

    Training takes the first `train_size` rows of the shuffled training split, validation the last `val_size`. Testing
    takes the first `test_size` rows of the shuffled test split. Without a test split, testing takes the last
    `test_size` rows of the shuffled training split, and validation those before them. So changing `train_size` moves
    no validation or test row.

    Args:
        split_sizes: rows of the splits "train" and, where there is one, "test".
        train_size: None takes all rows that remain.
        val_size: a number of rows; None is refused, since "all" would be ambiguous.
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
    if val_size is None:
        raise UserError("data.val_size must be a number of rows: they are taken from the end of the training split")

    n_train_split = split_sizes["train"]
    order = shuffled(n_train_split, seed)
    if "test" in split_sizes:
        n_test_split = split_sizes["test"]
        n_test = n_test_split if test_size is None else test_size
        if n_test > n_test_split:
            raise UserError(f"data.test_size is {n_test}, but the test split has {n_test_split} rows")
        test = Subset("test", shuffled(n_test_split, seed)[:n_test])
        rest = order
    else:
        if test_size is None:
            raise UserError("data.test_size must be a number of rows: the data set has no split 'test'")
        if test_size > n_train_split:
            raise UserError(f"data.test_size is {test_size}, but the data set has {n_train_split} rows")
        test = Subset("train", order[n_train_split - test_size :])
        rest = order[: n_train_split - test_size]

    if val_size > len(rest):
        raise UserError(f"data.val_size is {val_size}, but only {len(rest)} rows are left for it")
    remaining = len(rest) - val_size
    if train_size is None:
        train_size = remaining
    if train_size > remaining or train_size == 0:
        raise UserError(
            f"data.train_size is {train_size}, but only {remaining} of the training split's {n_train_split} rows "
            f"are left beside {len(order) - remaining} for validation and testing; lower data.train_size or "
            "data.val_size (null takes all that remain)"
        )
    return {"train": Subset("train", rest[:train_size]), "val": Subset("train", rest[remaining:]), "test": test}
