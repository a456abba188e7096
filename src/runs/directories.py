"""Run directories: `lightning_logs/version_N/`, and the checkpoints named `best` and `last`."""

import os
import re
import shlex
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from src.runs.checkpoint_reading import Checkpoint, read_checkpoint
from src.system.errors import UserError, printable
from src.system.locations import expanded
from src.system.locks import exclusive

LOGS = "lightning_logs"
BEST = Path("checkpoints") / "best.ckpt"
LAST = Path("checkpoints") / "last.ckpt"
CONFIG = "config.yaml"


def runs(root: Path) -> list[Path]:
    """The run directories in `root`/lightning_logs, the newest first."""
    numbered = [
        (int(m[1]), path)
        for path in (root / LOGS).glob("version_*")
        if (m := re.fullmatch(r"version_(\d+)", path.name))
    ]
    return [path for _, path in sorted(numbered, reverse=True)]


def next_run(root: Path) -> Path:
    """The directory of a new run, not created yet."""
    newest = runs(root)
    number = int(newest[0].name.removeprefix("version_")) + 1 if newest else 0
    return root / LOGS / f"version_{number}"


def claim_run(root: Path, locks: ExitStack) -> Path:
    """Makes the directory of a new run, which no run that starts at the same moment gets too.

    If nothing was written to it when `locks` is closed, it is removed.
    """
    while True:
        run = next_run(root)
        new = [folder for folder in (run, *run.parents) if not folder.exists()]
        try:
            run.mkdir(parents=True)
        except FileExistsError:
            if not run.is_dir():
                raise
        else:
            locks.callback(_remove_if_empty, new)
            return run


def _remove_if_empty(folders: Iterable[Path]) -> None:
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def run_of(checkpoint: Path) -> Path:
    """The directory of the run that a checkpoint belongs to; if it was moved out of its run, the folder it is in.

    A name with a metric in it, as `{val/loss}`, puts the checkpoint into a folder below `checkpoints`.
    """
    folder = BEST.parent.name
    for parent in checkpoint.parents:
        if parent.name == folder and (parent.parent / CONFIG).is_file():
            return parent.parent
    return checkpoint.parent.parent if checkpoint.parent.name == folder else checkpoint.parent


def lock_run(run: Path, locks: ExitStack) -> None:
    """Holds the lock of a run until `locks` is closed. Rank 0 calls it, before anything is written.

    Raises:
        UserError: another process is writing to the run.
    """
    locks.enter_context(exclusive(run / ".lock", f"the run {shown(run)}"))


def shown(path: str | Path) -> str:
    """A path as a user would type it in a shell: relative if that is shorter, and in quotes where it needs them."""
    relative = os.path.relpath(path)
    name = relative if len(relative) < len(str(path)) else str(path)
    # neither an option, nor a home folder, nor a word with a meaning
    plain = not name.startswith(("-", "~")) and name not in ("best", "last", "null")
    return printable(shlex.quote(name if plain else f"./{name}"))


def is_read_unasked(run: Path, root: Path) -> bool:
    """Whether the configuration of a run is read without --config: it is one of the user's own runs in `root`."""
    return run.resolve().is_relative_to((root / LOGS).resolve())


def chosen(checkpoint: Path) -> str:
    """The arguments that give `fit`, `validate` or `test` a checkpoint, with the options of its run."""
    run = run_of(checkpoint)
    config = "" if is_read_unasked(run, Path()) else f"--config {shown(run / CONFIG)} "
    return f"{config}--ckpt_path {shown(checkpoint)}"


def find_checkpoint(name: str, root: Path) -> Path:
    """The file that `--ckpt_path` names: a path, or `best` or `last` for that of the newest run that has one.

    Raises:
        UserError: there is none.
    """
    if name not in ("best", "last"):
        path = expanded(name)
        if path.is_file():
            return path.resolve()
        raise UserError(f"there is no checkpoint {name!r} (ckpt_path takes a file, `best` or `last`)")
    kind = BEST if name == "best" else LAST
    for run in runs(root):
        if (run / kind).is_file():
            return (run / kind).resolve()
    raise UserError(f"no run has a {kind.name} yet (looked for {(root / LOGS).absolute()}/version_*/{kind})")


def find_model(name: str) -> Path:
    """What `--ckpt_path` names where a folder or an .onnx file will do too; `best` and `last` as in `find_checkpoint`.

    Raises:
        UserError: no run has one.
    """
    path = expanded(name)
    return find_checkpoint(name, Path()) if name in ("best", "last") and not path.exists() else path


def find_interrupted(root: Path) -> Checkpoint:
    """The last.ckpt of the newest unfinished run; if all runs are finished, that of the newest.

    Raises:
        UserError: no run has a last.ckpt, or the newest run has none: an older one is not what the user means.
    """
    begun = next((run for run in runs(root) if (run / CONFIG).is_file() or (run / LAST).is_file()), None)
    if begun is not None and not (begun / LAST).is_file():
        raise UserError(
            f"{shown(begun)} was stopped before its first checkpoint, or saves none: there is nothing to resume; start "
            f"it again with --config {shown(begun / CONFIG)}, or name the checkpoint of an older run"
        )
    newest = read_checkpoint(find_checkpoint("last", root))
    if not newest.finished:
        return newest
    for run in runs(root):
        file = (run / LAST).resolve()
        if file.is_file() and file != newest.path and not (checkpoint := read_checkpoint(file)).finished:
            return checkpoint
    return newest
