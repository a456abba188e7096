"""Checkpoint files: written whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from src.runs.reading import Checkpoint, read_checkpoint
from src.system.atomic import atomic_write, remove_unfinished
from src.system.errors import UserError, disk_is_full, one_line


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, to the disk itself, then renames; so a kill or a full disk leaves the old file whole.

    Lightning writes through a temporary file in $TMPDIR, which may be another filesystem, where the move to the
    target is a copy, and does not fsync.

    Args:
        opened: the checkpoint that the run goes on from or evaluates, so that its file is not read twice.
    """

    def __init__(self, opened: Checkpoint | None = None) -> None:
        self.opened = opened

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Raises UserError where the file cannot be written; the previous one is untouched then."""
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            remove_unfinished(target)
            with atomic_write(target) as unfinished, unfinished.open("wb") as stream:
                torch.save(checkpoint, stream)
        except (OSError, RuntimeError) as error:
            kept = f"; the previous {target.name} is intact" if target.exists() else ""
            reason = "no space left on the device" if disk_is_full(error) else one_line(error)
            raise UserError(f"the checkpoint {target} could not be written: {reason}{kept}") from error

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads with `weights_only=True` whatever is asked for."""
        if self.opened is not None and self.opened.path == Path(path) and self.opened.content:
            return self.opened.hand_over()
        return read_checkpoint(Path(path)).content
