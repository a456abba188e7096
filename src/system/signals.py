"""SIGINT and SIGTERM where no step must be finished first: they end at once, by an exception."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from src.system.errors import Interrupted


def end_by_signals_at_once() -> None:
    """Lets SIGINT and SIGTERM end the process as they do by default.

    For a run over several nodes, which first waits for the others: in C++, where no handler of Python is called.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Raises Interrupted where a signal comes within the block; puts the old handlers back after it."""

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        raise Interrupted(signum, f"stopped by {signal.Signals(signum).name}")

    before = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
