"""What a person did not mean to happen, and how it is told: one line on stderr and an exit status."""

import errno
import os
import sys
import traceback

EXIT_ERROR = 1
EXIT_USAGE = 2


class UserError(Exception):
    """A mistake in the input or in the surroundings. Its text is the one line that is shown; it says what to do."""


class UsageError(UserError):
    """The command line or a YAML file says something that the parser refuses."""


class Interrupted(BaseException):
    """A signal ended the run at a step's boundary, after the checkpoint was saved.

    A BaseException, as KeyboardInterrupt is one, so that no `except Exception` on the way swallows it.
    """

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.signum = signum


def disk_is_full(error: BaseException | None) -> bool:
    """Whether `error` came of a disk, a quota or a limit on file sizes that is used up, wrapped as it may be."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def one_line(text: object) -> str:
    """Folds the text of an exception, which may have many lines, into one."""
    return " ".join(str(text).split())


def tell(error: BaseException) -> int:
    """Prints `error` as one line on stderr and returns the exit status that belongs to it."""
    if isinstance(error, Interrupted):
        print(one_line(error), file=sys.stderr)
        return 128 + error.signum
    if os.environ.get("SRC_DEBUG") == "1":
        traceback.print_exception(error)
    print(f"error: {one_line(error)}", file=sys.stderr)
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR
