"""Data sets: found on the Hub, in a folder, in a file or in an installed package; their version; read as splits."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import datasets

from src.data.arrow_tables import write_arrow
from src.data.cache import cache_key, prepare_once
from src.data.split_files import README, SplitFiles, find_split_files
from src.data.tables import SUFFIXES, format_by_name
from src.system.checksums import file_sha256
from src.system.downloads import fetch, origin
from src.system.errors import UserError, one_line
from src.system.hub import Repository, find_repository
from src.system.locations import locate


@dataclass(frozen=True)
class Source:
    """A data set that was found but is not yet read.

    Attributes:
        dataset: its name, as the user gave it.
        fingerprint: its version: the commit of a Hub data set, or a hash of the local files that are used.
        files: of each split, by their paths on the Hub or in the folder.
        folder: of a local data set, also of one that `save_to_disk` of `datasets` has written, which has no `files`.
        repository: of a Hub data set.
        own: data sets that take the place of its splits "validation" and "test".
    """

    dataset: str
    fingerprint: str
    files: SplitFiles
    folder: Path | None = None
    repository: Repository | None = None
    own: Mapping[str, "Source"] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.repository}, {origin(self.repository)}" if self.repository else str(self.folder)

    @property
    def version(self) -> str | dict[str, str]:
        """Changes with the content of the data set and of those that take the place of its splits; for a key."""
        own = {split: source.fingerprint for split, source in self.own.items()}
        return {"": self.fingerprint, **own} if own else self.fingerprint

    def read(self, columns: Sequence[str], splits: Iterable[str]) -> datasets.DatasetDict:
        """Downloads and opens the splits that there are, as Arrow files on disk.

        Args:
            columns: that are used, the one with the texts first. There may be others.
            splits: that are used, by name.

        Raises:
            UserError: it cannot be downloaded, cannot be read as a data set, or has no such column.
        """
        if not self.files:
            return self._load_saved()
        used = {split: files for split, files in self.files.items() if split in set(splits)}

        def build(target: Path) -> None:
            folder = self.folder or fetch(self._on_hub(), [file for files in used.values() for file in files])
            for split, files in used.items():
                write_arrow(target / f"{split}.arrow", [folder / file for file in files], columns, self.dataset)

        key = cache_key({"tables": self.fingerprint, "columns": list(columns), "splits": sorted(used)})
        prepared, _ = prepare_once(key, build)
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_file(str(prepared / f"{split}.arrow")) for split in used}
        )

    def splits(self) -> list[str]:
        """The names of all splits."""
        return list(self.files or self._load_saved())

    def _on_hub(self) -> Repository:
        assert self.repository is not None
        return self.repository

    def _load_saved(self) -> datasets.DatasetDict:
        try:
            saved = datasets.load_from_disk(str(self.folder))
        except Exception as error:  # `datasets` raises errors of many classes
            reason = one_line(error.__cause__ or error)[:300]
            raise UserError(f"the data set {self.dataset!r} cannot be read: {reason}") from error
        return saved if isinstance(saved, datasets.DatasetDict) else datasets.DatasetDict(train=saved)


def find_source(dataset: str, revision: str | None, config_name: str | None = None) -> Source:
    """Finds a data set and its version, without reading it.

    Args:
        dataset: a Hub id; a path; or `package://NAME/PATH`.
        revision: commit, tag or branch on the Hub.
        config_name: of a configuration in the data set's README.md; None takes the only or default one.

    Raises:
        UserError: there is no such data set, or the Hub cannot be reached and the commit is not known.
    """
    path = locate(dataset, "the data set")
    if path is None:
        return _find_on_hub(dataset, revision, config_name)
    if path.is_file():
        if format_by_name(path) is None:
            raise UserError(f"the data set {dataset!r} is no file of a known kind ({', '.join(SUFFIXES)})")
        return Source(dataset, hash_files({path.suffix: path}), {"train": [path.name]}, path.parent)
    files = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    if files.keys() & {"dataset_dict.json", "state.json"}:
        return Source(dataset, hash_files(files), {}, path)
    readme = files[README].read_text("utf-8", errors="replace") if README in files else ""
    splits = find_split_files(list(files), readme, config_name, dataset)
    used = {f"{split}/{file}": files[file] for split, of_split in splits.items() for file in of_split}
    return Source(dataset, hash_files(used), splits, path)


def find_own(option: str, path: str) -> Source:
    """Finds a file or folder of the user's own, whose rows take the place of a split.

    Args:
        option: that gives the path, for messages.
        path: or `package://NAME/PATH`.

    Raises:
        UserError: there is no such file or folder, or it holds no table.
    """
    if locate(path, option) is None:
        raise UserError(f"{option} {path!r} does not exist: it names a file or a folder, not a data set of the Hub")
    return find_source(path, None)


def _find_on_hub(dataset: str, revision: str | None, config_name: str | None) -> Source:
    repository = find_repository("dataset", dataset, revision)
    readme = ""
    if README in repository.files:
        readme = (fetch(repository, [README]) / README).read_text("utf-8", errors="replace")
    files = find_split_files(repository.files, readme, config_name, dataset)
    version = f"{repository.name}@{repository.commit}" + (f" {config_name}" if config_name else "")
    if not repository.complete:  # a split may be missing: these rows are not those of the whole data set
        version += f" {hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()}"
    return Source(dataset, version, files, repository=repository)


def hash_files(files: Mapping[str, Path]) -> str:
    """SHA-256 over the names and contents of files (1.3 GB/s here)."""
    total = hashlib.sha256()
    for name, file in files.items():
        total.update(name.encode())
        total.update(bytes.fromhex(file_sha256(file)))
    return total.hexdigest()
