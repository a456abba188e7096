"""Atomic, durable writes of files and folders: write beside the target, fsync, rename."""

import glob
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from src.system.errors import os_error_in


@contextmanager
def atomic_write(target: Path) -> Iterator[Path]:
    """Yields a path beside `target` at which to write a file or make a folder; it becomes `target` at the end.

    Whatever happens (an exception, a signal, a kill, a full disk, a power failure), `target` is what it was before or
    the complete new content: the content reaches the disk before the rename, and the rename before the return.
    A file replaces the file that was there; a folder replaces nothing but an empty folder. After an exception nothing
    is left beside `target`. A kill leaves a hidden `.NAME.*.tmp`, which `remove_unfinished` deletes.
    If the rename itself cannot be brought to the disk, a folder is taken back; of a file the new content stays.

    Args:
        target: in a folder that exists.

    Raises:
        OSError: `target` cannot be written; the error names it.
    """
    unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield unfinished
        for path in (*unfinished.rglob("*"), unfinished) if unfinished.is_dir() else (unfinished,):
            _sync(path)
        os.replace(unfinished, target)
        try:
            _sync(target.parent)
        except OSError:
            if target.is_dir():
                os.replace(target, unfinished)
            raise
    except Exception as error:
        if found := os_error_in(error):
            # without a name (as from write) or with that of the unfinished file, which says nothing to a user
            if found.filename is None or unfinished.name in os.fsdecode(found.filename):
                found.filename, found.filename2 = str(target), None
            if found is not error:
                raise found from error
        raise
    finally:
        _remove(unfinished)


def remove_unfinished(target: Path) -> None:
    """Deletes what killed writers of `target` left beside it; only for a caller that knows no other is writing it."""
    for leftover in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        _remove(leftover)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
