"""User-facing errors: one line on stderr and an exit status."""

import errno
import os
import re
import sys
import traceback
from collections.abc import Iterator

EXIT_ERROR = 1
EXIT_USAGE = 2


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


def one_line(text: object) -> str:
    """The text of an exception, joined into one line."""
    return " ".join(str(text).split())


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
    print(f"error: {text}", file=sys.stderr)
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR
