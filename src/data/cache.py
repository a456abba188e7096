"""Prepared data on disk: written once under a key of its own, found again by every later run and every rank."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import datasets
from filelock import FileLock

from src.system.atomic import atomic_write, remove_unfinished
from src.system.errors import UserError, disk_is_full

_FORMAT = 1  # raised when the layout or the meaning of prepared data changes


ROWS_AT_ONCE = 1000
"""What `datasets.map` and the loops beside it take at a time: its default."""


def cache_dir() -> Path:
    """The folder of all prepared data, below the cache of `datasets` (HF_HOME or HF_DATASETS_CACHE move it)."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "prepared-reviews"


def cache_key(facts: Mapping[str, object]) -> str:
    """A name for what is prepared from `facts` (JSON types).

    A key of our own, since that of `datasets.map` hashes the pickled tokenizer, which changes as the tokenizer is
    used, so that the cache is missed (datasets #3847, #6179).
    """
    text = json.dumps({"format": _FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def prepare_once(key: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder prepared under `key`, made by `build(folder)` if it is not there; and whether it was found.

    The folder appears under its name only when it is whole: it is built beside its place and renamed, under a lock,
    so that two launches at the same moment neither mix nor repeat their work, and a kill leaves nothing half-made.

    Raises:
        UserError: the folder cannot be written, or no space is left.
    """
    folder = cache_dir() / key
    if folder.is_dir():
        return folder, True
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if folder.is_dir():
                return folder, True
            remove_unfinished(folder)  # of a build that was killed; under the lock there is no other
            with atomic_write(folder) as unfinished:
                unfinished.mkdir()
                build(unfinished)
    except OSError as error:
        if disk_is_full(error):
            raise UserError(f"no space left on the device for the prepared data in {folder.parent}") from error
        raise UserError(f"prepared data cannot be written to {folder.parent}: {error.strerror or error}") from error
    return folder, False


def map_into(
    file: Path,
    rows: datasets.Dataset,
    make: Callable[[dict[str, list[Any]], list[int]], dict[str, list[Any]]],
    features: datasets.Features,
    description: str,
) -> datasets.Dataset:
    """What `make(columns, numbers)` makes of 1,000 rows at a time, on disk in `file`; `description` is on the bar."""
    return rows.map(
        make,
        batched=True,
        batch_size=ROWS_AT_ONCE,
        with_indices=True,
        remove_columns=rows.column_names,
        features=features,
        # in our own cache: that of `datasets` would keep a second copy, under a key that changes with every run
        load_from_cache_file=False,
        cache_file_name=str(file),
        desc=description,
    )


def stored_rows(folder: Path, features: datasets.Features) -> datasets.Dataset:
    """What `save_to_disk` wrote there; no rows where it wrote none, since it cannot write a data set without rows."""
    if not folder.is_dir():
        return datasets.Dataset.from_dict({column: [] for column in features}, features=features)
    return datasets.load_from_disk(str(folder))
