"""Invalid data sets, columns, labels and sizes."""

from collections.abc import Callable

import datasets
import numpy as np
import pandas as pd
import pytest

from tests.bad_input.world import MISTAKE, USAGE, Cases, World
from tests.conftest import write_reviews
from tests.synthetic import LABELS, several_labels, synthetic_reviews


def _as_it_is(_: pd.DataFrame) -> None:
    """No change."""


def _several(w: World, change: Callable[[pd.DataFrame], object], columns: str, *options: str) -> list[str]:
    """A fit on texts with three labels, as columns of 0 and 1, after `change` was applied to them."""
    frame = several_labels(200)
    frame["labels"] = ["|".join(name for name in LABELS if row[name]) for row in frame.to_dict("records")]
    change(frame)
    path = write_reviews(w.here / "several.csv", frame)
    return w.fit(f"--data.dataset={path}", f"--data.label_column={columns}", *options)


def _blank(frame: pd.DataFrame) -> None:
    """Blanks three texts of the training subset, whose row numbers are known."""
    frame.loc[np.random.default_rng(42).permutation(200)[[0, 20, 40]], "text"] = ["", "   ", None]


_STRAY_QUOTE = 'text\tlabel\na\tpos\n"b\tneg\nc\tpos\nd\tneg\ne"\tpos\nf\tneg\n'
_BLANK_ROWS = ", ".join(map(str, sorted(np.random.default_rng(42).permutation(200)[[0, 20, 40]].tolist())))


def _unknown_label_in_test(w: World) -> str:
    folder = w.here / "splits"
    folder.mkdir()
    write_reviews(folder / "train.csv", synthetic_reviews(200))
    write_reviews(folder / "test.csv", synthetic_reviews(40).assign(label="mixed"))
    return f"--data.dataset={folder}"


def _without_train(w: World) -> str:
    folder = w.here / "splits"
    folder.mkdir()
    write_reviews(folder / "test.csv", synthetic_reviews(40))
    return f"--data.dataset={folder}"


def _several_splits(w: World) -> str:
    folder = w.here / "several"
    folder.mkdir()
    for name in ("train", "test"):
        write_reviews(folder / f"{name}.csv", synthetic_reviews(40))
    return str(folder)


def _own(w: World, change: Callable[[pd.DataFrame], object] = lambda _: None) -> str:
    frame = synthetic_reviews(40, seed=9)
    change(frame)
    return str(write_reviews(w.here / "own.csv", frame))


def _unlabelled(w: World) -> str:
    """As the Hub marks rows without a label: -1 in a ClassLabel column."""
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    frame = synthetic_reviews(200).assign(label=-1)
    saved = datasets.DatasetDict(train=datasets.Dataset.from_pandas(frame, features=features))
    saved.save_to_disk(str(w.here / "unlabelled"))
    return f"--data.dataset={w.here / 'unlabelled'}"


_THREE = "[praise, blame, music]"

