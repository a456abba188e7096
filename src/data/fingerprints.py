"""Hashes of texts, by which a classifier is not evaluated on reviews that its pre-training has read."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from src.system.errors import UserError

READ_TEXTS = "pretraining_texts.npy"
"""The file with the hashes of the texts that a pre-training has read, in the folder of its model."""


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """64 bits of the SHA-256 of each text, uint64 of shape (texts,). White space and case make no difference."""
    return np.fromiter((_hash(text) for text in texts), dtype=np.uint64)


def _hash(text: str) -> int:
    same = " ".join(text.split()).lower()
    return int.from_bytes(hashlib.sha256(same.encode("utf-8", "surrogatepass")).digest()[:8], "little")


def save_hashes(folder: Path, hashes: np.ndarray) -> None:
    """Writes the hashes of the texts that a pre-training has read."""
    np.save(folder / READ_TEXTS, hashes)


def read_hashes(folder: Path) -> np.ndarray:
    """What `save_hashes` wrote, uint64 of shape (texts,); empty if the folder has no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / READ_TEXTS
    if not path.exists():
        return np.empty(0, dtype=np.uint64)
    try:
        mapped = np.load(path, mmap_mode="r")  # which compares the size with the file's before there is memory for it
    except Exception as error:  # numpy reads the header as Python, and raises errors of many classes
        raise UserError(f"{path} is damaged: export the pre-training again") from error
    if not isinstance(mapped, np.ndarray) or mapped.dtype != np.uint64 or mapped.ndim != 1:
        raise UserError(f"{path} is damaged: export the pre-training again")
    return np.array(mapped)
