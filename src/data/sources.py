"""Data sets: found on the Hub, in a folder, in a file or in an installed package; their version; read as splits."""

import contextlib
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from src.data.arrow_tables import write_arrow
from src.data.cache import cache_key, prepare_once
from src.data.split_files import SplitFiles, find_split_files
from src.system.atomic import atomic_write
from src.system.errors import UserError, disk_is_full, one_line
from src.system.hub import HUB_TIMEOUT_S, OFFLINE_HINT, why_offline
from src.system.locations import locate


@dataclass(frozen=True)
class Source:
    """A data set that was found but is not yet read.

    Attributes:
        dataset: its name, as the user gave it.
        fingerprint: its version: the commit of a Hub data set, or a hash of the local files that are used.
        files: of each split of a local data set; None on the Hub.
        folder: in which `save_to_disk` of `datasets` has saved it; None for any other.
        revision: the commit of a Hub data set; None for a local one.
        config_name: of a configuration of a Hub data set.
    """

    dataset: str
    fingerprint: str
    files: SplitFiles | None = None
    folder: Path | None = None
    revision: str | None = None
    config_name: str | None = None

    def read(self, columns: Sequence[str]) -> datasets.DatasetDict:
        """Downloads or opens all splits, as Arrow files on disk.

        Args:
            columns: that are used, the one with the texts first. There may be others.

        Raises:
            UserError: it cannot be downloaded, cannot be read as a data set, or has no such column.
        """
        if self.files is not None:
            return self._read_files(self.files, columns)
        try:
            if self.folder is not None:
                saved = datasets.load_from_disk(str(self.folder))
                return saved if isinstance(saved, datasets.DatasetDict) else datasets.DatasetDict(train=saved)
            why_offline()
            return datasets.load_dataset(self.dataset, name=self.config_name, revision=self.revision)
        except Exception as error:  # `datasets` raises errors of many classes
            if disk_is_full(error):
                cache = datasets.config.HF_DATASETS_CACHE
                raise UserError(f"no space left on the device in {cache} to read {self.dataset!r}") from error
            raise UserError(_unreadable(self.dataset, self.folder, error)) from error

    def _read_files(self, files: SplitFiles, columns: Sequence[str]) -> datasets.DatasetDict:
        def build(folder: Path) -> None:
            for split, of_split in files.items():
                write_arrow(folder / f"{split}.arrow", of_split, columns, self.dataset)

        key = cache_key({"tables": self.fingerprint, "columns": list(columns)})
        folder, _ = prepare_once(key, build)
        return datasets.DatasetDict(
            {split: datasets.Dataset.from_file(str(folder / f"{split}.arrow")) for split in files}
        )


def find_source(dataset: str, revision: str | None, cache_dir: Path, config_name: str | None = None) -> Source:
    """Finds a data set and its version, without reading it.

    Args:
        dataset: a Hub id; a path; or `package://NAME/PATH`.
        revision: commit, tag or branch on the Hub.
        cache_dir: remembers the last known commit of each Hub branch, so that prepared data are found without network
            access too (datasets #6837, #7551).
        config_name: of a configuration on the Hub or in a folder's README.md; None takes the only or default one.

    Raises:
        UserError: there is no such data set, or the Hub cannot be reached and the commit is not known.
    """
    path = locate(dataset, "the data set")
    if path is None:
        commit = _resolve_commit(dataset, revision, cache_dir)
        version = f"{dataset}@{commit}" + (f" {config_name}" if config_name else "")
        return Source(dataset, fingerprint=version, revision=commit, config_name=config_name)
    if any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
        saved = {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
        return Source(dataset, fingerprint=hash_files(saved), folder=path)
    files = find_split_files(path, config_name)
    names = {
        file.suffix if file == path else f"{split}/{file.relative_to(path)}": file
        for split, of_split in files.items()
        for file in of_split
    }
    return Source(dataset, fingerprint=hash_files(names), files=files)


def hash_files(files: Mapping[str, Path]) -> str:
    """SHA-256 over the names and contents of files (1.3 GB/s here)."""
    total = hashlib.sha256()
    for name, file in files.items():
        total.update(name.encode())
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return total.hexdigest()


def _resolve_commit(dataset: str, revision: str | None, cache_dir: Path) -> str:
    if revision is not None and len(revision) == 40:
        return revision
    known = cache_dir / "commits" / dataset.replace("/", "--") / (revision or "main")
    if not (reason := why_offline()):
        try:
            commit = HfApi().dataset_info(dataset, revision=revision, timeout=HUB_TIMEOUT_S).sha
            assert commit is not None
            with contextlib.suppress(OSError):  # a read-only cache remembers nothing
                known.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(known) as unfinished:
                    unfinished.write_text(commit)
            return commit
        except RevisionNotFoundError as error:
            raise UserError(f"the data set {dataset!r} has no revision {revision!r}") from error
        except RepositoryNotFoundError as error:
            raise UserError(f"the Hub has no data set {dataset!r}, or it is private") from error
        except Exception as error:  # errors of httpx, which huggingface_hub does not document
            if _commit_in(known) is None:
                raise UserError(_unreadable(dataset, None, error)) from error
    if (commit := _commit_in(known)) is not None:
        return commit
    raise UserError(f"the data set {dataset!r} could not be fetched from the Hub ({reason}); {OFFLINE_HINT}")


def _commit_in(known: Path) -> str | None:
    """What the file remembers; None if it does not exist, or holds anything but a commit."""
    try:
        text = known.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if re.fullmatch("[0-9a-f]{40}", text) else None


def _unreadable(dataset: str, path: Path | None, error: BaseException) -> str:
    reason = one_line(error.__cause__ or error)
    if path is not None:
        return f"the data set {dataset!r} cannot be read: {reason}"
    reason = why_offline() or reason
    return f"the data set {dataset!r} could not be fetched from the Hub ({reason[:200]}); {OFFLINE_HINT}"
