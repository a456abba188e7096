"""The files of each split of a data set, on the Hub or in a local folder, by the conventions of `datasets`.

`datasets.load_dataset` is not used for them. It takes the name of a local file for a pattern ("reviews[1].csv" reads
reviews1.csv) and any file of a folder for data, those of a run among them. On the Hub, it reads another revision where
the Hub fails, downloads splits that are not used, and reports each use to a download counter.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any

from fsspec.utils import glob_translate  # type: ignore[import-untyped]

from src.data.tables import SUFFIXES, format_by_name
from src.system.errors import UserError, one_line
from src.system.yaml_reading import parse_yaml

SplitFiles = dict[str, list[str]]
"""By split, the paths of its files within the data set."""
README = "README.md"
_KNOWN = f"no file of a known kind ({', '.join(SUFFIXES)})"
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_SHARD = re.compile(r"(\w+)-\d{5}-of-\d{5}")
METADATA = re.compile(r"\s*---\s*\n(.*?)\n---\s*(?:\n|$)", re.DOTALL)
"""The YAML at the start of a card (README.md) on the Hub."""
_OURS = "lightning_logs"


def find_split_files(files: Sequence[str], readme: str, config_name: str | None, dataset: str) -> SplitFiles:
    """The files of each split.

    The configurations in the README.md say which files belong to a split. Without them, the names do: `train.csv`,
    `test-00000-of-00002.parquet`, `my_dev_rows.jsonl`, `test/part1.csv`; for each split, the first of these ways that
    finds a file counts. Where no name tells a split, all files are "train". Hidden files and runs (lightning_logs) do
    not count.

    Args:
        files: paths of all files within the data set.
        readme: the text of its README.md; empty if there is none.
        config_name: of a configuration; None takes the only one, or the default.
        dataset: its name, for messages.

    Raises:
        UserError: there are no such files.
    """
    visible = sorted(file for file in files if all(map(_is_visible, PurePosixPath(file).parts)))
    if configurations := _configurations(readme, dataset):
        return _files_of_configuration(visible, configurations, config_name, dataset)
    if config_name is not None:
        raise UserError(f"data.config_name is {config_name!r}, but the data set {dataset!r} has no configurations")
    return _files_by_name(visible, dataset)


def _is_visible(part: str) -> bool:
    return not part.startswith((".", "__")) and part != _OURS


def _files_by_name(names: Sequence[str], dataset: str) -> SplitFiles:
    files = [PurePosixPath(name) for name in names if format_by_name(name) not in (None, "txt")]
    found: dict[str, list[PurePosixPath]] = {}
    for split, words in _SPLITS.items():
        ways = [
            [file for file in files if _stem(file) in words],
            [file for file in files if (shard := _SHARD.fullmatch(_stem(file))) and shard[1] in words],
            [file for file in files if _is_named(_stem(file), words)],
            [file for file in files if any(_is_named(part, words) for part in file.parts[:-1])],
        ]
        if first := next(filter(None, ways), None):
            found[split] = first
            chosen = set(first)  # a Hub may list 100,000 files
            files = [file for file in files if file not in chosen]
    for file in files:
        if shard := _SHARD.fullmatch(_stem(file)):  # unsupervised-00000-of-00001.parquet
            found.setdefault(shard[1], []).append(file)
    found = found or {"train": [file for file in files if str(file.parent) in (".", "data")]}
    for split, of_split in found.items():
        if not of_split:
            raise UserError(f"the data set {dataset!r} has {_KNOWN}")
        if len({format_by_name(file) for file in of_split}) > 1:
            kinds = ", ".join(map(str, of_split))[:200]
            raise UserError(f"the split {split!r} of the data set {dataset!r} has files of several kinds: {kinds}")
    return {split: list(map(str, of_split)) for split, of_split in found.items()}


def _stem(file: PurePosixPath) -> str:
    return file.name.lower().partition(".")[0]


def _is_named(name: str, words: Sequence[str]) -> bool:
    return any(word in words for word in re.split(r"[^a-z]+", name.lower()))


# ---- configurations in README.md ------------------------------------------------------------------------------------


def _configurations(readme: str, dataset: str) -> list[dict[str, Any]]:
    """The configurations in the metadata at the start of a README.md; none without metadata."""
    metadata = METADATA.match(readme)
    try:
        content = parse_yaml(metadata[1]) if metadata else None
        found = content.get("configs") or [] if isinstance(content, dict) else []
        if not all(isinstance(each, dict) and "config_name" in each for each in found):
            raise ValueError("its configs have no config_name")
    except (ValueError, TypeError) as error:
        reason = one_line(error)[:200]
        raise UserError(f"the metadata in README.md of the data set {dataset!r} cannot be read: {reason}") from error
    return [each for each in found if each.get("data_files") or each.get("data_dir")]


def _files_of_configuration(
    files: Sequence[str], configurations: list[dict[str, Any]], name: str | None, dataset: str
) -> SplitFiles:
    names = [str(each["config_name"]) for each in configurations]
    default = [each for each in configurations if each.get("default") or each["config_name"] == "default"]
    chosen = [each for each in configurations if str(each["config_name"]) == name] if name else default
    chosen = chosen or (configurations if len(names) == 1 and not name else [])
    if not chosen:
        raise UserError(
            f"the data set {dataset!r} has the configurations {', '.join(names)[:200]}: data.config_name names one"
        )
    patterns = chosen[0].get("data_files")
    if patterns is None:
        folder = f"{_inside(str(chosen[0]['data_dir']), dataset).rstrip('/')}/"
        inside = [file.removeprefix(folder) for file in files if file.startswith(folder)]
        return {
            split: [folder + file for file in of_split] for split, of_split in _files_by_name(inside, dataset).items()
        }
    found: SplitFiles = {}
    for split, pattern in _splits_and_patterns(patterns, dataset):
        found.setdefault(split, []).extend(_matching(files, pattern, dataset))
    return found


def _splits_and_patterns(data_files: Any, dataset: str) -> Iterator[tuple[str, str]]:
    """What `data_files` of a configuration says: a pattern, a list of them, or patterns by split in either of two ways.

    Raises:
        UserError: it is something else.
    """
    if isinstance(data_files, dict):
        pairs = list(data_files.items())
    elif isinstance(data_files, list) and all(isinstance(each, dict) for each in data_files):
        pairs = [(each.get("split"), each.get("path")) for each in data_files]
    else:
        pairs = [("train", data_files)]
    for split, paths in pairs:
        if split is None or not re.fullmatch(r"\w+(\.\w+)*", str(split)):
            raise UserError(f"README.md of the data set {dataset!r} has a split {split!r:.100}, which is no name")
        for path in paths if isinstance(paths, list) else [paths]:
            if not isinstance(path, str):
                raise UserError(f"README.md of the data set {dataset!r} has data_files that are no text: {path!r:.100}")
            yield str(split), path


def _matching(files: Sequence[str], pattern: str, dataset: str) -> list[str]:
    regex = re.compile(glob_translate(_inside(pattern, dataset)))
    found = [file for file in files if file == pattern or regex.fullmatch(file)]
    if unknown := [file for file in found if format_by_name(file) is None]:
        raise UserError(f"README.md of the data set {dataset!r} names {unknown[0]}, {_KNOWN}")
    if not found:
        raise UserError(f"README.md of the data set {dataset!r} names {pattern!r}, but there is no such file")
    return found


def _inside(pattern: str, dataset: str) -> str:
    """A path of README.md within the data set; never one elsewhere, since a stranger may have written it."""
    path = PurePosixPath(pattern)
    if "://" in pattern or "::" in pattern or path.is_absolute() or ".." in path.parts:
        raise UserError(f"README.md of the data set {dataset!r} names {pattern!r}: only files inside it are read")
    return pattern
