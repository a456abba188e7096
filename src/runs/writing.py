"""Checkpoint files: written whole or not at all."""

import os
import uuid
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins.io import TorchCheckpointIO

from src.runs.reading import read_checkpoint
from src.system.errors import UserError, disk_is_full, one_line


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, to the disk itself, then renames; so a kill or a full disk leaves the old file whole.

    Lightning writes through a temporary file in $TMPDIR, which may be another filesystem, where the move to the
    target is a copy, and does not fsync.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        """Raises UserError where the file cannot be written; the previous one is untouched then."""
        target = Path(path)
        unfinished = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_unfinished(target)
            with unfinished.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(unfinished, target)
            _sync_folder(target.parent)
        except (OSError, RuntimeError) as error:
            kept = f"; the previous {target.name} is intact" if target.exists() else ""
            reason = "no space left on the device" if disk_is_full(error) else one_line(error)
            raise UserError(f"the checkpoint {target} could not be written: {reason}{kept}") from error
        finally:
            unfinished.unlink(missing_ok=True)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads with `weights_only=True` whatever is asked for."""
        return read_checkpoint(path)


def _remove_unfinished(target: Path) -> None:
    for leftover in target.parent.glob(f".{target.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
