"""Handlers of SIGINT and SIGTERM outside of training steps, and the end of a rank whose launcher has died."""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from src.system.errors import Interrupted

_LAUNCHER = "BERT_IMDB_LAUNCHER"
_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def end_with_a_line() -> None:
    """Makes SIGINT and SIGTERM end the process at once with one line: nothing has begun that must be saved."""
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, _end)


def _end(signum: int, _frame: FrameType | None) -> None:
    say(f"stopped by {signal.Signals(signum).name}")
    os._exit(128 + signum)


def say(line: str) -> None:
    """Writes a line to standard error from within a signal handler, which may have interrupted a `print`."""
    with suppress(OSError):
        os.write(2, f"{line}\n".encode())


def end_with_launcher() -> None:
    """Ends this process when that of rank 0, which has started it for another rank, has died, however that was.

    Lightning only ends the other ranks if one of them fails. If rank 0 is killed, they would wait for it.
    """
    launcher = os.environ.get(_LAUNCHER)
    if launcher is None or not os.environ.get("LOCAL_RANK"):
        os.environ[_LAUNCHER] = str(os.getpid())
        return
    if sys.platform == "linux":
        # SIGKILL, since a rank that waits for another does so in C++, where Python's handlers are not called
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(launcher):
        sys.exit(f"error: rank 0 (process {launcher}) has ended already")


def end_by_signals_at_once() -> None:
    """Restores the default action of SIGINT and SIGTERM, which ends the process.

    A run on several nodes waits for the other nodes in C++ first, where Python handlers are not called.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Raises Interrupted on SIGINT or SIGTERM within the block, and restores the previous handlers after it.

    While a module is imported, the process ends at once: libraries catch whatever is raised there.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        if any(f.f_code.co_filename.startswith("<frozen importlib") for f, _ in traceback.walk_stack(frame)):
            _end(signum, frame)
        raise Interrupted(signum, f"stopped by {signal.Signals(signum).name}")

    before = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
