"""The rows of a data set's split: those that `data.where` keeps, and their texts, checked."""

from collections.abc import Iterator, Mapping, Sequence

import datasets
import numpy as np

from src.system.errors import UserError

ROWS_AT_ONCE = 1000
"""Rows that are read into memory at a time, as `datasets.map` does."""


def select_rows(
    split: datasets.Dataset, name: str, dataset: str, where: Mapping[str, bool | int | str] | None, columns: list[str]
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
            raise no_such_column(dataset, column, split.column_names)
    kept = np.ones(len(split), dtype=bool)
    for column, value in where.items():
        if not isinstance(split.features[column], datasets.Value | datasets.ClassLabel):
            raise UserError(f"data.where: the column {column!r} holds no single values, so none can be compared")
        values = split[column][:]
        holds_text = isinstance(values[0], str) if values else False
        if isinstance(value, bool) and holds_text:
            raise UserError(
                f"data.where: {column} is {str(value).lower()}, which YAML also reads for yes, no, on and off, but the "
                f'column holds text: put the value between quotes, as in {{{column}: "no"}}'
            )
        wanted_value = str(value) if holds_text else value  # csv has no numbers
        kept &= np.asarray(values, dtype=object) == wanted_value
        if not kept.any():
            wanted = " and ".join(f"{column} = {value!r}" for column, value in where.items())
            raise UserError(f"no row of the split {name!r} has {wanted} (data.where)")
    return (split.select(np.flatnonzero(kept)) if where else split).select_columns(columns)


def no_such_column(dataset: str, column: str, there: Sequence[str]) -> UserError:
    """The error for a column that a data set lacks."""
    return UserError(
        f"the data set {dataset!r} has no column {column!r} (its columns: {', '.join(there)[:200]}): name another by "
        "data.text_column or data.label_column, or change data.where (null keeps all rows)"
    )


def texts_of(rows: datasets.Dataset, column: str) -> Iterator[str]:
    """The texts of a column, read some at a time."""
    return (text for batch in rows.select_columns([column]).iter(ROWS_AT_ONCE) for text in batch[column])


def empty_texts(rows: datasets.Dataset, column: str, split: str) -> np.ndarray:
    """Whether each text is missing or blank, bool of shape (rows,).

    Raises:
        UserError: one is no string; `split` is for the message.
    """
    empty = np.zeros(len(rows), dtype=bool)
    for i, text in enumerate(texts_of(rows, column)):
        if text is not None and not isinstance(text, str):
            raise UserError(f"the column {column!r} of the split {split!r} holds no text but {type(text).__name__}")
        empty[i] = text is None or not text.strip()
    return empty


def check_texts(rows: datasets.Dataset, column: str, numbers: np.ndarray, split: str) -> None:
    """Refuses texts that are missing, blank or not strings.

    Args:
        numbers: of the rows in their split after `where`, for the message.
        split: its name, for the message.

    Raises:
        UserError: with the number of such rows, and the numbers of the first five.
    """
    bad = numbers[empty_texts(rows, column, split)].tolist()
    if bad:
        named = ", ".join(map(str, sorted(bad)[:5])) + (", …" if len(bad) > 5 else "")
        some = "1 row" if len(bad) == 1 else f"{len(bad)} rows"
        raise UserError(f"no text in the column {column!r} of {some} of the split {split!r}: {named}")
