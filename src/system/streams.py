"""Standard streams that can always be printed to: closed, full, read by nobody, or unable to show a character."""

import errno
import io
import os
import sys
from typing import Any

# nobody wants to read what cannot be written for these reasons: `>&-`, `| head -1`
_UNREAD = (errno.EBADF, errno.EPIPE)


class _Stream(io.FileIO):
    """A standard stream whose writes never fail: after the first error it goes to /dev/null, in child processes too."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            _open_null(self.fileno(), os.O_WRONLY)
            return memoryview(data).nbytes


class Streams:
    """Replaces `sys.stdout` and `sys.stderr`, so that no command ends because it could not print.

    A character that the stream's encoding lacks is printed as its escape.
    """

    def __init__(self) -> None:
        # Otherwise the next files opened would get these numbers, and what libraries print would be written into them.
        # To write to a stream that may only be read fails with the error of a closed one, and the other way round.
        for number, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
            if _is_closed(number):
                _open_null(number, mode)
        sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
        self._out, self._err = _Stream(1, "w", closefd=False), _Stream(2, "w", closefd=False)
        sys.stdout, sys.stderr = _text(self._out, sys.stdout), _text(self._err, sys.stderr)

    def lost(self) -> str:
        """Why standard output could not be written, if anybody wanted to read it; empty if it was."""
        sys.stdout.flush()
        error = self._out.error
        return os.strerror(error.errno or 0) if error and error.errno not in _UNREAD else ""


def _text(stream: _Stream, before: io.TextIOBase | Any) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(stream),
        encoding=before.encoding if before else None,
        errors="backslashreplace",
        line_buffering=stream.fileno() == 2 or stream.isatty(),
    )


def _is_closed(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return True
    return False


def _open_null(number: int, mode: int) -> None:
    null = os.open(os.devnull, mode)
    if null != number:
        os.dup2(null, number)
        os.close(null)
