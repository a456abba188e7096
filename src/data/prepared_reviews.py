"""Labelled reviews, prepared: which rows and columns, checked, tokenised, on disk."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from src.data.cache import ROWS_AT_ONCE, cache_key, map_into, prepare_once, stored_rows
from src.data.labels import label_ids, label_names
from src.data.sources import Source
from src.data.splits import Rows, choose_rows
from src.data.tokenization import Encoder, check_texts, tokenizer_facts
from src.system.errors import UserError

LABELS_FILE = "labels.json"
USES = {"train": "training", "val": "validation", "test": "testing"}

_FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "windows": datasets.List(datasets.Value("int32")),
        "length": datasets.Value("int32"),
        "label": datasets.Value("int64"),
        "row": datasets.Value("int64"),
        "text": datasets.Value("string"),
    }
)


@dataclass(frozen=True)
class Selection:
    """Which rows and columns of a source are meant; the options of `ImdbDataModule` say what each is."""

    where: dict[str, int | str] | None
    text_column: str
    label_column: str
    train_size: int | None
    val_size: int | None
    test_size: int | None
    subset_seed: int


@dataclass(frozen=True)
class Prepared:
    """Prepared reviews on disk.

    Attributes:
        key: changes with the source's content, the selection, the tokenizer and the encoding.
        folder: has a data set for each of "train", "val" and "test" that has rows, and the labels' names.
        found: it was there already.
    """

    key: str
    folder: Path
    found: bool

    def labels(self) -> list[str]:
        """The names of the classes, in the order of their numbers."""
        names: list[str] = json.loads((self.folder / LABELS_FILE).read_text())
        return names

    def rows(self, name: str) -> datasets.Dataset:
        """The rows of a subset.

        `input_ids` are those of its windows one after another, `windows` the tokens of each (missing where all have
        one and they were prepared before 2026-11-26), `length` of all; `label`, `text`, and `row`, its number after
        `where`.
        """
        return stored_rows(self.folder / name, _FEATURES)


def prepare_reviews(source: Source, selection: Selection, encoder: Encoder) -> Prepared:
    """Finds the prepared reviews, or makes them.

    Raises:
        UserError: the source cannot be read, or its content will not do; the text says what and where.
    """
    key = cache_key(
        {
            "source": source.fingerprint,
            "selection": asdict(selection),
            "tokenizer": tokenizer_facts(encoder.tokenizer),
            "max_length": encoder.max_length,
            "truncation": encoder.truncation,
        }
    )

    def build(folder: Path) -> None:
        splits = labelled_splits(source, selection)
        names = label_names(splits["train"], selection.label_column)
        subsets = choose_rows(
            {name: len(split) for name, split in splits.items()},
            selection.train_size,
            selection.val_size,
            selection.test_size,
            selection.subset_seed,
        )
        for name, rows in subsets.items():
            if not len(rows.indices):
                continue  # `load_from_disk` cannot open a data set without rows
            labelled = _Subset(name, splits[rows.split], rows)
            unfinished = folder / "tokens.arrow"
            _tokenize(labelled, names, selection, encoder, unfinished).save_to_disk(str(folder / name))
            unfinished.unlink(missing_ok=True)
        (folder / LABELS_FILE).write_text(json.dumps(names))

    folder, found = prepare_once(key, build)
    return Prepared(key, folder, found)


@dataclass(frozen=True)
class _Subset:
    name: str
    split: datasets.Dataset
    rows: Rows


def labelled_splits(source: Source, selection: Selection) -> dict[str, datasets.Dataset]:
    """The splits for training and testing, cut down to the rows and columns that are needed."""
    splits: Mapping[str, datasets.Dataset] = source.read()
    columns = [selection.text_column, selection.label_column]
    kept = {
        name: select_rows(splits[name], name, source.dataset, selection.where, columns)
        for name in ("train", "test")
        if name in splits
    }
    if "train" not in kept:
        raise UserError(f"the data set {source.dataset!r} has no split 'train' (its splits: {', '.join(splits)})")
    return kept


def select_rows(
    split: datasets.Dataset, name: str, dataset: str, where: Mapping[str, int | str] | None, columns: list[str]
) -> datasets.Dataset:
    """The rows of a split that are meant by `where`, with the given columns alone.

    Raises:
        UserError: there is no such column, or no such row.
    """
    where = where or {}
    for column in (*columns, *where):
        if column not in split.column_names:
            there = ", ".join(split.column_names)
            asked = "; data.where asks for it, and null drops that" if column in where else ""
            raise UserError(f"the data set {dataset!r} has no column {column!r} (its columns: {there}){asked}")
    kept = np.ones(len(split), dtype=bool)
    for column, value in where.items():
        kept &= np.asarray(split[column][:], dtype=object) == value
        if not kept.any():
            wanted = " and ".join(f"{column} = {value!r}" for column, value in where.items())
            raise UserError(f"no row of the split {name!r} has {wanted} (data.where)")
    return (split.select(np.flatnonzero(kept)) if where else split).select_columns(columns)


def _tokenize(
    subset: _Subset, names: list[str], selection: Selection, encoder: Encoder, file: Path
) -> datasets.Dataset:
    """The rows of the subset with their tokens, on disk in `file`."""
    chosen = subset.split.select(subset.rows.indices)
    labels = label_ids(chosen, selection.label_column, names, USES[subset.name])
    if subset.name == "train" and len(set(labels.tolist())) < 2:
        raise UserError(
            f"all {len(labels)} training rows have the label {names[labels[0]]!r}: there is nothing to learn; "
            "raise data.train_size or change data.subset_seed"
        )
    column, rows = selection.text_column, subset.rows
    texts = (text for batch in chosen.select_columns([column]).iter(ROWS_AT_ONCE) for text in batch[column])
    check_texts(texts, column, rows.indices, rows.split)

    def tokens(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        windows = encoder.encode(batch[column])
        ids = [list(chain.from_iterable(row)) for row in windows]
        return {
            "input_ids": ids,
            "windows": [[len(window) for window in row] for row in windows],
            "length": [len(row) for row in ids],
            "label": labels[indices].tolist(),
            "row": rows.indices[indices].tolist(),
            "text": batch[column],
        }

    return map_into(file, chosen, tokens, _FEATURES, f"Tokenising for {USES[subset.name]}")
