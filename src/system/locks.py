"""Locks for what one process alone may write: a run, an output. They end with the process, however it ends."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from src.system.errors import UserError


@contextmanager
def exclusive(path: Path, what: str) -> Iterator[None]:
    """Holds the lock file `path` within the block, and removes it afterwards.

    Args:
        path: of the lock file, in a folder that exists.
        what: is written, for the error's text.

    Raises:
        UserError: another process holds it; the text says which, and on which machine.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        owner = path.read_text("utf-8", errors="replace").strip() or "another process"
        raise UserError(f"{what} is being written by {owner}: wait for its end, or stop it") from error
    try:
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", "utf-8")
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
