"""Checkpoint files are written whole, or not at all."""

from pathlib import Path

import pytest

from src.runs.checkpoint_writing import DurableCheckpointIO
from src.system.errors import Interrupted


class _Signal:
    """Stands in a checkpoint where a signal comes while it is written."""

    def __reduce__(self) -> tuple[type, tuple[str]]:
        raise Interrupted(15, "stopped")


def test_an_interrupted_checkpoint_leaves_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "last.ckpt"
    DurableCheckpointIO().save_checkpoint({"state_dict": {}}, target)
    before = target.read_bytes()
    with pytest.raises(Interrupted):
        DurableCheckpointIO().save_checkpoint({"state_dict": {}, "more": _Signal()}, target)
    assert list(tmp_path.iterdir()) == [target]
    assert target.read_bytes() == before
