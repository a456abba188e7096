"""Writes a run's metrics.csv, which a resumed run continues."""

import csv
from pathlib import Path

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from src.system.atomic import atomic_write


class _Writer(ExperimentWriter):
    """An ExperimentWriter that deletes no file and replaces metrics.csv atomically, so that a kill leaves it whole."""

    def keep_rows_before(self, step: int) -> None:
        """Removes the rows from `step` on, and an incomplete last row that a kill left."""
        path = Path(self.metrics_file_path)
        if path.is_file():
            lines = path.read_text().splitlines(keepends=True)
            reader = csv.DictReader(line for line in lines if line.endswith("\n"))
            kept = [row for row in reader if int(row["step"]) < step]
            self.metrics_keys = list(reader.fieldnames or [])
            self._replace(kept)

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="") as stream:
            rows = list(csv.DictReader(stream))
        self._replace(rows)

    def _replace(self, rows: list[dict[str, str]]) -> None:
        with atomic_write(Path(self.metrics_file_path)) as path, path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, self.metrics_keys)
            writer.writeheader()
            writer.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        """Neither deletes metrics.csv nor warns that the run's directory has files."""


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
