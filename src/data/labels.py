"""The classes of a data set: their names, and each row's class as a number."""

import re
import unicodedata
from collections.abc import Collection, Sequence

import datasets
import numpy as np

from src.system.errors import UserError

IGNORED_LABEL = -100
"""The label of a row or token that counts in no loss and no metric (torch's `ignore_index`)."""
_INTEGER = re.compile(r"-?(0|[1-9]\d*)")
_FEW_CLASSES = 20


def label_names(rows: datasets.Dataset, column: str) -> list[str]:
    """The names of the classes, in the order of their numbers, from a whole split.

    A `ClassLabel` has names. Integers and strings are sorted (strings that are integers by number), and are their own
    names.

    Raises:
        UserError: a label is missing, or is neither an integer nor a string; or nearly all rows have labels of their
            own, so that this is not the column of the labels.
    """
    feature = rows.features[column]
    if isinstance(feature, datasets.ClassLabel):
        return list(feature.names)
    refused = UserError(
        f"the label column {column!r} holds numbers such as 0.5, or no single values: labels must be integers (1, not "
        "1.0) or strings"
    )
    if not isinstance(feature, datasets.Value):
        raise refused
    distinct = rows.unique(column)
    if any(value is None or (isinstance(value, str) and not value.strip()) for value in distinct):
        raise UserError(f"the label column {column!r} has no value in some rows")
    names = [str(value) for value in distinct]
    if len(names) > max(_FEW_CLASSES, len(rows) / 2):
        raise UserError(
            f"the label column {column!r} has {len(names):,} kinds of label in {len(rows):,} rows: "
            "is it the right column (data.label_column)?"
        )
    if all(map(_INTEGER.fullmatch, names)):
        return in_order(names)
    if not all(isinstance(value, str | bool | int) for value in distinct) or all(map(_is_number, names)):
        raise refused
    return in_order(names)


def in_order(names: Collection[str]) -> list[str]:
    """Names that are integers by number, others by letter."""
    return sorted(names, key=int) if all(map(_INTEGER.fullmatch, names)) else sorted(names)


def near_equal(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of names that differ only in capitals, spaces, width or leading zeros: likely one class spelt twice."""
    first: dict[str, str] = {}
    pairs = []
    for name in names:
        plain = " ".join(unicodedata.normalize("NFKC", name).casefold().split()).lstrip("0")
        if (other := first.setdefault(plain, name)) != name:
            pairs.append((other, name))
    return pairs


def label_ids(rows: datasets.Dataset, column: str, names: Sequence[str], use: str) -> np.ndarray:
    """The class of each row, int64 of shape (rows,). Classes are matched by name, also those of a `ClassLabel`.

    Args:
        names: of the classes.
        use: of the rows ("training"), for the message.

    Raises:
        UserError: a row has a label that the training split does not have, or none (-1 on the Hub).
    """
    ids = known_label_ids(rows, column, names)
    wrong = np.flatnonzero(ids < 0)
    if len(wrong):
        value, known = rows[int(wrong[0])][column], _names_of(rows, column)
        raise UserError(
            f"{len(wrong)} rows for {use} have a label that is no class of the training split "
            f"({', '.join(names)[:200]}), the first of them {known.get(value, value)!r}"
        )
    return ids


def known_label_ids(rows: datasets.Dataset, column: str, names: Sequence[str]) -> np.ndarray:
    """As `label_ids`, with -1 for a label that is none of the classes."""
    known = _names_of(rows, column)
    number = {name: i for i, name in enumerate(names)}
    return np.asarray([number.get(known.get(value, str(value)), -1) for value in rows[column][:]], dtype=np.int64)


def _names_of(rows: datasets.Dataset, column: str) -> dict[int, str]:
    """The names of a `ClassLabel` by number; of another column none."""
    feature = rows.features[column]
    return dict(enumerate(feature.names)) if isinstance(feature, datasets.ClassLabel) else {}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
