"""The classes of a data set: their names, and each row's number among them."""

from collections.abc import Sequence

import datasets
import numpy as np

from src.system.errors import UserError

IGNORED_LABEL = -100
"""The label of a row or a token that counts in no loss and no metric (torch's `ignore_index`)."""


def label_names(column: datasets.Dataset, name: str) -> list[str]:
    """The names of the classes, in the order of their numbers, from a whole split.

    A `ClassLabel` brings its own names; integers and strings are sorted and named by themselves.

    Raises:
        UserError: a label is missing, or neither an integer nor a string.
    """
    feature = column.features[name]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    refused = UserError(
        f"the label column {name!r} holds {feature}, but labels must be integers (1, not 1.0) or strings"
    )
    if not isinstance(feature, datasets.Value):
        raise refused
    distinct = column.unique(name)
    if any(value is None for value in distinct):
        raise UserError(f"the label column {name!r} has no value in some rows")
    if all(isinstance(value, str) for value in distinct):
        return sorted(distinct)
    if all(isinstance(value, int) for value in distinct):  # bool is an int too: False, True
        return [str(value) for value in sorted(distinct)]
    raise refused


def label_ids(rows: datasets.Dataset, name: str, names: Sequence[str], split: str) -> np.ndarray:
    """Each row's class, int64 of shape (rows,).

    Raises:
        UserError: a row has a label that the training split does not have, or (−1 on the Hub) none.
    """
    values = rows[name][:]
    if isinstance(rows.features[name], datasets.ClassLabel):
        ids = np.asarray(values, dtype=np.int64)
        wrong = np.flatnonzero((ids < 0) | (ids >= len(names)))
    else:
        number = {label: i for i, label in enumerate(names)}
        ids = np.asarray([number.get(str(value), -1) for value in values], dtype=np.int64)
        wrong = np.flatnonzero(ids == -1)
    if len(wrong):
        raise UserError(
            f"{len(wrong)} rows for {split} have a label that is no class of the training split "
            f"({', '.join(names)}), the first of them {values[int(wrong[0])]!r}"
        )
    return ids
