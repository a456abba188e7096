"""Where reviews come from, and what is said where they cannot be had."""

import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import datasets
import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from src.data.sources import Source, find_source
from src.system import hub
from src.system.errors import UserError
from tests.conftest import write_reviews
from tests.synthetic import synthetic_reviews

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Hub that answers; what it says is up to the test."""
    monkeypatch.setattr(hub, "_probe", lambda _: "")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody answers."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_hub_that_cannot_be_reached_is_one_line_with_a_way_out(
    tmp_path: Path, closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", closed_port)
    with pytest.raises(UserError) as refused:
        find_source("stanfordnlp/imdb", None, tmp_path)
    told = str(refused.value)
    assert told.startswith("the data set 'stanfordnlp/imdb' could not be fetched from the Hub (")
    assert "refused" in told
    assert "`python -m src fit --config configs/quickstart.yaml`" in told
    assert "\n" not in told
    assert not list(tmp_path.iterdir())


def test_offline_says_so_and_asks_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(UserError, match=r"from the Hub \(HF_HUB_OFFLINE=1\); .*configs/quickstart\.yaml"):
        find_source("stanfordnlp/imdb", None, tmp_path)


@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RepositoryNotFoundError, "the Hub has no data set 'someone/reviews', or it is private"),
        (RevisionNotFoundError, "the data set 'someone/reviews' has no revision 'v9'"),
        (TimeoutError, "could not be fetched from the Hub"),
        (RuntimeError, "could not be fetched from the Hub"),
    ],
)
def test_what_the_hub_says_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception], words: str
) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise error.__new__(error)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    with pytest.raises(UserError, match=words):
        find_source("someone/reviews", "v9", tmp_path)


@pytest.mark.usefixtures("online")
def test_revision_is_resolved_to_a_commit_and_read_at_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    branches = {None: COMMIT, "v2": COMMIT[::-1]}
    monkeypatch.setattr(
        huggingface_hub.HfApi,
        "dataset_info",
        lambda *_, revision, **__: SimpleNamespace(sha=branches[revision]),
    )
    read: list[tuple[str, str]] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda repo, revision, **_: read.append((repo, revision)))
    for revision, commit in branches.items():
        source = find_source("someone/reviews", revision, tmp_path)
        assert (source.revision, source.fingerprint) == (commit, f"someone/reviews@{commit}")
        source.read(["text", "label"])
        assert read[-1] == ("someone/reviews", commit)

    # a cache that cannot be written, which a file in place of its folder is, only has it asked for again
    unwritable = tmp_path / "file"
    unwritable.touch()
    assert find_source("someone/reviews", None, unwritable).revision == COMMIT

    # a branch that moved is other data
    branches[None] = "f" * 40
    assert find_source("someone/reviews", None, tmp_path).revision == "f" * 40
    # a full commit is asked of nobody
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **__: pytest.fail("asked the Hub"))
    assert find_source("someone/reviews", COMMIT, tmp_path).revision == COMMIT


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
def test_what_is_not_there_is_named(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        find_source(name, None, tmp_path)
    assert repr(name) in str(refused.value)


def test_file_of_an_unknown_kind_and_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "reviews.xlsx").touch()
    with pytest.raises(UserError, match=r"no file of a known kind \(\.csv, "):
        find_source(str(tmp_path / "reviews.xlsx"), None, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no files of a known kind"):
        find_source(str(tmp_path / "empty"), None, tmp_path)


def test_damaged_file_is_one_line(tmp_path: Path) -> None:
    file = write_reviews(tmp_path / "reviews.parquet", synthetic_reviews(50))
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(UserError) as refused:
        find_source(str(file), None, tmp_path).read(["text", "label"])
    assert str(refused.value).startswith(f"{file} cannot be read as parquet: ")


def test_saved_dataset_dict_is_read(tmp_path: Path) -> None:
    splits = datasets.DatasetDict(
        train=datasets.Dataset.from_pandas(synthetic_reviews(8)),
        test=datasets.Dataset.from_pandas(synthetic_reviews(4)),
    )
    splits.save_to_disk(str(tmp_path / "saved"))
    source = find_source(str(tmp_path / "saved"), None, tmp_path)
    assert isinstance(source, Source)
    assert {name: len(split) for name, split in source.read(["text", "label"]).items()} == {"train": 8, "test": 4}


@pytest.fixture
def silent_port() -> Iterator[str]:
    """An address that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(50)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    "option",
    ["--model.model_name_or_path=someone/bert", f"--data.revision={COMMIT}", "--data.subset_seed=1"],
    ids=["model", "pinned data", "data"],
)
def test_silent_hub_ends_the_command_soon(
    run_cli: Callable[..., tuple[int, str, str]],
    tiny_options: list[str],
    silent_port: str,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
) -> None:
    """The libraries would ask five times, with pauses, for each of several files."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", silent_port)
    monkeypatch.setattr(hub, "HUB_TIMEOUT_S", 0.5)
    started = time.monotonic()
    status, _, err = run_cli("fit", *tiny_options, "--data.dataset=someone/reviews", option)
    assert time.monotonic() - started < 20  # once the time-out, and what the machine needs
    assert status == 1
    assert len(err.splitlines()) == 1
    assert "could not be fetched from the Hub (timed out); without the Hub, `python -m src fit --config " in err
    assert not Path("lightning_logs").exists()
