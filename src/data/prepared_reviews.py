"""Labelled reviews prepared for fine-tuning: chosen, checked, tokenised, and written to disk."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from src.data.cache import Prepared, cache_key, prepare_once, write_rows
from src.data.fingerprints import hash_texts
from src.data.labels import label_ids, label_names
from src.data.row_selection import check_texts, select_rows, texts_of
from src.data.shared_texts import SharedTexts, shared_texts
from src.data.sources import Source
from src.data.splits import SPLITS, USES, Subset, choose_rows
from src.data.tokenization import Encoder, tokenizer_facts
from src.system.errors import UserError

_SIZES = "split_sizes.json"
_HIDDEN = -1  # in place of a label of a test split
_SHARED = "shared_texts.json"
_NAMES = {"validation": ("validation", "valid", "dev", "val"), "test": ("test",)}  # of such splits on the Hub


@dataclass(frozen=True)
class Selection:
    """Which rows and columns of a source are used. These are options of `ImdbDataModule`, which explains them."""

    where: dict[str, bool | int | str] | None
    text_column: str
    label_column: str
    train_size: int | None
    val_size: int | None
    test_size: int | None
    subset_seed: int
    stratify: bool


class Reviews(Prepared):
    """Prepared reviews on disk.

    Rows have the columns `input_ids` (those of its windows, one after another), `windows` (tokens of each window),
    `length` (tokens of all windows), `label` (a `ClassLabel`), `text`, and `row` (its number in its split, after
    `where`).
    """

    def split_sizes(self) -> dict[str, int]:
        """The number of rows of each split that `choose_rows` has chosen from."""
        sizes: dict[str, int] = json.loads((self.folder / _SIZES).read_text())
        return sizes

    def shared_texts(self) -> list[SharedTexts]:
        """The texts that the rows of two subsets share."""
        return [SharedTexts(**each) for each in json.loads((self.folder / _SHARED).read_text())]

    def classes(self) -> dict[str, int]:
        """The names of the classes, and the number of training rows of each."""
        rows = self.rows("train")
        names = rows.features["label"].names
        counts = np.bincount(np.asarray(rows.data.column("label")), minlength=len(names))
        return dict(zip(names, counts.tolist(), strict=True))


def prepare_reviews(source: Source, selection: Selection, encoder: Encoder) -> Reviews:
    """Finds the prepared reviews, or prepares them.

    Raises:
        UserError: the source cannot be read, or its content cannot be used.
    """
    key = cache_key(
        {
            "source": source.version,
            "selection": asdict(selection),
            "tokenizer": tokenizer_facts(encoder.tokenizer),
            "max_length": encoder.max_length,
            "truncation": encoder.truncation,
        }
    )

    def build(folder: Path) -> None:
        splits = labelled_splits(source, selection)
        names = label_names(splits["train"], selection.label_column)
        sizes = {name: len(split) for name, split in splits.items()}
        subsets = choose_subsets(splits, selection)
        hashes = {}
        for name, subset in subsets.items():
            rows = splits[subset.split].select(subset.indices)
            _write_subset(folder, name, subset, rows, names, selection, encoder)
            hashes[name] = hash_texts(texts_of(rows, selection.text_column))
        (folder / _SIZES).write_text(json.dumps(sizes))
        (folder / _SHARED).write_text(json.dumps([asdict(each) for each in shared_texts(subsets, hashes)]))

    return Reviews(key, *prepare_once(key, build))


def choose_subsets(splits: Mapping[str, datasets.Dataset], selection: Selection) -> dict[str, Subset]:
    """The rows of "train", "val" and "test", given the splits of `labelled_splits`.

    Raises:
        UserError: as `choose_rows`; or `stratify` is set, and a row has no class.
    """
    s = selection
    sizes = {name: len(split) for name, split in splits.items()}
    classes = (lambda split: classes_of(splits, split, s.label_column)) if s.stratify else None
    return choose_rows(sizes, s.train_size, s.val_size, s.test_size, s.subset_seed, classes)


def classes_of(splits: Mapping[str, datasets.Dataset], split: str, column: str) -> np.ndarray:
    """The class of each row of a split, for `data.stratify`: int64 of shape (rows,)."""
    return label_ids(splits[split], column, label_names(splits["train"], column), "data.stratify")


def labelled_splits(source: Source, selection: Selection) -> dict[str, datasets.Dataset]:
    """The splits "train" and, where there are such, "validation" and "test": the rows and columns that are used.

    Raises:
        UserError: the source cannot be read, or has no split "train", no such column or no such row.
    """
    columns = [selection.text_column, selection.label_column]
    needed = list(dict.fromkeys([*columns, *(selection.where or ())]))
    found = splits_used(source)
    return {
        use: select_rows(each.read(needed, [name])[name], name, each.dataset, selection.where, columns)
        for use, (each, name) in found.items()
    }


def splits_used(source: Source) -> dict[str, tuple[Source, str]]:
    """By "train" and, where there are such, "validation" and "test": the data set and its split that are read for it.

    Raises:
        UserError: there is no split "train", or nobody can tell which split of an own data set is meant.
    """
    there = source.splits()
    if "train" not in there:
        raise UserError(f"the data set {source.dataset!r} has no split 'train' (its splits: {', '.join(there)})")
    found = {"train": (source, "train")}
    for use, names in _NAMES.items():
        one = source.own.get(use, source)
        splits = one.splits()
        split = next((name for name in names if name in splits), None)
        if one is not source and split is None:
            if len(splits) > 1:
                raise UserError(
                    f"{one.dataset!r} has the splits {', '.join(splits)[:200]}, none of them for {use}: name one file"
                )
            split = splits[0]
        if split is not None:
            found[use] = (one, split)
    return found


def _write_subset(
    folder: Path,
    name: str,
    subset: Subset,
    rows: datasets.Dataset,
    names: list[str],
    selection: Selection,
    encoder: Encoder,
) -> None:
    named = isinstance(rows.features[selection.label_column], datasets.ClassLabel)
    if name in SPLITS and named and set(rows[selection.label_column]) == {_HIDDEN}:
        raise UserError(
            f"the labels of the split {subset.split!r} are hidden (-1), as often on the Hub: set data.{name}_size=0, "
            f"or name rows of your own by data.{SPLITS[name]}_data"
        )
    labels = label_ids(rows, selection.label_column, names, USES[name])
    if name == "train" and len(set(labels.tolist())) < 2:
        raise UserError(
            f"all {len(labels)} training rows have the label {names[labels[0]]!r}: there is nothing to learn; "
            "raise data.train_size or change data.subset_seed"
        )
    check_texts(rows, selection.text_column, subset.indices, subset.split)

    def tokenize(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        texts = batch[selection.text_column]
        reviews = encoder.encode(texts)
        ids = [list(chain.from_iterable(windows)) for windows in reviews]
        return {
            "input_ids": ids,
            "windows": [[len(window) for window in windows] for windows in reviews],
            "length": [len(review) for review in ids],
            "label": labels[indices].tolist(),
            "row": subset.indices[indices].tolist(),
            "text": texts,
        }

    features = datasets.Features(
        {
            "input_ids": datasets.List(datasets.Value("int32")),
            "windows": datasets.List(datasets.Value("int32")),
            "length": datasets.Value("int32"),
            "label": datasets.ClassLabel(names=names),
            "row": datasets.Value("int64"),
            "text": datasets.Value("string"),
        }
    )
    write_rows(folder, name, rows, tokenize, features, f"Tokenising for {USES[name]}")
