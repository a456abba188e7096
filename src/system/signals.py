"""Signal handlers for SIGINT and SIGTERM that end the process at once, outside of training steps."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from src.system.errors import Interrupted


def end_by_signals_at_once() -> None:
    """Restores the default action of SIGINT and SIGTERM, which ends the process.

    A run on several nodes waits for the other nodes in C++ first, where Python handlers are not called.
    """
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signal.SIG_DFL)


@contextmanager
def interrupted_by_signals() -> Iterator[None]:
    """Raises Interrupted on SIGINT or SIGTERM within the block, and restores the previous handlers after it."""

    def interrupt(signum: int, _frame: FrameType | None) -> None:
        raise Interrupted(signum, f"stopped by {signal.Signals(signum).name}")

    before = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
