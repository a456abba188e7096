"""A lock refuses a second process, or has it wait, and ends with the first one."""

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from src.system.errors import UserError
from src.system.locks import exclusive


def _hold(path: Path, held: Any) -> None:
    with exclusive(path, "it"):
        held.set()
        signal.pause()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture
def holder(path: Path) -> Iterator[multiprocessing.process.BaseProcess]:
    """A process that holds the lock until it is killed."""
    context = multiprocessing.get_context("spawn")
    held = context.Event()
    process = context.Process(target=_hold, args=(path, held))
    process.start()
    try:
        assert held.wait(60)
        yield process
    finally:
        process.kill()
        process.join()


def test_a_second_process_is_refused_until_the_first_ends_however_it_does(path: Path, holder: Any) -> None:
    with pytest.raises(UserError, match=rf"^it is being written by process {holder.pid} on .+: wait for its end"):
        exclusive(path, "it").__enter__()
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    with exclusive(path, "it"):
        assert path.exists()
    assert not path.exists()


def test_who_waits_says_at_once_for_whom_and_goes_on_when_the_lock_is_free(path: Path, holder: Any) -> None:
    code = f"""
from pathlib import Path
from src.system.locks import exclusive
with exclusive(Path({str(path)!r}), "it", wait=True):
    print("held")
"""
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], **options) as waiting:
        owner = f"process {holder.pid} on {socket.gethostname()}"
        line = f"it is being written by {owner}: waiting for its end (lock: {path})\n"
        assert waiting.stderr.readline() == line
        os.kill(holder.pid, signal.SIGKILL)
        assert waiting.communicate(timeout=60) == ("held\n", "")
    assert not path.exists()
