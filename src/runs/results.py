"""The results of an evaluation, `validate.json` and `test.json` of a run: written with a checksum, and read again."""

import hashlib
import json
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from src.runs.checkpoint_reading import Checkpoint
from src.system.atomic import atomic_write
from src.system.errors import UserError

BY_CLASS = "by_class"
_DIGEST = "digest"
_TEXTS = ("checkpoint", "checkpoint_digest", "dataset", "split", "where", "fingerprint", _DIGEST)


def write_results(path: Path, results: Mapping[str, Any]) -> None:
    """Writes figures, and the checkpoint and the rows that they belong to, as JSON.

    Args:
        path: of the file.
        results: finite numbers, or None for a figure that is undefined; and as texts `checkpoint` (its path within the
            run), `checkpoint_digest`, and what `PreparedDataModule.description` says of the rows. `by_class` has such
            numbers by the name of a class.
    """
    complete = {**results, _DIGEST: _hash(results)}
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(complete, indent=2, sort_keys=True, allow_nan=False) + "\n")


def read_results(path: Path, checkpoint: Checkpoint, *needed: str) -> dict[str, Any] | None:
    """What `write_results` wrote, if it is of a checkpoint with this very content; None if it is not, or not there.

    Args:
        path: of the file.
        checkpoint: that the figures must belong to.
        needed: names of figures that must be defined.

    Raises:
        UserError: the file is damaged.
    """
    if not path.is_file():
        return None
    try:
        results: Any = json.loads(path.read_text("utf-8"))
        sound = isinstance(results, dict) and _is_sound(results)
    except (OSError, ValueError, RecursionError):
        sound = False
    if sound and results.get("checkpoint_digest") != checkpoint.digest:
        return None
    if not sound or any(results.get(name) is None for name in needed):
        raise UserError(f"{path} is damaged: delete it, and evaluate the checkpoint again")
    return dict(results)


def _is_sound(results: Mapping[str, Any]) -> bool:
    content = {name: value for name, value in results.items() if name != _DIGEST}
    if results.get(_DIGEST, _hash(content)) != _hash(content):  # an earlier version wrote none
        return False
    if type(content.pop("n", None)) is not int:
        return False
    texts = [content.pop(name, "") for name in _TEXTS]
    by_class = content.pop(BY_CLASS, {})
    if not isinstance(by_class, dict) or not all(isinstance(figures, dict) for figures in by_class.values()):
        return False
    figures = chain(content.values(), *(figures.values() for figures in by_class.values()))
    return all(isinstance(text, str) for text in texts) and all(map(_is_figure, figures))


def _is_figure(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < 1e300)  # neither NaN nor infinite


def _hash(results: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(results, sort_keys=True).encode()).hexdigest()[:32]
