"""Locks for what one process alone may write: a run, an output, prepared data.

They end with their process, however it ends.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from src.system.errors import UserError, why


class HeldError(UserError):
    """Another process holds a lock."""


@contextmanager
def exclusive(path: Path, what: str, *, wait: bool = False) -> Iterator[None]:
    """Holds the lock file `path` within the block, and removes it afterwards.

    Args:
        path: of the lock file, in a folder that exists.
        what: is written, for messages.
        wait: if another process holds the lock, says so on stderr and waits for its end.

    Raises:
        HeldError: another process holds the lock, and `wait` is off (the text says which, and on which machine).
        UserError: it cannot be written.
    """
    lock = FileLock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        owner = path.read_text("utf-8", errors="replace").strip() or "another process"
        held = f"{what} is being written by {owner}"
        if not wait:
            raise HeldError(f"{held}: wait for its end, or stop it") from error
        print(f"{held}: waiting for its end (lock: {path})", file=sys.stderr, flush=True)
        lock.acquire()
    except OSError as error:
        raise UserError(f"{what} cannot be written: {why(error)}: {path}") from error
    try:
        try:
            path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", "utf-8")
        except OSError as error:
            raise UserError(f"{what} cannot be written: {why(error)}: {path}") from error
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
