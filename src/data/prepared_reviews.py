"""Labelled reviews prepared for fine-tuning: chosen, checked, tokenised, and written to disk."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from pathlib import Path
from typing import Any, Self

import datasets
import numpy as np

from src.data import label_sets
from src.data.cache import Prepared, cache_key, prepare_once, write_rows
from src.data.fingerprints import hash_texts
from src.data.labels import label_ids, label_names
from src.data.row_selection import check_texts, select_rows, texts_of
from src.data.shared_texts import SharedTexts, shared_texts
from src.data.sources import Source, find_own, find_source
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
    label_column: str | list[str]
    label_separator: str | None
    train_size: int | None
    val_size: int | None
    test_size: int | None
    subset_seed: int
    stratify: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """As the options of `ImdbDataModule` say; an earlier version did not have all of them."""
        chosen: dict[str, Any] = {each.name: options.get(each.name) for each in fields(cls)}
        return cls(**chosen)


class Reviews(Prepared):
    """Prepared reviews on disk.

    Rows have the columns `input_ids` (those of its windows, one after another), `windows` (tokens of each window),
    `length` (tokens of all windows), `label` (a `ClassLabel`; or a list of one, where a text may have several),
    `text`, and `row` (its number in its split, after `where`).
    """

    def split_sizes(self) -> dict[str, int]:
        """The number of rows of each split that `choose_rows` has chosen from."""
        sizes: dict[str, int] = json.loads((self.folder / _SIZES).read_text())
        return sizes

    def shared_texts(self) -> list[SharedTexts]:
        """The texts that the rows of two subsets share."""
        return [SharedTexts(**each) for each in json.loads((self.folder / _SHARED).read_text())]

    @property
    def one_label(self) -> bool:
        """Whether each text has exactly one label."""
        return isinstance(self.rows("train").features["label"], datasets.ClassLabel)

    @property
    def label_names(self) -> list[str]:
        """The names of the labels, in the order of their numbers."""
        feature = self.rows("train").features["label"]
        return list(feature.names if self.one_label else feature.feature.names)

    def classes(self, windows: bool = False) -> dict[str, int]:
        """The names of the labels, and the number of training rows of each; or of windows, which are examples."""
        rows, names = self.rows("train"), self.label_names
        sizes = rows.data.column("windows").combine_chunks().value_lengths()
        examples = np.asarray(sizes) if windows else np.ones(len(rows))
        labels = rows.data.column("label").combine_chunks()
        if not self.one_label:
            labels, examples = labels.flatten(), np.repeat(examples, np.asarray(labels.value_lengths()))
        counts = np.bincount(np.asarray(labels), examples, len(names))
        return dict(zip(names, counts.astype(int).tolist(), strict=True))

    def without_label(self) -> int:
        """The number of training rows that have no label."""
        return 0 if self.one_label else sum(not labels for labels in self.rows("train")["label"])


def source_of(options: Mapping[str, Any]) -> Source:
    """The data set that the options of `ImdbDataModule` name, with the user's own rows in place of its splits."""
    paths = {split: options.get(f"{split}_data") for split in ("validation", "test")}
    own = {split: find_own(f"data.{split}_data", path) for split, path in paths.items() if path is not None}
    return replace(find_source(options["dataset"], options.get("revision"), options.get("config_name")), own=own)


def reviews_key(source: Source, selection: Selection, encoder: Encoder) -> str:
    """The key of the prepared reviews in the cache."""
    return cache_key(
        {
            "source": source.version,
            # what an earlier version did not have, and is not set, leaves the key as it was
            "selection": {k: v for k, v in asdict(selection).items() if k not in ("label_separator", "stratify") or v},
            "tokenizer": tokenizer_facts(encoder.tokenizer),
            "max_length": encoder.max_length,
            "truncation": encoder.truncation,
        }
    )


def prepare_reviews(source: Source, selection: Selection, encoder: Encoder) -> Reviews:
    """Finds the prepared reviews, or prepares them.

    Raises:
        UserError: the source cannot be read, or its content cannot be used.
    """

    def build(folder: Path) -> None:
        splits = labelled_splits(source, selection)
        labels = _Labels.of(splits["train"], selection)
        sizes = {name: len(split) for name, split in splits.items()}
        subsets = choose_subsets(splits, selection)
        hashes = {}
        for name, subset in subsets.items():
            rows = splits[subset.split].select(subset.indices)
            _write_subset(folder, name, subset, rows, labels, selection, encoder)
            hashes[name] = hash_texts(texts_of(rows, selection.text_column))
        (folder / _SIZES).write_text(json.dumps(sizes))
        (folder / _SHARED).write_text(json.dumps([asdict(each) for each in shared_texts(subsets, hashes)]))

    key = reviews_key(source, selection, encoder)
    return Reviews(key, *prepare_once(key, build))


def choose_subsets(splits: Mapping[str, datasets.Dataset], selection: Selection) -> dict[str, Subset]:
    """The rows of "train", "val" and "test", given the splits of `labelled_splits`.

    Raises:
        UserError: as `choose_rows`; or `stratify` is set, and a row has no class.
    """
    s = selection
    sizes = {name: len(split) for name, split in splits.items()}
    classes = (lambda split: classes_of(splits, split, s)) if s.stratify else None
    return choose_rows(sizes, s.train_size, s.val_size, s.test_size, s.subset_seed, classes)


