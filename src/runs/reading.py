"""Checkpoint files read without running code, and without importing Lightning."""

import pickle
from pathlib import Path
from typing import Any

import torch

from src.system.errors import UserError


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
        if "Weights only load failed" in str(error) and "unsupported" in str(error).lower():
            raise UserError(
                f"{path} holds more than tensors and plain values, which could run code: it is not read"
            ) from error
        raise UserError(f"{path} is damaged, or no checkpoint") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        # torch's own words are about pickles and memory maps
        raise UserError(f"{path} is damaged, or no checkpoint") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise UserError(f"{path} is no checkpoint of this program: it has no 'state_dict'")
    return checkpoint
