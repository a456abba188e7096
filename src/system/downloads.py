"""Downloads files of the Hugging Face Hub: verified by the hash that names them, and never waiting without end."""

import hashlib
import logging
import re
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import GatedRepoError

from src.system.checksums import file_sha256
from src.system.errors import UserError, disk_is_full, one_line
from src.system.hub import OFFLINE_HINT, Repository, cause_of, refusal

STALLED_S = 15.0
"""A download that gets less than `_LEAST_BYTES` in this time is given up."""
_LEAST_BYTES = 4096
constants.DOWNLOAD_CHUNK_SIZE = 2**16  # bytes that are written at once; 10 MB would look like a stall on a slow line
_SHA256, _SHA1 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
_downloaded: set[Repository] = set()


def fetch(repository: Repository, files: Iterable[str]) -> Path:
    """The folder with files of a repository, at their paths in it. Those that the cache lacks are downloaded.

    Each file is compared with the hash by which the cache names it, once: the Hub's clients look at the length alone. A
    file that differs is deleted and fetched once more.

    Raises:
        UserError: a file cannot be downloaded, or differs from what the Hub says it is; or the Hub sends nothing.
    """
    snapshot = repository.folder / "snapshots" / repository.commit
    for name in files:
        path = snapshot / name
        for _ in range(2):
            if not path.is_file():
                _download(repository, name)
            if path.is_file() and _is_genuine(path):  # it is not there if the Hub said that it is of another commit
                break
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
        else:
            raise UserError(
                f"{name} of {repository} arrives damaged from {constants.ENDPOINT}, twice: it differs from its hash. "
                "Try again, or use another network"
            )
    return snapshot


def origin(repository: Repository) -> str:
    """Where the files came from, in words."""
    return "from the Hub" if repository in _downloaded else "from the cache"


def _download(repository: Repository, name: str) -> None:
    if constants.HF_HUB_OFFLINE or repository.unreachable:
        reason = repository.unreachable or "HF_HUB_OFFLINE=1"
        raise UserError(f"{name} of {repository} is not in the cache, and the Hub fails ({reason}); {OFFLINE_HINT}")
    _downloaded.add(repository)
    errors: list[BaseException] = []

    def run() -> None:
        _reasons.last.pop(threading.get_ident(), None)  # of an earlier thread
        try:
            hf_hub_download(repository.name, name, repo_type=repository.kind, revision=repository.commit)
        except BaseException as error:
            errors.append(error)

    logging.getLogger("huggingface_hub").handlers = [_reasons]
    thread = threading.Thread(
        target=run, name="Hub: a download", daemon=True
    )  # a process that ends does not wait for it
    thread.start()
    size, since = 0, time.monotonic()
    while thread.is_alive():
        thread.join(0.2)
        if abs((now := _bytes_so_far(repository)) - size) >= _LEAST_BYTES:
            size, since = now, time.monotonic()
        if time.monotonic() - since > STALLED_S:
            reason = _reasons.last.get(thread.ident) or f"fewer than {_LEAST_BYTES:,} bytes in {STALLED_S:g} s"
            errors.append(TimeoutError(reason))
            break
    if errors:
        if disk_is_full(errors[0]):
            raise UserError(f"no space left on the device in {constants.HF_HUB_CACHE} for {name}") from errors[0]
        reason = cause_of(errors[0])
        if isinstance(errors[0], GatedRepoError):
            raise refusal(repository.kind, repository.name, repository.commit, reason, errors[0])
        if isinstance(errors[0], OSError) and errors[0].filename:  # the cache cannot be written
            reason = one_line(errors[0])
        raise UserError(f"{name} of {repository} could not be fetched from the Hub ({reason}); {OFFLINE_HINT}")


def _bytes_so_far(repository: Repository) -> int:
    total = 0
    for file in (repository.folder / "blobs").glob("*"):
        with suppress(OSError):
            total += file.stat().st_size
    return total


class _Reasons(logging.Handler):
    """Shows no warning of the Hub's client, and keeps the last one of each thread, which says why it tries again."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last: dict[int | None, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        text = one_line(record.getMessage())
        if not text.startswith(("Retrying", "Rate limited")):
            self.last[record.thread] = text[:200]


_reasons = _Reasons()


# ---- verification ---------------------------------------------------------------------------------------------------


def _is_genuine(path: Path) -> bool:
    """Whether a file has the hash that names it: its SHA-256 if it is large, else git's SHA-1.

    A file that was found genuine is not read again while its size and time stay the same. A cache without links, as on
    Windows, does not tell the hash.
    """
    blob = path.resolve()
    is_large = _SHA256.fullmatch(blob.name)
    if not is_large and not _SHA1.fullmatch(blob.name):
        return True
    facts = blob.stat()
    known = f"{facts.st_size} {facts.st_mtime_ns}"
    memory = Path(constants.HF_HOME) / "verified" / blob.name
    with suppress(OSError):
        if memory.read_text("ascii") == known:
            return True
    if is_large:
        found = file_sha256(blob)
    else:
        git = hashlib.sha1(f"blob {facts.st_size}\0".encode(), usedforsecurity=False)
        with blob.open("rb") as stream:
            found = hashlib.file_digest(stream, lambda: git).hexdigest()
    if found != blob.name:
        return False
    with suppress(OSError):  # a read-only cache: it is read again next time
        memory.parent.mkdir(parents=True, exist_ok=True)
        memory.write_text(known, "ascii")
    return True
