"""metrics.csv that outlives a restart."""

import csv
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter


class _Writer(ExperimentWriter):
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
            path = Path(self.log_dir) / ExperimentWriter.NAME_METRICS_FILE
            kept: list[dict[str, str]] = []
            if self.resume_step is not None and path.is_file():
                with path.open(newline="") as stream:
                    kept = [row for row in csv.DictReader(stream) if int(row["step"] or 0) < self.resume_step]
                path.unlink()
            writer = _Writer(log_dir=self.log_dir)
            writer.metrics = [{key: value for key, value in row.items() if value != ""} for row in kept]  # type: ignore[misc]
            self._experiment = writer
            writer.save()
        return self._experiment  # type: ignore[return-value]
