"""A lock refuses a second process, and ends with the first one."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from src.system.errors import UserError
from src.system.locks import exclusive


def _hold(path: Path, held: Any) -> None:
    with exclusive(path, "it"):
        held.set()
        signal.pause()


def test_a_second_process_is_refused_until_the_first_ends_however_it_does(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    path, held = tmp_path / ".lock", context.Event()
    first = context.Process(target=_hold, args=(path, held))
    first.start()
    assert held.wait(60)
    with pytest.raises(UserError, match=rf"^it is being written by process {first.pid} on .+: wait for its end"):
        exclusive(path, "it").__enter__()
    assert first.pid is not None
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    with exclusive(path, "it"):
        assert path.exists()
    assert not path.exists()
