"""What the system lacks is one line; what a terminal would obey is shown as an escape."""

import errno

import pytest

from src.system.errors import one_line, shortage


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "out of memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "out of memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried …"), "out of memory"),
        (OSError(errno.EMFILE, "Too many open files"), "ulimit -n"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "ulimit -u"),
    ],
)
def test_shortage_is_found_where_a_library_wraps_it(error: Exception, words: str) -> None:
    assert words in shortage(error)
    wrapped = RuntimeError("Could not import module")
    wrapped.__cause__ = error
    assert words in shortage(wrapped)


def test_a_bug_is_no_shortage() -> None:
    assert shortage(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) == ""


def test_a_terminal_is_told_nothing() -> None:
    assert one_line("a\x1b[31m\nb \u202e c\udcff") == r"a\x1b[31m b \u202e c\udcff"
    assert one_line("négatif 긍정 – ok") == "négatif 긍정 – ok"
