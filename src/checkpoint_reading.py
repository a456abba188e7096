"""Checkpoint files read without running code, and without importing Lightning."""

import pickle
from pathlib import Path
from typing import Any

import torch

from src.errors import UserError, one_line


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint's content, its tensors mapped from the file and not yet in memory.

    Raises:
        UserError: there is no such file, it is damaged or truncated, or it holds more than tensors and plain types.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "Unsupported" in str(error):
            raise UserError(
                f"{path} holds more than tensors and plain values, which could run code: it is not read"
            ) from error
        raise UserError(f"{path} is damaged, or no checkpoint: {one_line(error)[:200]}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        raise UserError(f"{path} is damaged, or no checkpoint: {one_line(error)[:200]}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is no checkpoint of this program: it has no 'state_dict'")
    return checkpoint
