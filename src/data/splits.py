"""Which rows train, which validate, which test: a rule on row numbers alone."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from src.system.errors import UserError


@dataclass(frozen=True)
class Rows:
    """Row numbers of one subset, in the order in which they are used, and the source's split they belong to."""

    split: str
    indices: np.ndarray


def shuffled(n_rows: int, seed: int) -> np.ndarray:
    """The order in which `datasets.Dataset.shuffle(seed)` puts `n_rows` rows (checked against it in the tests)."""
    return np.random.default_rng(seed).permutation(n_rows)


def choose_rows(
    split_sizes: Mapping[str, int],
    train_size: int | None,
    val_size: int | None,
    test_size: int | None,
    seed: int,
) -> dict[str, Rows]:
    """The rows of "train", "val" and "test".

    Training takes the first `train_size` rows of the shuffled training split, validation the last `val_size` of
    them. Testing takes the first `test_size` rows of the shuffled test split; where the source has none, the last
    `test_size` rows of the training split's shuffle, and validation those before them. So a change of `train_size`
    moves no validation or test row. None means all: of the test split, or of what remains to training.

    Raises:
        UserError: more rows are asked for than there are, or no number is given where "all" would be ambiguous.
    """
    if "train" not in split_sizes:
        raise UserError(f"the data set has no split 'train' (its splits: {', '.join(split_sizes) or 'none'})")
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
        test = Rows("test", shuffled(n_test_split, seed)[:n_test])
        rest = order
    else:
        if test_size is None:
            raise UserError("data.test_size must be a number of rows: the data set has no split 'test'")
        if test_size > n_train_split:
            raise UserError(f"data.test_size is {test_size}, but the data set has {n_train_split} rows")
        test = Rows("train", order[n_train_split - test_size :])
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
    return {
        "train": Rows("train", rest[:train_size]),
        "val": Rows("train", rest[remaining:]),
        "test": test,
    }
