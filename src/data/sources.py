"""Data sets: found on the Hub, in a folder, in a file or in an installed package; their version; read as splits."""

import contextlib
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import datasets
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

from src.system.atomic import atomic_write
from src.system.errors import UserError, disk_is_full, one_line
from src.system.hub import HUB_TIMEOUT_S, OFFLINE_HINT, why_offline
from src.system.locations import DATA_SUFFIXES, locate


@dataclass(frozen=True)
class Source:
    """A data set that was found but is not yet read.

    Attributes:
        dataset: its name, as the user gave it.
        fingerprint: its version: the commit of a Hub data set, or a hash of local files.
        path: of a local data set; None on the Hub.
        revision: the commit of a Hub data set; None for a local one.
    """

    dataset: str
    fingerprint: str
    path: Path | None = None
    revision: str | None = None

    def read(self) -> datasets.DatasetDict:
        """Downloads or opens all splits, as Arrow files on disk.

        Raises:
            UserError: it cannot be downloaded, or cannot be read as a data set.
        """
        # the cache of `datasets` recognises a local file by its path and time alone, not by its content
        own_cache = str(Path(datasets.config.HF_DATASETS_CACHE) / "by-content" / self.fingerprint[:32])
        try:
            if self.path is None:
                why_offline()
                loaded = datasets.load_dataset(self.dataset, revision=self.revision)
            elif self.path.is_file():
                kind = DATA_SUFFIXES[self.path.suffix]
                options = {"sep": "\t"} if self.path.suffix == ".tsv" else {}
                loaded = datasets.load_dataset(kind, data_files=str(self.path), cache_dir=own_cache, **options)
            elif (self.path / "dataset_dict.json").exists():
                loaded = datasets.load_from_disk(str(self.path))
            else:
                loaded = datasets.load_dataset(str(self.path), cache_dir=own_cache)
        except Exception as error:  # `datasets` raises errors of many classes
            if disk_is_full(error):
                cache = datasets.config.HF_DATASETS_CACHE
                raise UserError(f"no space left on the device in {cache} to read {self.dataset!r}") from error
            raise UserError(_unreadable(self.dataset, self.path, error)) from error
        return loaded


def find_source(dataset: str, revision: str | None, cache_dir: Path) -> Source:
    """Finds a data set and its version, without reading it.

    Args:
        dataset: a Hub id; a path; or `package://NAME/PATH`.
        revision: commit, tag or branch on the Hub.
        cache_dir: remembers the last known commit of each Hub branch, so that prepared data are found without network
            access too (datasets #6837, #7551).

    Raises:
        UserError: there is no such data set, or the Hub cannot be reached and the commit is not known.
    """
    path = locate(dataset, "the data set")
    if path is None:
        commit = _resolve_commit(dataset, revision, cache_dir)
        return Source(dataset, fingerprint=f"{dataset}@{commit}", revision=commit)
    if path.is_file() and path.suffix not in DATA_SUFFIXES:
        raise UserError(f"the data set {dataset!r} is no file of a known kind ({', '.join(DATA_SUFFIXES)})")
    return Source(dataset, fingerprint=_hash_files(path), path=path)


def _hash_files(path: Path) -> str:
    """SHA-256 of the content of a file, or of the names and contents of all files in a folder (1.3 GB/s here)."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    if not files:
        raise UserError(f"the data set's folder {path} is empty")
    total = hashlib.sha256()
    for file in files:
        total.update(str(file.relative_to(path) if file != path else file.suffix).encode())
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
