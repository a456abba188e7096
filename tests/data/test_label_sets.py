"""Several labels a text: columns of 0 and 1, lists and separated texts are read alike."""

from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pytest
import torch

from src.data.imdb import ImdbDataModule
from src.data.label_sets import set_ids, set_names
from src.system.errors import UserError
from tests.conftest import write_reviews
from tests.synthetic import LABELS, several_labels


def _module(tiny_bert: Path, **options: object) -> ImdbDataModule:
    sizes = {"train_size": None, "val_size": 10, "test_size": 10, "max_length": 64, "group_by_length": False}
    data = ImdbDataModule(tokenizer=str(tiny_bert), **(sizes | options))  # type: ignore[arg-type]
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return several_labels(60)


@pytest.mark.parametrize("form", ["csv", "parquet", "bool", "separator", "jsonl", "json", "parquet lists"])
def test_all_forms_give_the_same_batches(form: str, frame: pd.DataFrame, tiny_bert: Path, tmp_path: Path) -> None:
    sets = [[name for name in LABELS if row[name]] for row in frame.to_dict("records")]
    lists = pd.DataFrame({"text": frame["text"], "label": sets})
    options: dict[str, object] = {}
    if form in ("csv", "parquet", "bool"):
        options["label_column"] = sorted(LABELS)  # the order of the names of the other forms
        table = frame.astype(dict.fromkeys(LABELS, bool)) if form == "bool" else frame
        path = write_reviews(tmp_path / f"reviews.{'jsonl' if form == 'bool' else form}", table)
    elif form == "separator":
        options["label_separator"] = ";"
        lists["label"] = [" ; ".join(each) for each in sets]
        path = write_reviews(tmp_path / "reviews.csv", lists)
    elif form == "json":
        path = tmp_path / "reviews.json"
        lists.to_json(path, orient="records")
    else:
        path = write_reviews(tmp_path / f"reviews.{'parquet' if 'parquet' in form else form}", lists)
    data = _module(tiny_bert, dataset=str(path), **options)
    assert data.problem_type == "multi_label_classification"
    assert data.label_names == sorted(LABELS)
    counts = data.prepared.classes()
    rows = frame.iloc[np.random.default_rng(42).permutation(60)[:40]]
    assert counts == {name: int(rows[name].sum()) for name in sorted(LABELS)}
    assert data.prepared.without_label() == int((rows[list(LABELS)].sum(axis=1) == 0).sum()) > 0
    examples = data.dataset("train")[0], data.dataset("train")[5]
    labels = data.collator("train")(list(examples))["labels"]
    assert torch.equal(labels, torch.tensor(rows[sorted(LABELS)].iloc[[0, 5]].to_numpy()))


def test_a_list_of_class_labels_has_their_names() -> None:
    feature = datasets.List(datasets.ClassLabel(names=["zero", "one", "two"]))
    rows = datasets.Dataset.from_dict({"label": [[2, 0], [], [1]]}, features=datasets.Features({"label": feature}))
    names = set_names(rows, "label", None)
    assert names == ["zero", "one", "two"]
    assert set_ids(rows, "label", None, names, "training") == [[0, 2], [], [1]]


@pytest.mark.parametrize(
    ("values", "separator", "words"),
    [
        ([["a"], ["a"]], None, "has only the label 'a'"),
        ([["a", "b"], None], None, "has no value in some rows"),
        ([["a", "b"], ["a", "a"]], None, "names a label twice in one row"),
        ([[0, 1, 0], [1, 0, 1]], None, "belong in columns of their own"),
        ([[0.5, 1.0]], None, "has 0.5 in a list"),
        ([["a", " "]], None, "has ' ' in a list"),
        ([1, 2], "|", "data.label_separator splits texts"),
        (["a;b", "b"] + [f"{i};x" for i in range(60)], ",", "kinds of label in 62 rows"),
        (["", ""], "|", "has no label"),
    ],
    ids=str,
)
def test_what_are_no_labels_is_refused(values: list[object], separator: str | None, words: str) -> None:
    rows = datasets.Dataset.from_dict({"label": values})
    with pytest.raises(UserError, match=words):
        set_ids(rows, "label", separator, set_names(rows, "label", separator), "training")
