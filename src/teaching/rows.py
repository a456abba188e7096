"""The rows that a teacher reads, without their labels, and the data set that it writes."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np

from src.data.imdb import ImdbDataModule
from src.data.labels import known_label_ids
from src.data.prepared_reviews import read_splits
from src.data.row_selection import check_texts, empty_texts
from src.data.splits import SPLITS, USES, choose_rows
from src.system.errors import UserError
from src.teaching.lesson import Lesson
from src.teaching.teacher import Taught

_LEAST_TEXTS = 100


@dataclass(frozen=True)
class Rows:
    """The rows of a configuration.

    Attributes:
        texts: for training, those that are empty left out.
        numbers: of their rows in the training split, shape (texts,).
        evaluated: text and label of the rows of "validation" and "test", where there are such.
    """

    texts: list[str]
    numbers: np.ndarray
    evaluated: dict[str, datasets.Dataset]


def read_rows(data: ImdbDataModule, lesson: Lesson) -> Rows:
    """The texts to teach, and the labelled rows for validation and testing. No label of the former is looked at.

    Raises:
        UserError: the data set cannot be read, or a row for validation or testing has a label without sentences.
    """
    s = data.selection
    if not isinstance(s.label_column, str) or s.label_separator or s.stratify:
        raise UserError(
            "`teach` gives each text one label, and knows none before: it takes one data.label_column, and "
            "neither data.label_separator nor data.stratify"
        )
    evaluates = s.val_size != 0 or s.test_size != 0
    splits = read_splits(data.source, s, [s.text_column, *([s.label_column] if evaluates else [])])
    sizes = {name: len(split) for name, split in splits.items()}
    subsets = choose_rows(sizes, s.train_size, s.val_size, s.test_size, s.subset_seed)
    train = splits["train"].select(subsets["train"].indices)
    full = ~empty_texts(train, s.text_column, "train")
    texts = [text for text, has_text in zip(train[s.text_column][:], full, strict=True) if has_text]
    if len(texts) < _LEAST_TEXTS:
        raise UserError(f"a teacher needs {_LEAST_TEXTS} texts or more, not {len(texts)}")
    evaluated = {}
    for name, split in SPLITS.items():
        subset = subsets[name]
        if len(subset.indices):
            rows = splits[subset.split].select(subset.indices)
            check_texts(rows, s.text_column, subset.indices, subset.split)
            ids = known_label_ids(rows, s.label_column, list(lesson.sentences))
            if (ids < 0).any():
                other = rows[s.label_column][int(np.flatnonzero(ids < 0)[0])]
                raise UserError(
                    f"a row for {USES[name]} has the label {str(other)!r}, for which there are no sentences: they are "
                    f"for {', '.join(map(repr, lesson.sentences))}"
                )
            evaluated[split] = _labelled(rows[s.text_column][:], ids, lesson)
    return Rows(texts, subsets["train"].indices[full], evaluated)


def write_folder(folder: Path, rows: Rows, taught: Taught, lesson: Lesson) -> None:
    """Writes a data set in the Hub's layout: a parquet file a split."""
    train = _labelled([rows.texts[i] for i in taught.rows], taught.labels, lesson)
    train = train.add_column("margin", taught.margins.tolist()).add_column("row", rows.numbers[taught.rows].tolist())
    for split, each in {"train": train, **rows.evaluated}.items():
        each.to_parquet(folder / f"{split}.parquet")
    (folder / "teacher.json").write_text(json.dumps(asdict(lesson), indent=2, ensure_ascii=False) + "\n", "utf-8")


def _labelled(texts: list[str], labels: np.ndarray, lesson: Lesson) -> datasets.Dataset:
    label = datasets.ClassLabel(names=list(lesson.sentences))
    features = datasets.Features({"text": datasets.Value("string"), "label": label})
    return datasets.Dataset.from_dict({"text": texts, "label": labels}, features)
