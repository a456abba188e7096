"""Which files of a local data set belong to which split."""

from pathlib import Path

import pytest

from src.data.split_files import find_split_files
from src.system.errors import UserError


def _found(folder: Path, *names: str, config_name: str | None = None) -> dict[str, list[str]]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    found = find_split_files(folder, config_name)
    return {split: [str(file.relative_to(folder)) for file in files] for split, files in found.items()}


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
def test_names_tell_the_split(tmp_path: Path, names: list[str], splits: dict[str, list[str]]) -> None:
    assert _found(tmp_path, *names) == splits


def test_several_kinds_in_a_split_and_none_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no files of a known kind"):
        _found(tmp_path, "notes.md")
    with pytest.raises(UserError, match=r"files of several kinds: train\.csv, train\.parquet"):
        _found(tmp_path, "train.csv", "train.parquet")


def _readme(folder: Path, configs: str) -> None:
    (folder / "README.md").write_text(f"---\nconfigs:\n{configs}\n---\n# Reviews\n")


def test_readme_tells_the_files_of_a_configuration(tmp_path: Path) -> None:
    _readme(
        tmp_path,
        "- config_name: de\n  data_files:\n  - split: train\n    path: [de/a*.csv, de/x.csv]\n"
        "- config_name: en\n  data_files: en.csv\n- config_name: fr\n  data_dir: fr",
    )
    names = ["de/a1.csv", "de/a2.csv", "de/x.csv", "en.csv", "fr/train.csv", "train.csv"]
    with pytest.raises(UserError, match=r"configurations de, en, fr: data\.config_name names one"):
        _found(tmp_path, *names)
    with pytest.raises(UserError, match=r"configurations de, en, fr: data\.config_name names one"):
        _found(tmp_path, config_name="it")
    assert _found(tmp_path, config_name="de") == {"train": ["de/a1.csv", "de/a2.csv", "de/x.csv"]}
    assert _found(tmp_path, config_name="en") == {"train": ["en.csv"]}
    assert _found(tmp_path, config_name="fr") == {"train": ["fr/train.csv"]}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("https://example.org/train.csv", "only files inside the folder are read"),
        ("zip://train.csv::reviews.zip", "only files inside the folder are read"),
        ("../train.csv", "only files inside the folder are read"),
        ("/etc/train.csv", "only files inside the folder are read"),
        ("gone.csv", "the folder has no such file"),
        (".hidden/*.csv", "the folder has no such file"),
    ],
)
def test_readme_of_a_stranger_leads_nowhere_else(tmp_path: Path, path: str, words: str) -> None:
    _readme(tmp_path, f"- config_name: default\n  data_files: '{path}'")
    with pytest.raises(UserError, match=words):
        _found(tmp_path, ".hidden/train.csv")


def test_damaged_readme_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("---\nconfigs: [{\n---\n")
    with pytest.raises(UserError, match=r"the metadata of .* cannot be read"):
        _found(tmp_path, "train.csv")
    _readme(tmp_path, "- 5")
    with pytest.raises(UserError, match=r"the metadata of .* cannot be read"):
        _found(tmp_path)
    _readme(tmp_path, "- config_name: a\n  data_files:\n  - split: ../../x\n    path: train.csv")
    with pytest.raises(UserError, match="which is no name"):
        _found(tmp_path)
