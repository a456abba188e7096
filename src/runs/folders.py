"""Runs on disk: `lightning_logs/version_N/`, and which of their checkpoints "best" and "last" mean."""

import os
import re
from pathlib import Path

from src.runs.reading import read_checkpoint
from src.system.errors import UserError

LOGS = "lightning_logs"
BEST = Path("checkpoints") / "best.ckpt"
LAST = Path("checkpoints") / "last.ckpt"
CONFIG = "config.yaml"
FINISHED_KEY = "finished"
"""In a checkpoint: whether its run came to its end."""


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
    """The run that a checkpoint belongs to; of one that was moved out of its run, the folder it lies in."""
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent


def shown(path: str | Path) -> str:
    """A path as the user would type it: relative where that is shorter."""
    relative = os.path.relpath(path)
    return relative if len(relative) < len(str(path)) else str(path)


def find_checkpoint(name: str, root: Path) -> Path:
    """The file that `--ckpt_path` means: a path, "best" or "last" of the newest run that has one.

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


def find_interrupted(root: Path) -> tuple[Path, bool]:
    """The last.ckpt of the newest run that is to go on, and whether that run is finished.

    A finished run is named only where no run was interrupted.

    Raises:
        UserError: no run has a checkpoint.
    """
    newest = find_checkpoint("last", root)
    for run in runs(root):
        if (run / LAST).is_file() and not is_finished(run / LAST):
            return (run / LAST).resolve(), False
    return newest, True


def is_finished(checkpoint: Path) -> bool:
    """Whether the run that wrote `checkpoint` had come to its end."""
    return bool(read_checkpoint(checkpoint).get(FINISHED_KEY, False))
