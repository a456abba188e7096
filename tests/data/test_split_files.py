"""Which files of a data set belong to which split."""

import pytest

from src.data.split_files import find_split_files
from src.system.errors import UserError


def _found(*files: str, readme: str = "", config_name: str | None = None) -> dict[str, list[str]]:
    return find_split_files(files, readme, config_name, "someone/reviews")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train.csv", "test.csv"], {"train": ["train.csv"], "test": ["test.csv"]}),
        (
            ["train.csv", "dev.csv", "eval.csv"],
            {"train": ["train.csv"], "validation": ["dev.csv"], "test": ["eval.csv"]},
        ),
        (["train.CSV", "test.csv.gz"], {"train": ["train.CSV"], "test": ["test.csv.gz"]}),
        (
            [
                "data/train-00000-of-00002.parquet",
                "data/train-00001-of-00002.parquet",
                "data/extra-00000-of-00001.parquet",
            ],
            {
                "train": ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"],
                "extra": ["data/extra-00000-of-00001.parquet"],
            },
        ),
        (
            ["train/a.csv", "train/b.csv", "test/c.csv"],
            {"train": ["train/a.csv", "train/b.csv"], "test": ["test/c.csv"]},
        ),
        (["my_train_rows.jsonl", "latest.jsonl"], {"train": ["my_train_rows.jsonl"]}),
        (["reviews[1].csv", "data/b.csv"], {"train": ["data/b.csv", "reviews[1].csv"]}),
        # the plainest name counts: a prediction for the test rows is no second test split
        (["train.csv", "test.csv", "test_predictions.csv"], {"train": ["train.csv"], "test": ["test.csv"]}),
        (
            [
                "train.csv",
                ".train.csv.tmp",
                ".git/train.csv",
                "lightning_logs/version_0/test.json",
                "__pycache__/test.csv",
            ],
            {"train": ["train.csv"]},
        ),
        (["train.csv", "README.md", "LICENSE.txt", "test.txt"], {"train": ["train.csv"]}),
    ],
    ids=lambda value: ", ".join(value) if isinstance(value, list) else "",
)
def test_names_tell_the_split(names: list[str], splits: dict[str, list[str]]) -> None:
    assert _found(*names) == splits


def test_many_shards_of_a_split_are_one() -> None:
    n = 100
    names = [f"data/train-{i:05}-of-{n:05}.parquet" for i in range(n)]
    assert _found(*reversed(names), "data/test-00000-of-00001.parquet") == {
        "train": names,
        "test": ["data/test-00000-of-00001.parquet"],
    }
    assert _found(*names, readme=_readme("- config_name: a\n  data_files: data/train-*")) == {"train": names}


def test_several_kinds_in_a_split_and_none_at_all_are_refused() -> None:
    with pytest.raises(UserError, match="'someone/reviews' has no file of a known kind"):
        _found("notes.md")
    with pytest.raises(UserError, match=r"files of several kinds: train\.csv, train\.parquet"):
        _found("train.csv", "train.parquet")


def _readme(configs: str) -> str:
    return f"---\nconfigs:\n{configs}\n---\n# Reviews\n"


def test_readme_tells_the_files_of_a_configuration() -> None:
    readme = _readme(
        "- config_name: de\n  data_files:\n  - split: train\n    path: [de/a*.csv, de/x.csv]\n"
        "- config_name: en\n  data_files: en.csv\n- config_name: fr\n  data_dir: fr",
    )
    names = ["de/a1.csv", "de/a2.csv", "de/x.csv", "en.csv", "fr/train.csv", "train.csv"]
    for name in (None, "it"):
        with pytest.raises(UserError, match=r"configurations de, en, fr: data\.config_name names one"):
            _found(*names, readme=readme, config_name=name)
    for name, files in {"de": names[:3], "en": ["en.csv"], "fr": ["fr/train.csv"]}.items():
        assert _found(*names, readme=readme, config_name=name) == {"train": files}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("https://example.org/train.csv", "only files inside it are read"),
        ("zip://train.csv::reviews.zip", "only files inside it are read"),
        ("../train.csv", "only files inside it are read"),
        ("/etc/train.csv", "only files inside it are read"),
        ("gone.csv", "there is no such file"),
        (".hidden/*.csv", "there is no such file"),
    ],
)
def test_readme_of_a_stranger_leads_nowhere_else(path: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        _found(".hidden/train.csv", readme=_readme(f"- config_name: default\n  data_files: '{path}'"))


@pytest.mark.parametrize(
    "configs",
    [
        "[{",
        "- 5",
        "- config_name: a\n  data_files: 5",
        "- config_name: a\n  data_files: [5]",
        "- config_name: a\n  data_files: {train: 5}",
        "- config_name: a\n  data_files: [{split: train}]",
        "- config_name: a\n  data_files: [{path: train.csv}]",
        "- config_name: a\n  data_files: [{split: train, path: {a: b}}]",
        "- config_name: a\n  data_files:\n  - split: ../../x\n    path: train.csv",
    ],
)
def test_damaged_readme_is_one_line(configs: str) -> None:
    with pytest.raises(UserError, match=r"README\.md of the data set 'someone/reviews' "):
        _found("train.csv", readme=_readme(configs))
