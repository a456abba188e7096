"""The garbage collector stands still while modules are imported, and only then; scipy.signal is left out."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest

from src.system.imports import quick_imports


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that is not imported yet and makes a thousand lists."""
    (tmp_path / "thousand_lists.py").write_text("lists = [[] for _ in range(1000)]\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "thousand_lists", raising=False)
    return "thousand_lists"


def test_what_is_imported_is_not_looked_at_again(module: str) -> None:
    before = gc.get_freeze_count()
    with quick_imports():
        assert not gc.isenabled()
        __import__(module)
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    assert frozen >= before + 1000
    young: list[list[int]] = [[] for _ in range(1000)]
    with quick_imports():
        __import__(module)
    # no equality: what was frozen may be freed meanwhile
    assert gc.get_freeze_count() < frozen + len(young), "nothing new was imported"
    gc.unfreeze()


def test_it_goes_on_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), quick_imports():
        __import__("no_such_module")
    assert gc.isenabled()


def test_it_stays_off_where_it_was_off() -> None:
    gc.disable()
    try:
        with quick_imports():
            """Nothing is imported."""
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_torchmetrics_does_without_scipy_signal_and_whoever_needs_it_has_it() -> None:
    pytest.importorskip("scipy")
    program = """
import sys
from src.system.imports import quick_imports
with quick_imports():
    import torchmetrics
assert "scipy.signal" not in sys.modules and "scipy.stats" not in sys.modules
import scipy.signal
assert len(scipy.signal.windows.hamming(4)) == 4
import scipy
assert scipy.signal is sys.modules["scipy.signal"]
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_module_that_needs_scipy_signal_at_its_import_has_it() -> None:
    pytest.importorskip("scipy")
    program = """
from src.system.imports import quick_imports
with quick_imports():
    import scipy.signal
    from scipy.signal import lfilter
    import scipy.signal.windows
    assert lfilter([1], [1], [2.0]) == [2.0] and len(scipy.signal.windows.hamming(4)) == 4
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_scipy_signal_that_is_there_already_stays() -> None:
    signal = pytest.importorskip("scipy.signal")
    with quick_imports():
        assert sys.modules["scipy.signal"] is signal
    assert sys.modules["scipy.signal"] is signal
