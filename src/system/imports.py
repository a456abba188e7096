"""Faster imports: turns Python's garbage collector off while modules load."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Turns garbage collection off within the block, and afterwards excludes what was imported from it.

    Almost everything that an import creates lives until the process ends, but the collector scans it again and again,
    and once more at exit. Without that, importing torch, Lightning and transformers takes a quarter less CPU time, and
    a process that does nothing else a third less. If all modules are loaded already, nothing changes.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if enabled:
            gc.enable()
