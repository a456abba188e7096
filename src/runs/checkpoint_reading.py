"""Reads checkpoint files, without running code from them and without importing Lightning."""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from src.system.errors import UserError
from src.system.stored import difference, is_finite, is_plain

FINISHED_KEY = "finished"
"""The key in a checkpoint that tells whether its run is finished."""

_EXAMPLE = {"global_step": 0, "epoch": 0, FINISHED_KEY: False, "hyper_parameters": {}}
"""What a checkpoint may say of its run (see `difference`)."""


class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        path: of the file.
        content: of the file; empty after `hand_over`.
        digest: hash of the content, by which results are attributed to it; empty if it is from no file.
        step: number of optimizer steps taken.
        finished: whether its run is finished.
    """

    def __init__(self, path: Path, content: dict[str, Any], digest: str = "") -> None:
        self.path = path
        self.content = content
        self.digest = digest
        self.step: int = content.get("global_step", 0)
        self.finished: bool = content.get(FINISHED_KEY, False)

    def hand_over(self) -> dict[str, Any]:
        """Returns the content and forgets it: while it is mapped, a file that was replaced keeps its disk space."""
        content, self.content = self.content, {}
        return content


def read_checkpoint(path: Path) -> Checkpoint:
    """Opens a checkpoint. Its tensors are memory-mapped.

    Raises:
        UserError: there is no such file, it is damaged or truncated, or it holds more than tensors and plain types.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}")
    try:
        digest = _verify(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" in str(error) and "unsupported" in str(error).lower():
            raise UserError(
                f"{path} holds more than tensors and plain values, which could run code: it is not read"
            ) from error
        raise UserError(f"{path} is damaged, or no checkpoint") from error
    except PermissionError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except Exception as error:  # of a stranger's file, zipfile and torch raise errors of many classes
        raise UserError(f"{path} is damaged, or no checkpoint") from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise UserError(f"{path} is no checkpoint of this program: it has no 'state_dict'")
    example = {"state_dict": {}} | {name: kind for name, kind in _EXAMPLE.items() if name in content}
    wrong = difference(content, example, "its content") or _wrong_weights(content["state_dict"])
    if wrong:
        raise UserError(f"{path} is damaged: {wrong}")
    return Checkpoint(path, content, digest)


def _wrong_weights(weights: dict[object, object]) -> str:
    """Which entry is no name or no plain, finite tensor, in words; empty if all are."""
    for name, tensor in weights.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor) or not is_plain(tensor):
            return f"{name!r:.100} is no tensor with a memory of its own"
        if not is_finite(tensor):
            return f"{name!r:.100} is NaN or infinite"
    return ""


def _verify(path: Path) -> str:
    """Compares the content with its checksums, which a memory-mapped read does not do, and returns their hash.

    A checkpoint is a zip file of uncompressed entries, for each of which torch stores the CRC-32.

    Raises:
        zipfile.BadZipFile: a byte has changed, or it is no such file.
    """
    with zipfile.ZipFile(path) as entries:
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.infolist()):
            raise zipfile.BadZipFile("an entry is compressed")  # a memory-mapped read would take it for weights
        if sum(entry.file_size for entry in entries.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("entries overlap")  # so that a small file would be read as an enormous one
        if damaged := entries.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} differs")
        sums = [(entry.filename.partition("/")[2], entry.CRC, entry.file_size) for entry in entries.infolist()]
        return hashlib.sha256(repr(sums).encode()).hexdigest()[:32]


def changed_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The options whose values differ from those of a checkpoint, in words; empty if none does."""
    return "; ".join(
        f"{name} was {before.get(name)!r:.100} and is {value!r}"
        for name, value in now.items()
        if not _same(before.get(name), value)
    )


def _same(stored: Any, value: Any) -> bool:
    """Whether two options are equal; what is stored may be anything, such as a tensor, for which == is no yes or no."""
    if isinstance(stored, int | float | str) and isinstance(value, int | float | str):
        return bool(stored == value)
    return json.dumps(stored, sort_keys=True, default=repr) == json.dumps(value, sort_keys=True, default=repr)
