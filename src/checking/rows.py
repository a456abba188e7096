"""The rows that a configuration trains, validates and tests on, as they are: with empty texts and unknown labels."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from src.data.imdb import ImdbDataModule
from src.data.label_sets import are_sets
from src.data.labels import known_label_ids, label_names
from src.data.prepared_reviews import choose_subsets, labelled_splits
from src.data.row_selection import empty_texts
from src.data.splits import USES
from src.system.errors import UserError

MOST_ROWS = 25_000
"""Rows of each subset whose texts are looked at: the first of the shuffle, which are a fair sample."""
_ROWS_NAMED = 5


@dataclass(frozen=True)
class Rows:
    """A subset's rows. The first `MOST_ROWS` have texts.

    Attributes:
        use: "training", "validation" or "testing".
        dataset, split: that they are from.
        there: rows of the whole split.
        numbers: of the rows in their split, shape (rows,).
        labels: class numbers, -1 where a label is no class of the training split; shape (rows,).
        texts: those that are looked at; "" where there is none.
    """

    use: str
    dataset: str
    split: str
    there: int
    numbers: np.ndarray
    labels: np.ndarray
    texts: list[str]

    def facts(self, names: list[str]) -> dict[str, Any]:
        """What the report says of them."""
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(names)).tolist()
        empty = np.flatnonzero([not text for text in self.texts])
        return {
            "rows": len(self.numbers),
            "dataset": self.dataset,
            "split": self.split,
            "rows_of_split": self.there,
            "labels": dict(zip(names, counts, strict=True)),
            "unknown_labels": self.named(np.flatnonzero(self.labels < 0)),
            "empty_texts": self.named(empty),
        }

    def named(self, places: np.ndarray) -> dict[str, Any]:
        """How many rows there are at some places, and the first of their numbers."""
        return {"rows": len(places), "first": np.sort(self.numbers[places])[:_ROWS_NAMED].tolist()}


def read_rows(data: ImdbDataModule) -> tuple[list[str], list[Rows]]:
    """The names of the classes, and the subsets that have rows.

    Raises:
        UserError: the data set cannot be read, or its columns hold no texts or no labels.
    """
    selection = data.selection
    splits = labelled_splits(data.source, selection)
    column = selection.label_column
    if not isinstance(column, str) or are_sets(splits["train"], column, selection.label_separator):
        raise UserError("`check` looks at texts with one label each, but these may have several")
    names = label_names(splits["train"], column)
    found = []
    subsets = choose_subsets(splits, selection)
    for name, use in USES.items():
        subset = subsets[name]
        if not len(subset.indices):
            continue
        rows = splits[subset.split].select(subset.indices)
        read = rows.select(range(min(len(rows), MOST_ROWS)))
        empty = empty_texts(read, selection.text_column, subset.split)
        texts = ["" if blank else text for blank, text in zip(empty, read[selection.text_column][:], strict=True)]
        source, split = data.origin_of(name) if name != "train" else (data.source, "train")
        labels = known_label_ids(rows, column, names)
        there = len(splits[subset.split])
        found.append(Rows(use, source.dataset, split, there, subset.indices, labels, texts))
    return names, found
