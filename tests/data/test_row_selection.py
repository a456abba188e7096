"""The texts of rows: those that cannot be read are counted and named."""

import datasets
import numpy as np
import pytest

from src.data.row_selection import check_texts
from src.system.errors import UserError


def _check(column: str, texts: list[object], numbers: list[int], split: str) -> None:
    check_texts(datasets.Dataset.from_dict({column: texts}), column, np.array(numbers), split)


def test_missing_texts_are_counted_and_named_by_row() -> None:
    numbers = [70, 3, 99, 12, 5, 41, 8]
    _check("text", ["good"] * 7, numbers, "train")
    with pytest.raises(UserError) as refused:
        _check("review", ["", None, "  ", "good", "\n", " \t", ""], numbers, "train")
    assert str(refused.value) == "no text in the column 'review' of 6 rows of the split 'train': 3, 5, 8, 41, 70, …"


def test_texts_of_another_type_are_refused() -> None:
    with pytest.raises(UserError, match="the column 'stars' of the split 'test' holds no text but int"):
        _check("stars", [5, 4], [0, 1], "test")
