"""Prepared data on disk: written once, under a key made from all that determines them, and found by later runs."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets

from src.system.atomic import atomic_write, remove_unfinished
from src.system.checksums import is_whole, write_checksums
from src.system.errors import UserError, why
from src.system.locks import exclusive

_FORMAT = 4  # raised when the layout or the meaning of prepared data changes
_STATE: dict[str, Any] = {
    "_data_files": [{"filename": "data-00000-of-00001.arrow"}],
    "_format_columns": None,
    "_format_kwargs": {},
    "_format_type": None,
    "_output_all_columns": False,
    "_split": None,
}


@dataclass(frozen=True)
class Prepared:
    """Prepared data on disk.

    Attributes:
        key: changes with everything that determines the rows.
        folder: has a folder for each of "train", "val" and "test" that has rows, which `datasets.load_from_disk` reads
            too, and checksums.
        found: an earlier run had prepared them.
    """

    key: str
    folder: Path
    found: bool

    def rows(self, name: str) -> datasets.Dataset:
        """The rows of "train", "val" or "test", memory-mapped."""
        file = _arrow_file(self.folder, name)
        if file.is_file():
            return datasets.Dataset.from_file(str(file))
        return datasets.Dataset.from_file(str(_arrow_file(self.folder, "train"))).select(range(0))


def _arrow_file(folder: Path, name: str) -> Path:
    return folder / name / "data-00000-of-00001.arrow"


def cache_dir() -> Path:
    """The folder of all prepared data, in the cache of `datasets` (HF_HOME or HF_DATASETS_CACHE move it)."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "prepared-reviews"


def cache_key(facts: Mapping[str, object]) -> str:
    """The key of what is prepared from `facts` (JSON types).

    The key of `datasets.map` would not do: it hashes the pickled tokenizer, which changes when the tokenizer is used,
    so the cache is missed (datasets #3847, #6179).
    """
    text = json.dumps({"format": _FORMAT, **facts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def prepare_once(key: str, build: Callable[[Path], None]) -> tuple[Path, bool]:
    """The folder prepared under `key`, and whether it was there; if not, `build(folder)` fills it.

    The folder is built beside its place and renamed when complete, under a lock. So two launches at the same moment
    build it once, and a kill leaves nothing incomplete under its name.

    What is found is compared with its checksums, by each process that reads it. A damaged folder is built again, and
    replaced only then: without the source it stays, and another command gets the same error.

    Raises:
        UserError: the folder cannot be written, or no space is left.
    """
    folder = cache_dir() / key
    if is_whole(folder):
        return folder, True
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(folder.with_suffix(".lock"), f"the folder of prepared data {folder}", wait=True):
            if is_whole(folder):
                return folder, True
            if folder.exists():
                reason = "are damaged or have no checksums"  # those of an earlier version have none
                print(f"the prepared data in {folder} {reason}: preparing them again", file=sys.stderr, flush=True)
            remove_unfinished(folder)  # left by a killed build; under the lock nobody else is building
            with atomic_write(folder) as unfinished:
                unfinished.mkdir()
                build(unfinished)
                write_checksums(unfinished)
                _remove(folder)
    except OSError as error:
        raise UserError(f"prepared data cannot be written to {folder.parent}: {why(error)}") from error
    return folder, False


def _remove(folder: Path) -> None:
    """Deletes a damaged folder, or a file in its place."""
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def write_rows(
    folder: Path,
    name: str,
    source: datasets.Dataset,
    make: Callable[[dict[str, list[Any]], list[int]], dict[str, list[Any]]],
    features: datasets.Features,
    description: str,
) -> datasets.Dataset:
    """Writes what `make(columns, numbers)` returns for 1,000 rows of `source` at a time, for `Prepared.rows(name)`.

    Without rows no file is written.

    Args:
        description: of the progress bar, or of the line in its place.
    """
    file = _arrow_file(folder, name)
    file.parent.mkdir()
    if not sys.stderr.isatty():  # where no progress bar is shown
        print(f"{description}: {len(source):,} rows", flush=True)
    rows = source.map(
        make,
        batched=True,
        with_indices=True,
        remove_columns=source.column_names,
        features=features,
        load_from_cache_file=False,  # `prepare_once` knows better what is there
        cache_file_name=str(file),
        desc=description,
    )
    # as `save_to_disk` does, which would write the rows a second time
    rows.info.write_to_directory(str(file.parent))
    (file.parent / "state.json").write_text(json.dumps(_STATE | {"_fingerprint": rows._fingerprint}))
    return rows
