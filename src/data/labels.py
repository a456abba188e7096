"""The classes of a data set: their names, and each row's class as a number."""

from collections.abc import Sequence

import datasets
import numpy as np

from src.system.errors import UserError

IGNORED_LABEL = -100
"""The label of a row or token that counts in no loss and no metric (torch's `ignore_index`)."""


def label_names(rows: datasets.Dataset, column: str) -> list[str]:
    """The names of the classes, in the order of their numbers, from a whole split.

    A `ClassLabel` has names. Integers and strings are sorted, and are their own names.

    Raises:
        UserError: a label is missing, or is neither an integer nor a string.
    """
    feature = rows.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    refused = UserError(
        f"the label column {column!r} holds {feature}, but labels must be integers (1, not 1.0) or strings"
    )
    if not isinstance(feature, datasets.Value):
        raise refused
    distinct = rows.unique(column)
    if any(value is None for value in distinct):
        raise UserError(f"the label column {column!r} has no value in some rows")
    if all(isinstance(value, str) for value in distinct):
        return sorted(distinct)
    if all(isinstance(value, int) for value in distinct):  # bool is an int too: False, True
        return [str(value) for value in sorted(distinct)]
    raise refused


def label_ids(rows: datasets.Dataset, column: str, names: Sequence[str], use: str) -> np.ndarray:
    """The class of each row, int64 of shape (rows,).

    Args:
        names: of the classes.
        use: of the rows ("training"), for the message.

    Raises:
        UserError: a row has a label that the training split does not have, or none (-1 on the Hub).
    """
    values = rows[column][:]
    if isinstance(rows.features[column], datasets.ClassLabel):
        ids = np.asarray(values, dtype=np.int64)
    else:
        number = {name: i for i, name in enumerate(names)}
        ids = np.asarray([number.get(str(value), -1) for value in values], dtype=np.int64)
    wrong = np.flatnonzero((ids < 0) | (ids >= len(names)))
    if len(wrong):
        raise UserError(
            f"{len(wrong)} rows for {use} have a label that is no class of the training split "
            f"({', '.join(names)}), the first of them {values[int(wrong[0])]!r}"
        )
    return ids
