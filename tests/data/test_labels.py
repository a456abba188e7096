"""Classes of a data set: names and numbers, of whatever type the labels are."""

import datasets
import pytest

from src.data.labels import label_ids, label_names
from src.system.errors import UserError


def _column(values: list[object], feature: object = None) -> datasets.Dataset:
    features = datasets.Features({"label": feature}) if feature else None
    return datasets.Dataset.from_dict({"label": values}, features=features)


@pytest.mark.parametrize(
    ("values", "names", "ids"),
    [
        (["pos", "neg", "pos"], ["neg", "pos"], [1, 0, 1]),
        ([1, 0, 1], ["0", "1"], [1, 0, 1]),
        ([10, 2, 10], ["2", "10"], [1, 0, 1]),  # by number, not by letter
        ([-1, 5, 3], ["-1", "3", "5"], [0, 2, 1]),
        ([True, False], ["False", "True"], [1, 0]),
        (["5", "4", "3", "2", "1"], ["1", "2", "3", "4", "5"], [4, 3, 2, 1, 0]),
    ],
    ids=str,
)
def test_names_are_sorted_and_numbered(values: list[object], names: list[str], ids: list[int]) -> None:
    column = _column(values)
    assert label_names(column, "label") == names
    assert label_ids(column, "label", names, "training").tolist() == ids


def test_class_label_brings_its_own_names_and_order() -> None:
    column = _column([1, 0, 2], datasets.ClassLabel(names=["zero", "alpha", "beta"]))
    assert label_names(column, "label") == ["zero", "alpha", "beta"]
    assert label_ids(column, "label", ["zero", "alpha", "beta"], "training").tolist() == [1, 0, 2]


def test_classes_are_those_of_the_whole_split() -> None:
    """A subset that lacks a class numbers the others as the whole split does."""
    whole = _column(["a", "b", "c"])
    assert label_ids(whole.select([2, 0]), "label", label_names(whole, "label"), "training").tolist() == [2, 0]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0.5, 1.0], "holds numbers such as 0.5, or no single values: labels must be integers (1, not 1.0) or strings"),
        ([["a"], ["b"]], "labels must be integers (1, not 1.0) or strings"),
        (["a", None], "has no value in some rows"),
    ],
)
def test_labels_of_other_kinds_are_refused(values: list[object], words: str) -> None:
    with pytest.raises(UserError) as refused:
        label_names(_column(values), "label")
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "column",
    [
        _column([0, -1, 1, -1], datasets.ClassLabel(names=["neg", "pos"])),
        _column(["neg", "-1", "pos", "-1"]),
    ],
    ids=["ClassLabel", "string"],
)
def test_label_that_training_does_not_have_is_counted_and_named(column: datasets.Dataset) -> None:
    with pytest.raises(UserError) as refused:
        label_ids(column, "label", ["neg", "pos"], "testing")
    assert "2 rows for testing have a label that is no class of the training split (neg, pos)" in str(refused.value)
    assert "-1" in str(refused.value)