CASES: Cases = {
    "a label column that is not there": (
        lambda w: _several(w, _as_it_is, "[praise, noise]"),
        MISTAKE,
        ["has no column 'noise'"],
    ),
    "a single label column in brackets": (
        lambda w: _several(w, _as_it_is, "[praise]"),
        MISTAKE,
        ["data.label_column is ['praise']", "two or more"],
    ),
    "a label column named twice": (lambda w: _several(w, _as_it_is, "[praise, praise]"), MISTAKE, ["different"]),
    "label columns that hold other numbers": (
        lambda w: _several(w, lambda f: f.insert(0, "share", 0.5), "[praise, share]"),
        MISTAKE,
        ["the label column 'share' has '0.5'", "holds 0 or 1"],
    ),
    "an empty field of a label column": (
        lambda w: _several(w, lambda f: f.__setitem__("music", [None, 1] * 100), _THREE),
        MISTAKE,
        ["the label column 'music' has no value in some rows"],
    ),
    "a separator for several columns": (
        lambda w: _several(w, _as_it_is, _THREE, "--data.label_separator=|"),
        MISTAKE,
        ["data.label_separator splits the texts of one column"],
    ),
    "a blank separator": (
        lambda w: _several(w, _as_it_is, "labels", "--data.label_separator= "),
        MISTAKE,
        ["data.label_separator is blank"],
    ),
    "a separator that is nowhere": (
        lambda w: _several(w, lambda f: f.__setitem__("labels", "praise|blame"), "labels", "--data.label_separator=;"),
        MISTAKE,
        ["has only the label 'praise|blame': is data.label_separator the right one?"],
    ),
    "the same labels everywhere": (
        lambda w: _several(w, lambda f: f.__setitem__("praise", f.__setitem__("blame", 1) or 0), "[praise, blame]"),
        MISTAKE,
        ["training rows have the labels 'blame': there is nothing to learn"],
    ),
    "a figure of one label a text": (
        lambda w: _several(w, _as_it_is, _THREE, "--model.monitor=val/balanced_accuracy"),
        MISTAKE,
        ["model.monitor is 'val/balanced_accuracy'", "val/label_accuracy"],
    ),
    "a weight for one of several labels": (
        lambda w: _several(w, _as_it_is, _THREE, "--model.class_weights={praise: 2, blame: 1}"),
        MISTAKE,
        ["model.class_weights has no number for the label 'music'"],
    ),
    "no such dataset": (
        lambda w: w.fit("--data.dataset=someone/no-such-reviews"),
        MISTAKE,
        ["'someone/no-such-reviews'", "configs/quickstart.yaml"],
    ),
    "no such file": (lambda w: w.fit("--data.dataset=nowhere/reviews.csv"), MISTAKE, ["'nowhere/reviews.csv'"]),
    "no such folder": (lambda w: w.fit("--data.dataset=./nowhere"), MISTAKE, ["'./nowhere' does not exist"]),
    "no such package": (
        lambda w: w.fit("--data.dataset=package://no_such_package/x.csv"),
        MISTAKE,
        ["'no_such_package' is not installed", "pip install"],
    ),
    "file of an unknown kind": (
        lambda w: w.fit(f"--data.dataset={w.file('reviews.xlsx')}"),
        MISTAKE,
        ["no file of a known kind", ".csv"],
    ),
    "empty file": (
        lambda w: w.fit(f"--data.dataset={w.file('empty.csv')}"),
        MISTAKE,
        ["empty.csv is empty: a csv file begins with"],
    ),
    "a table that is none": (
        lambda w: w.fit(f"--data.dataset={w.file('broken.jsonl', '{')}"),
        MISTAKE,
        ["broken.jsonl, line 1: is not JSON"],
    ),
    "bytes that are no text": (
        lambda w: w.fit(f"--data.dataset={w.file('latin.csv', b'text,label' + bytes([10, 0xE9, 0xFF, 44, 49, 10]))}"),
        MISTAKE,
        ["latin.csv, line 2: is not UTF-8"],
    ),
    "truncated parquet": (
        lambda w: w.fit(f"--data.dataset={w.file('short.parquet', b'PAR1 and no more')}"),
        MISTAKE,
        ["short.parquet", "cannot be read"],
    ),
    "no such text column": (
        lambda w: w.fit("--data.text_column=review"),
        MISTAKE,
        ["has no column 'review' (its columns: text, label)"],
    ),
    "no such label column": (
        lambda w: w.fit("--data.label_column=stars"),
        MISTAKE,
        ["has no column 'stars' (its columns: text, label)"],
    ),
    "no such column in where": (
        lambda w: w.fit("--data.where={source: imdb}"),
        MISTAKE,
        ["has no column 'source'", "data.where"],
    ),
    "where that no row has": (
        lambda w: w.fit("--data.where={label: meh}"),
        MISTAKE,
        ["no row of the split 'train' has label = 'meh'"],
    ),
    "text column of numbers": (
        lambda w: w.fit(w.reviews(lambda f: f.insert(0, "n", range(200)), ".parquet"), "--data.text_column=n"),
        MISTAKE,
        ["the column 'n' of the split 'train' holds no text but int"],
    ),
    "labels neither integer nor string": (
        lambda w: w.fit(
            w.reviews(lambda f: f.insert(0, "half", [i % 5 / 2 for i in range(200)])), "--data.label_column=half"
        ),
        MISTAKE,
        ["the label column 'half' holds numbers such as 0.5", "must be integers (1, not 1.0) or strings"],
    ),
    "a label of its own for each row": (
        lambda w: w.fit(w.reviews(lambda f: f.insert(0, "id", range(200))), "--data.label_column=id"),
        MISTAKE,
        ["the label column 'id' has 200 kinds of label in 200 rows: is it the right column"],
    ),
    "no in YAML": (
        lambda w: w.fit(w.reviews(lambda f: f.insert(0, "lang", "no")), "--data.where={lang: no}"),
        MISTAKE,
        ["data.where: lang is false, which YAML also reads for yes, no, on and off", '{lang: "no"}'],
    ),
    "a stray quote": (
        lambda w: w.fit(f"--data.dataset={w.file('quote.tsv', _STRAY_QUOTE)}"),
        MISTAKE,
        ["quote.tsv, line 3: opens a quote that only line 6 closes"],
    ),
    "missing labels": (
        lambda w: w.fit(w.reviews(lambda f: f.loc.__setitem__((3, "label"), None))),
        MISTAKE,
        ["the label column 'label' has no value in some rows"],
    ),
    "unlabelled rows of the Hub": (
        lambda w: w.fit(_unlabelled(w)),
        MISTAKE,
        ["48 rows for training have a label that is no class", "-1"],
    ),
    "missing texts": (
        lambda w: w.fit(w.reviews(_blank, ".parquet")),
        MISTAKE,
        ["no text in the column 'text' of 3 rows of the split 'train': " + _BLANK_ROWS],
    ),
    "one class": (
        lambda w: w.fit(w.reviews(lambda f: f.insert(0, "one", "pos")), "--data.label_column=one"),
        MISTAKE,
        ["all 48 training rows have the label 'pos'"],
    ),
    "unknown label in test": (
        lambda w: w.fit(_unknown_label_in_test(w)),
        MISTAKE,
        ["24 rows for testing have a label that is no class", "'mixed'"],
    ),
    "no training split": (lambda w: w.fit(_without_train(w)), MISTAKE, ["has no split 'train' (its splits: test)"]),
    "more training rows than there are": (
        lambda w: w.fit("--data.train_size=500"),
        MISTAKE,
        ["data.train_size is 500, but only 192"],
    ),
    "more test rows than there are": (lambda w: w.fit("--data.test_size=500"), MISTAKE, ["data.test_size is 500"]),
    "more validation rows than there are": (lambda w: w.fit("--data.val_size=500"), MISTAKE, ["data.val_size is 500"]),
    "no such validation data": (
        lambda w: w.fit("--data.validation_data=nowhere.csv"),
        MISTAKE,
        ["data.validation_data 'nowhere.csv' does not exist"],
    ),
    "test data on the Hub": (
        lambda w: w.fit("--data.test_data=stanfordnlp/imdb"),
        MISTAKE,
        ["data.test_data 'stanfordnlp/imdb' does not exist", "a file or a folder"],
    ),
    "validation data of several splits": (
        lambda w: w.fit(f"--data.validation_data={_several_splits(w)}"),
        MISTAKE,
        ["several' has the splits train, test, none of them for validation"],
    ),
    "validation data without the column": (
        lambda w: w.fit(f"--data.validation_data={_own(w, lambda f: f.rename(columns={'label': 'y'}, inplace=True))}"),
        MISTAKE,
        ["own.csv' has no column 'label' (its columns: text, y)"],
    ),
    "test data with an unknown label": (
        lambda w: w.fit(f"--data.test_data={_own(w, lambda f: f.__setitem__('label', 'mixed'))}"),
        MISTAKE,
        ["24 rows for testing have a label that is no class", "'mixed'"],
    ),
    "fewer validation data than asked for": (
        lambda w: w.fit(f"--data.validation_data={_own(w)}", "--data.val_size=41"),
        MISTAKE,
        ["data.val_size is 41, but the validation split has 40 rows"],
    ),
    "validation texts that are trained on": (
        lambda w: w.fit(
            f"--data.validation_data={_own(w, lambda f: f.update(synthetic_reviews(40)))}",
            f"--data.dataset={write_reviews(w.here / 'all.csv', synthetic_reviews(40))}",
            "--data.train_size=30",
            "--data.val_size=null",
            "--data.test_size=10",
            "--data.allow_overlap=false",
        ),
        MISTAKE,
        ["30 of the rows for validation are among those for training (row ", "data.allow_overlap=true"],
    ),
    "stratified rows without a label": (
        lambda w: w.fit(_unlabelled(w), "--data.stratify=true"),
        MISTAKE,
        ["200 rows for data.stratify have a label that is no class", "-1"],
    ),
    "stratify that is no yes or no": (lambda w: w.fit("--data.stratify=label"), USAGE, ['"stratify": Expected a']),
    "negative size": (
        lambda w: w.fit("--data.train_size=-1"),
        MISTAKE,
        ["data.train_size is -1; it must be 1 or more"],
    ),
    "negative batch": (lambda w: w.fit("--data.batch_size=0"), MISTAKE, ["data.batch_size is 0; it must be 1 or more"]),
    "negative workers": (lambda w: w.fit("--data.num_workers=-2"), MISTAKE, ["data.num_workers is -2"]),
    "negative seed": (lambda w: w.fit("--data.subset_seed=-1"), MISTAKE, ["data.subset_seed is -1"]),
    "longer than the model takes": (
        lambda w: w.fit("--data.max_length=129"),
        MISTAKE,
        ["data.max_length is 129", "takes at most 128 tokens"],
    ),
    "too short": (lambda w: w.fit("--data.max_length=7"), MISTAKE, ["data.max_length is 7; it must be at least 8"]),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])
