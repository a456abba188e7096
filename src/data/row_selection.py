"""The rows of a data set's split: those that `data.where` keeps, and their texts, checked."""

from collections.abc import Iterator, Mapping

import datasets
import numpy as np

from src.system.errors import UserError

ROWS_AT_ONCE = 1000
"""Rows that are read into memory at a time, as `datasets.map` does."""


def select_rows(
    split: datasets.Dataset, name: str, dataset: str, where: Mapping[str, int | str] | None, columns: list[str]
) -> datasets.Dataset:
    """The rows of a split that `where` keeps, with the given columns only.

    Args:
        name, dataset: of the split and its data set, for messages.

    Raises:
        UserError: there is no such column, or no such row.
    """
    where = where or {}
    for column in (*columns, *where):
        if column not in split.column_names:
            there = ", ".join(split.column_names)
            asked = "; data.where names it: null keeps all rows" if column in where else ""
            raise UserError(f"the data set {dataset!r} has no column {column!r} (its columns: {there}){asked}")
    kept = np.ones(len(split), dtype=bool)
    for column, value in where.items():
        kept &= np.asarray(split[column][:], dtype=object) == value
        if not kept.any():
            wanted = " and ".join(f"{column} = {value!r}" for column, value in where.items())
            raise UserError(f"no row of the split {name!r} has {wanted} (data.where)")
    return (split.select(np.flatnonzero(kept)) if where else split).select_columns(columns)


def texts_of(rows: datasets.Dataset, column: str) -> Iterator[str]:
    """The texts of a column, read some at a time."""
    return (text for batch in rows.select_columns([column]).iter(ROWS_AT_ONCE) for text in batch[column])


def check_texts(rows: datasets.Dataset, column: str, numbers: np.ndarray, split: str) -> None:
    """Refuses texts that are missing, blank or not strings.

    Args:
        numbers: of the rows in their split after `where`, for the message.
        split: its name, for the message.

    Raises:
        UserError: with the number of such rows, and the numbers of the first five.
    """
    bad = []
    for number, text in zip(numbers.tolist(), texts_of(rows, column), strict=True):
        if text is not None and not isinstance(text, str):
            raise UserError(f"the column {column!r} of the split {split!r} holds no text but {type(text).__name__}")
        if text is None or not text.strip():
            bad.append(number)
    if bad:
        named = ", ".join(map(str, sorted(bad)[:5])) + (", …" if len(bad) > 5 else "")
        some = "1 row" if len(bad) == 1 else f"{len(bad)} rows"
        raise UserError(f"no text in the column {column!r} of {some} of the split {split!r}: {named}")
