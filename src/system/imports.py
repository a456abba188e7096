"""Imports without the garbage collector, and without a library that nothing here uses."""

import gc
import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_SCIPY_SIGNAL = "scipy.signal"


@contextmanager
def quick_imports() -> Iterator[None]:
    """Within it, imports take about three quarters of their time (2 cores, 4,500 modules of torch, lightning, …).

    Nearly all that modules make at their import lives as long as the process, but as it grows, CPython's collector
    looks through it again and again. Here it looks at none of that, now or later in the run: what little of it is
    garbage stays. Where all modules are there already, nothing changes.
    """
    enabled, before = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        with _no_scipy_signal():
            yield
    finally:
        if len(sys.modules) > before:
            gc.freeze()
        if enabled:
            gc.enable()


@contextmanager
def _no_scipy_signal() -> Iterator[None]:
    """torchmetrics imports scipy.signal, 200 modules, to give it a name that another library's tests look for.

    https://github.com/Lightning-AI/torchmetrics/pull/3459 takes that out. Until then it finds a module that has the
    name; who imports scipy.signal afterwards, or asks this one for anything else, gets the real one.
    """
    if _SCIPY_SIGNAL in sys.modules:
        yield
        return
    stand_in = _StandIn(_SCIPY_SIGNAL)
    sys.modules[_SCIPY_SIGNAL] = stand_in
    try:
        yield
    finally:
        stand_in.make_way()


class _StandIn(ModuleType):
    hamming = None

    def make_way(self) -> None:
        if sys.modules.get(_SCIPY_SIGNAL) is self:
            del sys.modules[_SCIPY_SIGNAL]

    def __getattr__(self, name: str) -> Any:
        if name == "__file__":  # `inspect` asks all modules
            raise AttributeError(name)
        self.make_way()
        try:
            return getattr(importlib.import_module(_SCIPY_SIGNAL), name)
        except ImportError as error:
            raise AttributeError(name) from error
