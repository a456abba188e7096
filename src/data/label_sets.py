"""The labels of texts that may have several, or none: from columns of 0 and 1, lists, or texts with a separator."""

from collections.abc import Iterator, Sequence

import datasets

from src.data.labels import in_order
from src.data.row_selection import ROWS_AT_ONCE
from src.system.errors import UserError

_TRUTH = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}  # in any case
_FEW_LABELS = 20


def check_label_columns(columns: str | Sequence[str], separator: str | None) -> None:
    """Raises UserError if `data.label_column` and `data.label_separator` cannot mean anything."""
    if isinstance(columns, str):
        if separator is not None and not separator.strip(" "):
            raise UserError("data.label_separator is blank: name the text between two labels, such as '|'")
        return
    if separator is not None:
        raise UserError("data.label_separator splits the texts of one column, but data.label_column names several")
    if len(columns) < 2 or len(set(columns)) < len(columns):
        raise UserError(
            f"data.label_column is {list(columns)!r:.200}: name two or more different columns of 0 and 1, or a single "
            "column without brackets"
        )


def are_sets(rows: datasets.Dataset, columns: str | Sequence[str], separator: str | None) -> bool:
    """Whether a text may have several labels."""
    return not isinstance(columns, str) or separator is not None or _is_list(rows.features[columns])


def set_names(rows: datasets.Dataset, columns: str | Sequence[str], separator: str | None) -> list[str]:
    """The names of the labels, in the order of their numbers, from a whole split.

    Columns of 0 and 1 are labels of their own names, in the given order. A list of a `ClassLabel` has names. Others are
    sorted, as those of a column with one label a text.

    Raises:
        UserError: the column holds no sets of labels; or about as many labels as rows; or fewer than two.
    """
    if not isinstance(columns, str):
        return list(columns)
    feature = rows.features[columns]
    if _is_list(feature) and isinstance(feature.feature, datasets.ClassLabel):
        return list(feature.feature.names)
    names = {name for each in _sets(rows, columns, separator) for name in each}
    if len(names) > max(_FEW_LABELS, len(rows) / 2):
        raise UserError(
            f"the label column {columns!r} has {len(names):,} kinds of label in {len(rows):,} rows: is it the right "
            "column (data.label_column), and the right data.label_separator?"
        )
    if len(names) < 2:
        found = f"only the label {min(names)!r}" if names else "no label"
        raise UserError(f"the label column {columns!r} has {found}: is data.label_separator the right one?")
    return in_order(names)


def set_ids(
    rows: datasets.Dataset, columns: str | Sequence[str], separator: str | None, names: Sequence[str], use: str
) -> list[list[int]]:
    """The numbers of the labels of each row, in ascending order. Labels are matched by name.

    Args:
        names: of the labels.
        use: of the rows ("training"), for the message.

    Raises:
        UserError: a row has a label that the training split does not have.
    """
    number = {name: i for i, name in enumerate(names)}
    ids = []
    for labels in _sets(rows, columns, separator):
        if unknown := [label for label in labels if label not in number]:
            raise UserError(
                f"a row for {use} has the label {unknown[0]!r:.100}, which is none of the training split "
                f"({', '.join(names)[:200]})"
            )
        ids.append(sorted(number[label] for label in labels))
    return ids


def _sets(rows: datasets.Dataset, columns: str | Sequence[str], separator: str | None) -> Iterator[list[str]]:
    """The labels of each row, by name."""
    batches = rows.select_columns([columns] if isinstance(columns, str) else list(columns)).iter(ROWS_AT_ONCE)
    if not isinstance(columns, str):
        for batch in batches:
            truths = [[_truth(value, column) for value in batch[column]] for column in columns]
            for row in zip(*truths, strict=True):
                yield [name for name, has in zip(columns, row, strict=True) if has]
        return
    for value in (value for batch in batches for value in batch[columns]):
        labels = _labels_in(value, columns, separator, rows.features[columns])
        if len(set(labels)) < len(labels):
            raise UserError(
                f"the label column {columns!r} names a label twice in one row: {value!r:.100}. A list holds the labels "
                "that a text has; 0 and 1 for each label belong in columns of their own"
            )
        yield labels


def _labels_in(value: object, column: str, separator: str | None, feature: object) -> list[str]:
    if value is None:
        raise UserError(
            f"the label column {column!r} has no value in some rows: an empty list or text means that there is no label"
        )
    if separator is not None:
        if not isinstance(value, str):
            raise UserError(f"data.label_separator splits texts, but the label column {column!r} holds {value!r:.100}")
        return [part for each in value.split(separator) if (part := each.strip())]
    assert isinstance(value, list)
    known = feature.feature.names if isinstance(feature.feature, datasets.ClassLabel) else None  # type: ignore[attr-defined]
    labels = []
    for each in value:
        if not isinstance(each, str | int) or (isinstance(each, str) and not each.strip()):
            raise UserError(f"the label column {column!r} has {each!r:.100} in a list: labels are integers or strings")
        labels.append(known[each] if known and 0 <= int(each) < len(known) else str(each))
    return labels


def _truth(value: object, column: str) -> bool:
    truth = _TRUTH.get(str(value).strip().lower())
    if truth is None:
        shown = "no value in some rows" if value is None or value == "" else f"{value!r:.100}"
        raise UserError(f"the label column {column!r} has {shown}: each column of data.label_column holds 0 or 1")
    return truth


def _is_list(feature: object) -> bool:
    return isinstance(feature, datasets.List | datasets.LargeList)
