"""SHA-256 of files; the checksums of a folder, compared when its files are read."""

import hashlib
import json
from fnmatch import fnmatch
from pathlib import Path

from src.system.errors import UserError

CHECKSUMS = "checksums.json"
_MAY_BE_EDITED = ("README.md", CHECKSUMS)


def write_checksums(folder: Path) -> None:
    """Writes the checksums of all files, also those in folders within, but the card, which may be edited."""
    (folder / CHECKSUMS).write_text(json.dumps(_compute(folder), indent=2) + "\n", "utf-8")


def is_whole(folder: Path) -> bool:
    """Whether the folder has checksums and just the files that they name, each as it was written."""
    try:
        return _read(folder) == _compute(folder)
    except (OSError, ValueError, RecursionError):
        return False


def verify_checksums(folder: Path, *patterns: str) -> None:
    """Compares the files whose names match one of `patterns`. A folder without checksums is taken as it is.

    Raises:
        UserError: a file is missing or has changed.
    """
    if not (folder / CHECKSUMS).exists():
        return
    try:
        sums = _read(folder)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{folder / CHECKSUMS} is damaged: export the checkpoint again") from error
    for name, expected in sums.items():
        if not any(fnmatch(name, pattern) for pattern in patterns):
            continue
        path = folder / Path(name).name
        if not path.is_file() or file_sha256(path) != expected:
            raise UserError(
                f"{path} is not the file that was exported: export again, or delete {CHECKSUMS} if you changed the file"
            )


def _read(folder: Path) -> dict[str, str]:
    sums = json.loads((folder / CHECKSUMS).read_text("utf-8"))
    if not isinstance(sums, dict):
        raise ValueError("no object")
    return sums


def _compute(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in _MAY_BE_EDITED)
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits (1.3 GB/s here)."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
