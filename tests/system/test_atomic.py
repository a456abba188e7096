"""Atomic writes: complete or as before, and nothing left beside the target."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from src.system.atomic import atomic_write, remove_unfinished
from src.system.errors import Interrupted

_ROOT = Path(__file__).parents[2]


@pytest.fixture
def small_files_only() -> Iterator[None]:
    """A limit of 1,000 bytes on the size of a file, which the system reports as it does a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_replaces_the_one_before(tmp_path: Path) -> None:
    target = tmp_path / "file.json"
    for content in ("old", "new"):
        with atomic_write(target) as path:
            path.write_text(content)
            assert path.parent == tmp_path
            assert target.exists() == (content == "new"), "the target changed before the end"
    assert target.read_text() == "new"
    assert _names(tmp_path) == ["file.json"]


def test_a_folder_appears_complete(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    with atomic_write(target) as path:
        (path / "below").mkdir(parents=True)
        (path / "below" / "file").write_text("whole")
        assert not target.exists()
    assert (target / "below" / "file").read_text() == "whole"
    assert _names(tmp_path) == ["folder"]


def test_a_folder_does_not_replace_one_with_content(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "mine").touch()
    with pytest.raises(OSError, match="not empty"), atomic_write(target) as path:
        path.mkdir()
    assert _names(tmp_path) == ["folder"]
    assert _names(target) == ["mine"]


def _write_and_fail(target: Path, as_folder: bool, error: BaseException) -> None:
    with atomic_write(target) as path:
        if as_folder:
            path.mkdir()
        (path / "file" if as_folder else path).write_text("new")
        raise error


@pytest.mark.parametrize("as_folder", [False, True])
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), Interrupted(signal.SIGTERM, "stopped")])
def test_an_exception_or_a_signal_leaves_what_was_there(tmp_path: Path, error: BaseException, as_folder: bool) -> None:
    target = tmp_path / "target"
    target.write_text("old")
    with pytest.raises(type(error)):
        _write_and_fail(target, as_folder, error)
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["target"]


@pytest.mark.usefixtures("small_files_only")
def test_a_full_disk_is_an_os_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(OSError, match="too large") as caught, atomic_write(target) as path:
        path.write_bytes(bytes(2000))
    assert caught.value.errno == errno.EFBIG
    assert target.read_text() == "old"
    assert _names(tmp_path) == ["file"]


def test_content_reaches_the_disk_before_the_rename_and_the_rename_before_the_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Recorded from the calls, since a test cannot cut the power."""
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def record_fsync(descriptor: int) -> None:
        calls.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.split(".tmp")[0])
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        calls.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", record_replace)
    with atomic_write(tmp_path / "folder") as path:
        path.mkdir()
        (path / "file").touch()
    assert calls[:1] + calls[2:] == ["file", "rename", tmp_path.name]
    assert calls[1].startswith(".folder.")


def test_a_folder_whose_rename_may_be_lost_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def fail_at_parent(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path:
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fail_at_parent)
    with pytest.raises(OSError, match="folder") as caught, atomic_write(tmp_path / "folder") as path:
        path.mkdir()
    assert caught.value.filename == str(tmp_path / "folder"), "not the hidden name"
    assert _names(tmp_path) == []


def test_an_error_that_a_library_in_rust_tells_as_text_is_an_os_error(tmp_path: Path) -> None:
    tokenizer = Tokenizer(WordLevel({"a": 0}))
    with pytest.raises(OSError, match="No such file") as caught, atomic_write(tmp_path / "folder") as path:
        tokenizer.save(str(path / "tokenizer.json"))
    assert caught.value.errno == errno.ENOENT
    assert _names(tmp_path) == []


def test_what_a_kill_leaves_is_found_by_the_name_of_its_target(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom src.system.atomic import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as path:\n"
        "    path.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    target = tmp_path / "a [1].ckpt"
    target.write_text("old")
    for _ in range(2):
        subprocess.run([sys.executable, "-c", program, str(target)], cwd=_ROOT, check=False)
    (tmp_path / ".b.ckpt.0.tmp").touch()
    assert len(_names(tmp_path)) == 4
    remove_unfinished(target)
    assert _names(tmp_path) == [".b.ckpt.0.tmp", "a [1].ckpt"]
    assert target.read_text() == "old"
