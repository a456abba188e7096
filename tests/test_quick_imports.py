"""The garbage collector stands still while modules are imported, and only then."""

import gc

import pytest

from src.quick_imports import quick_imports


def test_what_is_imported_is_not_looked_at_again() -> None:
    before = gc.get_freeze_count()
    with quick_imports():
        assert not gc.isenabled()
        kept = [[] for _ in range(1000)]
    assert gc.isenabled()
    assert gc.get_freeze_count() >= before + len(kept)
    gc.unfreeze()


def test_it_goes_on_after_an_import_that_fails() -> None:
    with pytest.raises(ImportError), quick_imports():
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()
    gc.unfreeze()
