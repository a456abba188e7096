"""Rows to examples and padded batches: whole reviews in evaluation, single windows in training."""

import datasets
import pytest
import torch

from src.data.batches import FILLER_ROW
from src.data.examples import Collator, Example, ReviewExamples, WindowExamples
from src.data.labels import IGNORED_LABEL
from tests.data.conftest import rows_of_one_window


def _rows_in_windows() -> datasets.Dataset:
    """Prepared rows in windows of 3 and 2 tokens, of 1, and of 2, 2 and 1."""
    windows = [[3, 2], [1], [2, 2, 1]]
    ids = [list(range(10 * i, 10 * i + sum(lengths))) for i, lengths in enumerate(windows)]
    rows = {"input_ids": ids, "windows": windows, "length": [len(row) for row in ids], "label": [1, 0, 2]}
    return datasets.Dataset.from_dict(rows)


def test_padding_to_the_longest_and_to_max_length() -> None:
    rows = WindowExamples(rows_of_one_window(10)).__getitems__([4, 1, 2])
    batch = Collator(9, "longest", 20)(rows)
    assert batch["input_ids"].tolist() == [[7, 7, 7, 7, 7], [7, 7, 9, 9, 9], [7, 7, 7, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]
    assert batch["labels"].tolist() == [4, 1, 2]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}
    wide = Collator(9, "max_length", 20)(rows)
    assert wide["input_ids"].shape == wide["attention_mask"].shape == (3, 20)
    assert torch.equal(wide["input_ids"][:, :5], batch["input_ids"])
    assert wide["attention_mask"].sum() == batch["attention_mask"].sum()


def _listed(examples: list[Example]) -> list[tuple[list[list[int]], int]]:
    return [([window.tolist() for window in example["windows"]], example["label"]) for example in examples]


def test_training_reads_each_window_by_itself() -> None:
    windows = WindowExamples(_rows_in_windows())
    assert windows.lengths.tolist() == [3, 2, 1, 2, 2, 1]
    assert _listed([windows[i] for i in range(len(windows))]) == [
        ([[0, 1, 2]], 1),
        ([[3, 4]], 1),
        ([[10]], 0),
        ([[20, 21]], 2),
        ([[22, 23]], 2),
        ([[24]], 2),
    ]
    assert _listed(windows.__getitems__([4, 0])) == _listed([windows[4], windows[0]])


def test_evaluation_reads_all_windows_of_a_review_together() -> None:
    batch = Collator(9, "longest", 20, by_review=True)(ReviewExamples(_rows_in_windows()).__getitems__([2, 1, 0]))
    ids = [[20, 21, 9], [22, 23, 9], [24, 9, 9], [10, 9, 9], [0, 1, 2], [3, 4, 9]]
    assert batch["input_ids"].tolist() == ids
    assert batch["attention_mask"].tolist() == [[int(id_ != 9) for id_ in row] for row in ids]
    assert batch["labels"].tolist() == [2, 0, 1]
    assert batch["review"].tolist() == [0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("by_review", [False, True])
@pytest.mark.parametrize("examples", [ReviewExamples, WindowExamples])
def test_empty_share_is_one_masked_row(examples: type[ReviewExamples], by_review: bool) -> None:
    batch = Collator(0, "longest", 20, by_review)(examples(_rows_in_windows()).__getitems__([FILLER_ROW]))
    assert {len(values) for values in batch.values()} == {1}
    assert batch["labels"].tolist() == [IGNORED_LABEL]
    assert batch["attention_mask"].sum() == 1, "attention over no token at all is not a number"