def classes_of(splits: Mapping[str, datasets.Dataset], split: str, selection: Selection) -> np.ndarray:
    """The class of each row of a split, for `data.stratify`: int64 of shape (rows,).

    Where a text may have several labels, each set of labels is a class.
    """
    labels = _Labels.of(splits["train"], selection)
    ids = labels.ids(splits[split], "data.stratify")
    if labels.one:
        return np.asarray(ids, dtype=np.int64)
    sets = [tuple(each) for each in ids if not isinstance(each, int)]
    number = {each: i for i, each in enumerate(sorted(set(sets)))}
    return np.asarray([number[each] for each in sets], dtype=np.int64)


def labelled_splits(source: Source, selection: Selection) -> dict[str, datasets.Dataset]:
    """The splits "train" and, where there are such, "validation" and "test": the rows and columns that are used.

    Raises:
        UserError: the source cannot be read, or has no split "train", no such column or no such row.
    """
    label_columns = selection.label_column
    named = [label_columns] if isinstance(label_columns, str) else label_columns
    return read_splits(source, selection, [selection.text_column, *named])


def read_splits(source: Source, selection: Selection, columns: list[str]) -> dict[str, datasets.Dataset]:
    """As `labelled_splits`, with these columns in place of text and labels; that of the text comes first."""
    needed = list(dict.fromkeys([*columns, *(selection.where or ())]))
    return {
        use: select_rows(each.read(needed, [name])[name], name, each.dataset, selection.where, columns)
        for use, (each, name) in splits_used(source).items()
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


@dataclass(frozen=True)
class _Labels:
    """How the labels of the rows are read.

    Attributes:
        selection: names their columns.
        names: of the labels, in the order of their numbers.
        one: each text has exactly one label.
    """

    selection: Selection
    names: list[str]
    one: bool

    @classmethod
    def of(cls, train: datasets.Dataset, selection: Selection) -> Self:
        """As the whole training split has them."""
        columns, separator = selection.label_column, selection.label_separator
        if label_sets.are_sets(train, columns, separator):
            return cls(selection, label_sets.set_names(train, columns, separator), one=False)
        assert isinstance(columns, str)
        return cls(selection, label_names(train, columns), one=True)

    @property
    def feature(self) -> datasets.ClassLabel | datasets.List:
        """Of the prepared column."""
        each = datasets.ClassLabel(names=self.names)
        return each if self.one else datasets.List(each)

    def ids(self, rows: datasets.Dataset, use: str) -> list[int] | list[list[int]]:
        """The number of each row's label, or the numbers of its labels; `use` is what the rows are for."""
        columns, separator = self.selection.label_column, self.selection.label_separator
        if isinstance(columns, str) and self.one:
            return label_ids(rows, columns, self.names, use).tolist()  # type: ignore[no-any-return]
        return label_sets.set_ids(rows, columns, separator, self.names, use)

    def described(self, ids: int | list[int]) -> str:
        """What a row has, in words."""
        if isinstance(ids, int):
            return f"the label {self.names[ids]!r}"
        return f"the labels {', '.join(self.names[i] for i in ids)!r}" if ids else "no label"


def _write_subset(
    folder: Path,
    name: str,
    subset: Subset,
    rows: datasets.Dataset,
    labels: "_Labels",
    selection: Selection,
    encoder: Encoder,
) -> None:
    column = selection.label_column
    named = isinstance(column, str) and isinstance(rows.features[column], datasets.ClassLabel)
    if name in SPLITS and named and set(rows[column]) == {_HIDDEN}:
        raise UserError(
            f"the labels of the split {subset.split!r} are hidden (-1), as often on the Hub: set data.{name}_size=0, "
            f"or name rows of your own by data.{SPLITS[name]}_data"
        )
    ids = labels.ids(rows, USES[name])
    if name == "train" and all(each == ids[0] for each in ids):
        raise UserError(
            f"all {len(ids)} training rows have {labels.described(ids[0])}: there is nothing to learn; "
            "raise data.train_size or change data.subset_seed"
        )
    check_texts(rows, selection.text_column, subset.indices, subset.split)

    def tokenize(batch: dict[str, list[Any]], indices: list[int]) -> dict[str, list[Any]]:
        texts = batch[selection.text_column]
        reviews = encoder.encode(texts)
        tokens = [list(chain.from_iterable(windows)) for windows in reviews]
        return {
            "input_ids": tokens,
            "windows": [[len(window) for window in windows] for windows in reviews],
            "length": [len(review) for review in tokens],
            "label": [ids[i] for i in indices],
            "row": subset.indices[indices].tolist(),
            "text": texts,
        }

    features = datasets.Features(
        {
            "input_ids": datasets.List(datasets.Value("int32")),
            "windows": datasets.List(datasets.Value("int32")),
            "length": datasets.Value("int32"),
            "label": labels.feature,
            "row": datasets.Value("int64"),
            "text": datasets.Value("string"),
        }
    )
    write_rows(folder, name, rows, tokenize, features, f"Tokenising for {USES[name]}")
