"""Where reviews come from, and what is said where they cannot be had."""

from pathlib import Path

import datasets
import pytest
from huggingface_hub import hf_hub_download

from src.data.sources import Source, find_source
from src.system.errors import UserError
from tests.conftest import write_reviews
from tests.loopback_hub import LoopbackHub, use
from tests.synthetic import synthetic_reviews

_COLUMNS = ["text", "label"]


@pytest.fixture
def reviews(loopback: LoopbackHub, tmp_path: Path) -> Path:
    """The folder of someone/reviews on the Hub, with splits in files of several kinds."""
    folder = tmp_path / "reviews"
    (folder / "data dir").mkdir(parents=True)
    frame = synthetic_reviews(60)
    for i in range(3):
        frame[i::3].to_parquet(folder / "data dir" / f"train-0000{i}-of-00003.parquet", index=False)
    frame[:20].to_csv(folder / "test.csv.gz", index=False)
    synthetic_reviews(10).to_json(folder / "extra-00000-of-00001.jsonl", orient="records", lines=True)
    loopback.add("datasets/someone/reviews", folder)
    return folder


def _files_asked(loopback: LoopbackHub) -> set[str]:
    return {request.line.rpartition("/")[2] for request in loopback.asked if "/resolve/" in request.line}


@pytest.mark.usefixtures("reviews")
def test_only_the_splits_that_are_used_are_downloaded(loopback: LoopbackHub) -> None:
    source = find_source("someone/reviews", None)
    assert source.splits() == ["train", "test", "extra"]
    assert not _files_asked(loopback)
    rows = source.read(_COLUMNS, ["train"])
    frame = synthetic_reviews(60)
    assert rows["train"]["text"][:] == [text for i in range(3) for text in frame["text"][i::3]]
    assert _files_asked(loopback) == {f"train-0000{i}-of-00003.parquet" for i in range(3)}
    assert source.read(_COLUMNS, ["test", "no such"])["test"]["label"][:] == list(frame["label"][:20])
    assert "extra-00000-of-00001.jsonl" not in _files_asked(loopback)


def test_each_revision_has_rows_of_its_own(
    loopback: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`datasets` takes the newest cached revision in place of one that it cannot get."""
    for seed, commit in enumerate(("a" * 40, "b" * 40)):
        (tmp_path / commit).mkdir()
        write_reviews(tmp_path / commit / "train.csv", synthetic_reviews(20, seed))
        loopback.add("datasets/someone/reviews", tmp_path / commit, commit)

    def texts(revision: str | None) -> list[str]:
        use(loopback.address, tmp_path / "hf-home", monkeypatch)
        found: list[str] = find_source("someone/reviews", revision).read(_COLUMNS, ["train"])["train"]["text"][:]
        return found

    assert texts("a" * 40) == list(synthetic_reviews(20, 0)["text"])
    for fault in ("500", "gated", "404", "drop"):
        loopback.fail(fault)
        for revision in (None, "main", "b" * 40, "v2"):
            with pytest.raises(UserError):
                texts(revision)
        assert texts("a" * 40) == list(synthetic_reviews(20, 0)["text"])
    loopback.faults.clear()
    assert texts(None) == texts("b" * 40) == list(synthetic_reviews(20, 1)["text"])


def test_rows_of_an_incomplete_cache_are_not_taken_for_those_of_the_whole_data_set(
    loopback: LoopbackHub, reviews: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another program has cached no test split, other rows are for testing."""
    for file in ("data dir/train-00000-of-00003.parquet", "extra-00000-of-00001.jsonl"):
        hf_hub_download("someone/reviews", file, repo_type="dataset")
    use(loopback.address, tmp_path / "hf-home", monkeypatch, offline=True)
    partial = find_source("someone/reviews", None)
    assert partial.splits() == ["train", "extra"]
    use(loopback.address, tmp_path / "hf-home", monkeypatch)
    assert find_source("someone/reviews", None).fingerprint != partial.fingerprint
    assert find_source("someone/reviews", None).fingerprint == f"someone/reviews@{loopback.add('x', reviews)}"


def test_configuration_of_the_readme_is_read(loopback: LoopbackHub, reviews: Path) -> None:
    configs = "- config_name: a\n  data_files: [{split: train, path: te*}]"
    (reviews / "README.md").write_text(f"---\nconfigs:\n{configs}\n---\n")
    assert find_source("someone/reviews", None, "a").files == {"train": ["test.csv.gz"]}
    with pytest.raises(UserError, match=r"has the configurations a: data\.config_name names one"):
        find_source("someone/reviews", None, "b")
    loopback.fail("corrupt", "README")
    loopback.add("datasets/someone/reviews", reviews, "c" * 40)
    (reviews / "README.md").write_text("another one")
    with pytest.raises(UserError, match=r"README\.md of someone/reviews@ccccccc arrives damaged"):
        find_source("someone/reviews", "c" * 40)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere", "does not exist"),
        ("/nowhere/at/all", "does not exist"),
        ("nowhere/reviews.csv", "does not exist"),
        ("~/nowhere-at-all", "does not exist"),
        ("a/b/c", "does not exist"),
        ("package://no_such_package/reviews.csv", "the Python package 'no_such_package' is not installed"),
        ("package://no.such/reviews.csv", "is not installed"),
        ("package://json/reviews.csv", "the package 'json' holds no 'reviews.csv'"),
    ],
)
def test_what_is_not_there_is_named(name: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        find_source(name, None)
    assert repr(name) in str(refused.value)


def test_file_of_an_unknown_kind_and_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "reviews.xlsx").touch()
    with pytest.raises(UserError, match=r"no file of a known kind \(\.csv, "):
        find_source(str(tmp_path / "reviews.xlsx"), None)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no file of a known kind"):
        find_source(str(tmp_path / "empty"), None)


def test_damaged_file_is_one_line(tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "reviews.parquet", synthetic_reviews(50))
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError) as refused:
        find_source(str(file), None).read(_COLUMNS, ["train", "test"])
    assert str(refused.value).startswith(f"{file} cannot be read as parquet: ")


def test_saved_dataset_dict_is_read(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(
        train=datasets.Dataset.from_pandas(synthetic_reviews(8)),
        test=datasets.Dataset.from_pandas(synthetic_reviews(4)),
    )
    saved.save_to_disk(str(tmp_path / "saved"))
    source = find_source(str(tmp_path / "saved"), None)
    assert isinstance(source, Source)
    assert {name: len(split) for name, split in source.read(_COLUMNS, ["train", "test"]).items()} == {
        "train": 8,
        "test": 4,
    }
