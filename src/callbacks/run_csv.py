"""metrics.csv that outlives a restart."""

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from src.system.atomic import atomic_write


class _Writer(ExperimentWriter):
    """An ExperimentWriter that deletes nothing, and writes the file anew beside it, so that a kill leaves it whole."""

    def keep_rows_before(self, step: int) -> None:
        """Cuts off the rows from this step on, and one that a kill has left half-written."""
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
        """Deletes nothing, and does not warn of the other files of the run."""


class RunCSVLogger(CSVLogger):
    """A CSVLogger that keeps the rows before a step, where Lightning's deletes the file when it is opened again.

    Args:
        resume_step: rows from this step on belong to what the kill undid, and are cut off; None starts afresh.
    """

    def __init__(self, *args: Any, resume_step: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
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
