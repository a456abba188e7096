"""The garbage collector is off while modules are imported, and only then."""

import gc
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


def test_what_is_imported_is_never_scanned(module: str) -> None:
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
    # not equal: some of what was frozen may be freed meanwhile
    assert gc.get_freeze_count() < frozen + len(young), "nothing new was imported"
    gc.unfreeze()


def test_the_collector_is_on_again_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), quick_imports():
        __import__("no_such_module")
    assert gc.isenabled()


def test_the_collector_stays_off_if_it_was_off() -> None:
    gc.disable()
    try:
        with quick_imports():
            """Nothing is imported."""
        assert not gc.isenabled()
    finally:
        gc.enable()
