"""Runs on disk: `lightning_logs/version_N/`, and the checkpoints that `best` and `last` mean."""

import os
import re
from pathlib import Path

from src.runs.reading import Checkpoint, read_checkpoint
from src.system.errors import UserError

LOGS = "lightning_logs"
BEST = Path("checkpoints") / "best.ckpt"
LAST = Path("checkpoints") / "last.ckpt"
CONFIG = "config.yaml"


def runs(root: Path) -> list[Path]:
    """The runs below `root`/lightning_logs, the newest first."""
    numbered = [
        (int(m[1]), path)
        for path in (root / LOGS).glob("version_*")
        if (m := re.fullmatch(r"version_(\d+)", path.name))
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def next_run(root: Path) -> Path:
    """The directory of a new run; it is not made yet."""
    newest = runs(root)
    number = int(newest[0].name.removeprefix("version_")) + 1 if newest else 0
    return root / LOGS / f"version_{number}"


def run_of(checkpoint: Path) -> Path:
    """The run that a checkpoint belongs to; for one that was moved out of its run, the folder it lies in."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def shown(path: str | Path) -> str:
    """A path as the user would type it: relative where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def find_checkpoint(name: str, root: Path) -> Path:
    """The file that `--ckpt_path` means: a path, or `best` or `last` of the newest run that has one.

    Raises:
        UserError: there is none; the text says where it was looked for.
    """
    if name not in ("best", "last"):
        path = Path(name).expanduser()
        if path.is_file():
            return path.resolve()
        raise UserError(f"there is no checkpoint {name!r} (ckpt_path takes a file, `best` or `last`)")
    kind = BEST if name == "best" else LAST
    for run in runs(root):
        if (run / kind).is_file():
            return (run / kind).resolve()
    raise UserError(f"no run has a {kind.name} yet (looked for {(root / LOGS).absolute()}/version_*/{kind})")


def find_interrupted(root: Path) -> Checkpoint:
    """The last.ckpt of the newest run that did not come to its end; if all did, that of the newest run.

    Raises:
        UserError: no run has a checkpoint.
    """
    newest = read_checkpoint(find_checkpoint("last", root))
    if not newest.finished:
        return newest
    for run in runs(root):
        file = (run / LAST).resolve()
        if file.is_file() and file != newest.path and not (checkpoint := read_checkpoint(file)).finished:
            return checkpoint
    return newest
