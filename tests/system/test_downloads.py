"""Downloaded files: whole, genuine, and in time."""

import resource
import threading
import time
from pathlib import Path

import pytest
from huggingface_hub import constants, hf_hub_download

from src.system import downloads
from src.system.downloads import fetch, origin
from src.system.errors import UserError
from src.system.hub import Repository, find_repository
from tests.loopback_hub import LoopbackHub, use

_LARGE, _SMALL = "data/weights 1.bin", "config.json"
_CONTENT = {_LARGE: bytes(range(256)) * 600, _SMALL: b'{"size": 1}\n'}


@pytest.fixture
def model(loopback: LoopbackHub, tmp_path: Path) -> Repository:
    """A repository with a large file, which lies on another origin, and a small one."""
    for name, content in _CONTENT.items():
        file = tmp_path / "repository" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    loopback.add("models/someone/model", tmp_path / "repository")
    return find_repository("model", "someone/model", None)


def _is_whole(model: Repository) -> bool:
    folder = fetch(model, list(_CONTENT))
    return {name: (folder / name).read_bytes() for name in _CONTENT} == _CONTENT


def _left_over(model: Repository) -> list[Path]:
    return list((model.folder / "blobs").glob("*.incomplete"))


def test_files_are_downloaded_once(model: Repository, loopback: LoopbackHub) -> None:
    assert origin(model) == "from the cache"
    assert _is_whole(model)
    assert origin(model) == "from the Hub"
    n_asked = len(loopback.asked)
    assert _is_whole(model)
    assert len(loopback.asked) == n_asked


@pytest.mark.parametrize("name", [_LARGE, _SMALL])
def test_damaged_download_is_fetched_again(model: Repository, loopback: LoopbackHub, name: str) -> None:
    loopback.fail("corrupt", f"GET .*{name}", 1)
    assert _is_whole(model)
    assert not loopback.faults[0][2]


@pytest.mark.parametrize("name", [_LARGE, _SMALL])
def test_file_that_always_arrives_damaged_is_named_and_not_kept(
    model: Repository, loopback: LoopbackHub, name: str
) -> None:
    loopback.fail("corrupt", f"GET .*{name}")
    with pytest.raises(UserError, match=f"^{name} of someone/model@.* arrives damaged from http"):
        fetch(model, [name])
    loopback.faults.clear()
    assert _is_whole(model), "the damaged one is still there"


@pytest.mark.parametrize("name", [_LARGE, _SMALL])
def test_file_damaged_in_the_cache_is_found_and_fetched_again(model: Repository, name: str) -> None:
    """By another program, which looks at the length alone; or on the disk."""
    blob = Path(hf_hub_download(model.name, name, revision=model.commit)).resolve()
    blob.write_bytes(b"x" * blob.stat().st_size)
    assert _is_whole(model)
    blob.write_bytes(b"x" * blob.stat().st_size)
    assert _is_whole(model), "it was genuine once"
    blob.unlink()
    assert _is_whole(model), "a link to nothing"


def test_damaged_file_offline_is_one_line(
    model: Repository, loopback: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _is_whole(model)
    blob = (model.folder / "snapshots" / model.commit / _LARGE).resolve()
    blob.write_bytes(b"")
    use(loopback.address, tmp_path / "hf-home", monkeypatch, offline=True)
    with pytest.raises(UserError, match=r"is not in the cache, and the Hub fails \(HF_HUB_OFFLINE=1\)"):
        fetch(find_repository("model", "someone/model", None), [_LARGE])


@pytest.mark.parametrize(
    ("fault", "where", "words"),
    [
        ("404", "HEAD .*weights", r"HTTP 404 as asked for: 404"),
        ("gated", "weights", r"is gated \(HTTP 403 Access to this repository is restricted\): ask for access at http"),
        ("500", "GET .*large", r"HTTP 500 as asked for: 500"),
        ("truncate", "GET .*large", r"Consistency check failed: file should be of size 153600 but has size 76800"),
        (b"<html>", "HEAD .*weights", r"X-Repo-Commit"),
        ("hang", "HEAD .*weights", r"fewer than 4,096 bytes in 0\.6 s"),
        ("hang", "GET .*large", r"fewer than 4,096 bytes in 0\.6 s"),
        ("cut", "GET .*large", r"peer closed connection|incomplete"),
    ],
)
def test_failing_download_says_why(
    model: Repository,
    loopback: LoopbackHub,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str | bytes,
    where: str,
    words: str,
) -> None:
    monkeypatch.setattr(downloads, "STALLED_S", 0.6)
    loopback.fail(fault, where)
    started = time.monotonic()
    with pytest.raises(UserError, match=words):
        fetch(model, [_LARGE])
    assert time.monotonic() - started < 5
    assert not capsys.readouterr().err
    loopback.faults.clear()
    loopback.closing.set()  # what hangs holds the lock of the file, as long as its process lives
    monkeypatch.setattr(downloads, "STALLED_S", 15.0)
    assert _is_whole(model)


def test_cut_download_goes_on_where_it_stopped(model: Repository, loopback: LoopbackHub) -> None:
    loopback.fail("cut", "GET .*large", 1)
    assert _is_whole(model)
    asked = [request.range for request in loopback.asked if request.line.startswith("GET /large")]
    assert asked == [None, "bytes=65536-"], "what had arrived was asked for again"


def test_slow_download_is_waited_for(model: Repository, loopback: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client writes 10 MB at once, which takes minutes on a slow line and would look like a stall."""
    monkeypatch.setattr(downloads, "STALLED_S", 1.8)
    loopback.fail("slow", "GET .*large")
    assert _is_whole(model)


def test_token_does_not_go_where_large_files_lie(
    model: Repository, loopback: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    loopback.token = "hf_secret"
    loopback.asked.clear()
    assert _is_whole(model)
    tokens = {request.host.partition(":")[0]: request.token for request in loopback.asked}
    assert tokens == {"127.0.0.1": "Bearer hf_secret", "localhost": None}


def test_cache_that_cannot_be_written_is_named(model: Repository, tmp_path: Path) -> None:
    home = tmp_path / "hf-home"
    home.mkdir(exist_ok=True)
    (home / "hub").touch()
    with pytest.raises(UserError, match=r"Not a directory|File exists"):
        fetch(model, [_LARGE])


def test_full_disk_is_said(model: Repository) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # as a disk with so much left
    try:
        with pytest.raises(UserError, match=r"^no space left on the device in .*/hf-home/hub for data/weights 1\.bin"):
            fetch(model, [_LARGE])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not _left_over(model)
    assert _is_whole(model)


def test_two_at_once_get_the_same(model: Repository) -> None:
    results: list[bool] = []
    threads = [threading.Thread(target=lambda: results.append(_is_whole(model))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 3


def test_cache_without_links_is_read(model: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_SYMLINKS", True)
    assert _is_whole(model)
    assert not (model.folder / "snapshots" / model.commit / _LARGE).is_symlink()
    assert _is_whole(model)
