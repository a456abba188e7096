"""User-facing errors: one line on stderr and an exit status."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator

EXIT_ERROR = 1
EXIT_USAGE = 2
_NO_MEMORY = re.compile(
    "[Cc]annot allocate memory|can't allocate memory|not enough memory|failed to map segment|bad_alloc"
    "|failed to allocate|Unable to allocate"
)


class UserError(Exception):
    """An error in the user's input or on the machine. Its text is the one line shown, which says what to do."""


class UsageError(UserError):
    """An error in the command line or a YAML file that the parser refuses."""


class Interrupted(BaseException):
    """A signal ended the command. A training run saves its checkpoint first.

    Like KeyboardInterrupt, it is a BaseException, so that no `except Exception` swallows it.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def os_error_in(error: BaseException) -> OSError | None:
    """The operating system's error that `error` is; for one of a library in Rust, the one that its text ends with."""
    if isinstance(error, OSError):
        return error if error.errno is not None else None
    if isinstance(error, UserError):  # says more
        return None
    number = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(number[1]), os.strerror(int(number[1]))) if number else None


def _os_errors(error: BaseException | None) -> Iterator[OSError]:
    """Those in `error` and in what caused it, since libraries wrap them."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if found := os_error_in(error):
            yield found
        seen.add(id(error))
        error = error.__cause__ or error.__context__


def disk_is_full(error: BaseException | None) -> bool:
    """Whether a full disk, a quota or a file-size limit caused `error`, also if a library wrapped the cause."""
    return any(found.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) for found in _os_errors(error))


def why(error: BaseException) -> str:
    """The reason why a file could not be written, without its name."""
    if disk_is_full(error):
        return "no space left on the device"
    found = next(_os_errors(error), None)
    return (found.strerror if found else None) or one_line(error)


def shortage(error: BaseException) -> str:
    """What the system has too little of, if that caused `error`, and what to do; empty otherwise.

    Libraries give no type to this, and wrap it: a library that could not be loaded is an ImportError.
    """
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        text, number = str(cause), getattr(cause, "errno", None)
        if number in (errno.EMFILE, errno.ENFILE) or "Too many open files" in text:
            return "too many open files: raise the limit (`ulimit -n 4096`), or set --data.num_workers=0"
        if number == errno.EAGAIN or "can't start new thread" in text:
            return f"the system starts no more processes or threads for this user (`ulimit -u`): {one_line(text)}"
        if isinstance(cause, MemoryError) or number == errno.ENOMEM or _NO_MEMORY.search(text):
            return (
                f"out of memory: free some, or raise the limit (`ulimit -v`) ({one_line(text)[:200] or 'MemoryError'})"
            )
        cause = cause.__cause__ or cause.__context__
    return ""


def one_line(text: object) -> str:
    """A text joined into one printable line."""
    return printable(" ".join(str(text).split()))


def printable(text: str) -> str:
    """A text with escapes in place of the characters that a terminal would obey and not show."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def tell(error: UserError | Interrupted | OSError) -> int:
    """Prints `error` as one line on stderr and returns the exit status; SRC_DEBUG=1 adds the traceback.

    Raises:
        OSError: `error` itself, where it is not of the operating system: a library raised it for a reason of its own.
    """
    if isinstance(error, OSError) and error.errno is None:
        raise error
    if isinstance(error, Interrupted):
        print(one_line(error), file=sys.stderr)
        return 128 + error.signum
    if os.environ.get("SRC_DEBUG") == "1":
        traceback.print_exception(error)
    text = one_line(error)
    if isinstance(error, OSError):
        text = f"{why(error)}: {os.fsdecode(error.filename)}" if error.filename else why(error)
    print(f"error: {printable(text)}", file=sys.stderr)
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR
