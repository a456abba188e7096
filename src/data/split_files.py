"""The files of each split of a local data set.

`datasets.load_dataset` is not used for them: it takes a file's name for a pattern ("reviews[1].csv" reads
reviews1.csv), and any file of a folder for data, those of a run among them.
"""

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from huggingface_hub import DatasetCard

from src.data.tables import SUFFIXES, format_by_name
from src.system.errors import UserError, one_line

SplitFiles = dict[str, list[Path]]
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}")
_OURS = "lightning_logs"


# ---- files ----------------------------------------------------------------------------------------------------------


def find_split_files(path: Path, config_name: str | None) -> SplitFiles:
    """The files of each split of a local data set, by the conventions of `datasets`.

    A file is the split "train". In a folder, the configurations in its README.md say which files belong to a split.
    Without them, the names do: `train.csv`, `test-00000-of-00002.parquet`, `my_dev_rows.jsonl`, `test/part1.csv`; for
    each split, the first of these ways that finds a file counts. Where no name tells a split, all files are "train".
    Hidden files and runs (lightning_logs) do not count.

    Args:
        path: of a file or folder.
        config_name: of a configuration in README.md; None takes the only one, or the default.

    Raises:
        UserError: there are no such files.
    """
    if path.is_file():
        if format_by_name(path) is None:
            raise UserError(f"the data set {str(path)!r} is no file of a known kind ({', '.join(SUFFIXES)})")
        return {"train": [path]}
    if configurations := _configurations(path):
        return _files_of_configuration(path, configurations, config_name)
    if config_name is not None:
        raise UserError(f"data.config_name is {config_name!r}, but the data set {str(path)!r} has no configurations")
    return _files_by_name(path)


def _files_by_name(folder: Path) -> SplitFiles:
    files = [file for file in _visible_files(folder) if format_by_name(file) not in (None, "txt")]
    found: SplitFiles = {}
    for split, words in _SPLITS.items():
        ways = [
            [file for file in files if _stem(file) in words],
            [file for file in files if (shard := _SHARD.fullmatch(_stem(file))) and shard[1] in words],
            [file for file in files if _is_named(_stem(file), words)],
            [file for file in files if any(_is_named(part, words) for part in file.relative_to(folder).parts[:-1])],
        ]
        if first := next(filter(None, ways), None):
            found[split] = first
            files = [file for file in files if file not in first]
    for file in files:
        if shard := _SHARD.fullmatch(_stem(file)):  # unsupervised-00000-of-00001.parquet
            found.setdefault(shard[1], []).append(file)
    found = found or {"train": [file for file in files if file.parent in (folder, folder / "data")]}
    for split, of_split in found.items():
        kinds = {format_by_name(file) for file in of_split}
        if not of_split:
            raise UserError(f"the data set's folder {folder} has no files of a known kind ({', '.join(SUFFIXES)})")
        if len(kinds) > 1:
            names = ", ".join(str(file.relative_to(folder)) for file in of_split)
            raise UserError(f"the split {split!r} of {folder} has files of several kinds: {names[:200]}")
    return found


def _visible_files(folder: Path) -> list[Path]:
    """All files below a folder, sorted, but hidden ones and those of runs."""

    def visible(part: str) -> bool:
        return not part.startswith((".", "__")) and part != _OURS

    return sorted(
        file for file in folder.rglob("*") if all(map(visible, file.relative_to(folder).parts)) and file.is_file()
    )


def _stem(file: Path) -> str:
    return file.name.lower().partition(".")[0]


def _is_named(name: str, words: Sequence[str]) -> bool:
    return any(word in words for word in re.split(r"[^a-z]+", name.lower()))


# ---- configurations in README.md ------------------------------------------------------------------------------------


def _configurations(folder: Path) -> list[dict[str, Any]]:
    """The configurations that a README.md on the Hub has in its metadata; none without such a file."""
    readme = folder / "README.md"
    if not readme.is_file():
        return []
    try:
        found = DatasetCard.load(readme).data.to_dict().get("configs") or []
        if not all(isinstance(each, dict) and "config_name" in each for each in found):
            raise ValueError("its configs have no config_name")
    except Exception as error:  # errors of PyYAML and huggingface_hub
        raise UserError(f"the metadata of {readme} cannot be read: {one_line(error)[:200]}") from error
    return [each for each in found if each.get("data_files") or each.get("data_dir")]


def _files_of_configuration(folder: Path, configurations: list[dict[str, Any]], name: str | None) -> SplitFiles:
    names = [str(each["config_name"]) for each in configurations]
    default = [each for each in configurations if each.get("default") or each["config_name"] == "default"]
    chosen = [each for each in configurations if str(each["config_name"]) == name] if name else default
    chosen = chosen or (configurations if len(names) == 1 and not name else [])
    if not chosen:
        raise UserError(
            f"the data set {str(folder)!r} has the configurations {', '.join(names)}: data.config_name names one"
        )
    files: SplitFiles = {}
    patterns = chosen[0].get("data_files")
    if patterns is None:
        return _files_by_name(_inside(folder, str(chosen[0]["data_dir"])))
    if isinstance(patterns, str) or (isinstance(patterns, list) and all(isinstance(each, str) for each in patterns)):
        patterns = [{"split": "train", "path": patterns}]
    elif isinstance(patterns, dict):
        patterns = [{"split": split, "path": path} for split, path in patterns.items()]
    for each in patterns:
        split, paths = str(each["split"]), each["path"]
        if not re.fullmatch(r"\w+(\.\w+)*", split):
            raise UserError(f"README.md of {folder} has a split {split!r}, which is no name")
        for pattern in [paths] if isinstance(paths, str) else paths:
            files.setdefault(split, []).extend(_matching(folder, str(pattern)))
    return files


def _matching(folder: Path, pattern: str) -> list[Path]:
    plain = _inside(folder, pattern)
    visible = _visible_files(folder)
    found = [plain] if plain.is_file() else [file for file in folder.glob(pattern) if file in visible]
    if unknown := [file for file in found if format_by_name(file) is None]:
        raise UserError(
            f"README.md of {folder} names {unknown[0].name}, no file of a known kind ({', '.join(SUFFIXES)})"
        )
    if not found:
        raise UserError(f"README.md of {folder} names {pattern!r}, but the folder has no such file")
    return sorted(found)


def _inside(folder: Path, pattern: str) -> Path:
    """A path of README.md within the folder; never one elsewhere, since a stranger may have written it."""
    if "://" in pattern or "::" in pattern or PurePosixPath(pattern).is_absolute() or ".." in Path(pattern).parts:
        raise UserError(f"README.md of {folder} names {pattern!r}: only files inside the folder are read")
    return folder / pattern
