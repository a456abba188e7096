"""Writes a run's metrics.csv, which a resumed run continues."""

import csv
import re
import shutil
import sys
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from src.system.atomic import atomic_write, remove_unfinished


class _Writer(ExperimentWriter):
    """An ExperimentWriter that deletes no file and replaces metrics.csv atomically, so that a kill leaves it whole."""

    def keep_rows_before(self, step: int) -> None:
        """Removes the rows from `step` on, and an incomplete last row that a kill left.

        Damaged rows are left out too. The file as it was is then kept as metrics.damaged.csv.
        """
        path = Path(self.metrics_file_path)
        if not path.is_file():
            return
        self.metrics_keys, rows, damaged = _whole_rows(path.read_bytes())
        if damaged:
            kept = path.with_name("metrics.damaged.csv")
            shutil.copyfile(path, kept)
            print(f"{path} is damaged: what is left of it goes on; as it was, it is {kept.name} now", file=sys.stderr)
        if self.metrics_keys:
            self._replace([row for row in rows if int(row["step"]) < step])
        else:
            path.unlink()

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        self._replace(rows)

    def _replace(self, rows: list[dict[str, str]]) -> None:
        target = Path(self.metrics_file_path)
        remove_unfinished(target)  # the run is locked
        with atomic_write(target) as path, path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        """Neither deletes metrics.csv nor warns that the run's directory has files."""


def _whole_rows(content: bytes) -> tuple[list[str], list[dict[str, str]], bool]:
    """The header and the rows that are whole, and whether anything else is in the file.

    Without a whole header there is neither. An incomplete last line of text is no damage: a kill leaves one.
    """
    *lines, rest = content.split(b"\n")
    header, *rows = [_fields(line) for line in lines] or [[]]
    if "step" not in header or len(set(header)) < len(header):
        return [], [], bool(lines) or not _is_text(rest)
    named = [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
    whole = [row for row in named if re.fullmatch("[0-9]{1,18}", row["step"]) and all(map(_is_number, row.values()))]
    return header, whole, len(whole) < len(rows) or not _is_text(rest)


def _fields(line: bytes) -> list[str]:
    """The fields of a line, none of which holds a line break; none if it is no csv."""
    try:
        return next(csv.reader([line.decode().removesuffix("\r")], strict=True), []) if _is_text(line) else []
    except csv.Error:
        return []


def _is_text(line: bytes) -> bool:
    try:
        return line.decode().removesuffix("\r").isprintable()
    except UnicodeDecodeError:
        return False


def _is_number(value: str) -> bool:
    """Whether a metric can have this value; empty if it was not logged at this step."""
    try:
        float(value)
    except ValueError:
        return value in ("", "True", "False")
    return True


class RunCSVLogger(CSVLogger):
    """A CSVLogger that keeps the rows of a resumed run, where Lightning's deletes the file when it opens it again.

    Args:
        save_dir, name, version: as in CSVLogger; the file is `save_dir/name/version/metrics.csv`.
        resume_step: the step that the run resumes from. Rows from this step on are removed, since the run will write
            them again. None starts an empty file.
    """

    def __init__(self, save_dir: Path, name: str, version: str, resume_step: int | None = None) -> None:
        super().__init__(save_dir, name, version)
        self.resume_step = resume_step

    @property
    @rank_zero_experiment
    def experiment(self) -> ExperimentWriter:
        if self._experiment is None:
            writer = _Writer(log_dir=self.log_dir)
            if self.resume_step is not None:
                writer.keep_rows_before(self.resume_step)
            self._experiment = writer
        return self._experiment  # type: ignore[return-value]
