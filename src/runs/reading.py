"""Checkpoint files: opened once, read without running code and without importing Lightning."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from src.system.errors import UserError

FINISHED_KEY = "finished"
"""In a checkpoint: whether its run came to its end."""


class Checkpoint:
    """The content of a checkpoint, and the file it is from.

    Attributes:
        path: of the file.
        content: of the file; empty after `hand_over`.
        step: optimizer steps that its weights have seen.
        finished: whether its run came to its end.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content
        self.step = int(content.get("global_step", 0))
        self.finished = bool(content.get(FINISHED_KEY, False))

    def hand_over(self) -> dict[str, Any]:
        """The content, which is forgotten here: a run that lasts for days must not keep a replaced file on the disk."""
        content, self.content = self.content, {}
        return content


def read_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint. Its tensors are mapped from the file and not yet in memory.

    Raises:
        UserError: there is no such file, it is damaged or truncated, or it holds more than tensors and plain types.
    """
    return Checkpoint(path, _read(path))


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
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
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path} is no checkpoint of this program: it has no 'state_dict'")
    return content


def changed_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The options that differ from those of a checkpoint, in words; empty where none does."""
    return "; ".join(
        f"{name} was {before.get(name)!r} and is {value!r}" for name, value in now.items() if before.get(name) != value
    )
