"""Writes checkpoint files atomically."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from src.runs.checkpoint_reading import Checkpoint, read_checkpoint
from src.system.atomic import atomic_write, remove_unfinished
from src.system.errors import UserError, why


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, syncs and renames, so that a kill or a full disk leaves the previous file intact.

    Lightning writes to $TMPDIR and moves the file, without fsync. On another filesystem that move is a copy.

    Args:
        opened: the checkpoint to resume or evaluate, so that its file is not read twice.
    """

    def __init__(self, opened: Checkpoint | None = None) -> None:
        self.opened = opened

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Raises UserError if the file cannot be written; the previous one is then intact."""
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_unfinished(target)
            with atomic_write(target) as unfinished, unfinished.open("wb") as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:
            kept = f"; the previous {target.name} is intact" if target.exists() else ""
            raise UserError(f"the checkpoint {target} could not be written: {why(error)}{kept}") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Always reads with `weights_only=True`."""
        if self.opened is not None and self.opened.path == Path(path) and self.opened.content:
            return self.opened.hand_over()
        return read_checkpoint(Path(path)).content
