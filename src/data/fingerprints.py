"""Texts recognised by a hash, so that a classifier is not evaluated on reviews that its pre-training has read."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from src.system.errors import UserError

READ_TEXTS = "pretraining_texts.npy"
"""In an exported folder: the sorted hashes of the reviews that its pre-training has read, uint64."""


def hash_texts(texts: Iterable[str]) -> np.ndarray:
    """64 bits of the SHA-256 of each text, uint64 of shape (texts,); white space and case make no difference."""
    return np.fromiter((_hash(text) for text in texts), dtype=np.uint64)


def _hash(text: str) -> int:
    same = " ".join(text.split()).lower()
    return int.from_bytes(hashlib.sha256(same.encode("utf-8", "surrogatepass")).digest()[:8], "little")


def save_hashes(folder: Path, hashes: np.ndarray) -> None:
    """Writes the hashes of the texts that a pre-training has read into its exported folder."""
    np.save(folder / READ_TEXTS, hashes)


def read_hashes(folder: Path) -> np.ndarray:
    """What `save_hashes` wrote, uint64 of shape (texts,); empty if the folder has no such file.

    Raises:
        UserError: the file is damaged.
    """
    path = folder / READ_TEXTS
    if not path.is_file():
        return np.empty(0, dtype=np.uint64)
    try:
        hashes: np.ndarray = np.load(path)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is damaged: export the pre-training again") from error
    return hashes
