"""The progress bar on a terminal: Lightning's, but it counts epochs from 1 and says reviews per second."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import ProcessingSpeedColumn
from lightning.pytorch.utilities.types import STEP_OUTPUT
from rich.progress import Task, TaskID
from rich.text import Text

from src.data.base import PreparedDataModule
from src.models.base import Batch, TransformerModule


class _RowsPerSecond(ProcessingSpeedColumn):
    """The rows of a bar so far, over the time that they took."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time if task.finished else task.elapsed
        speed = task.fields["rows"] / seconds if seconds and "rows" in task.fields else 0.0
        return Text(f"{speed:.1f} {task.fields.get('unit', 'rows')}/s", style=self.style)


class ProgressBar(RichProgressBar):
    """Lightning's bar, with the counting and the units of `PlainProgress`."""

    def __init__(self) -> None:
        super().__init__(leave=True)

    def configure_columns(self, trainer: Trainer) -> list[Any]:
        speed = _RowsPerSecond(self.theme.processing_speed)
        columns = super().configure_columns(trainer)
        return [speed if isinstance(column, ProcessingSpeedColumn) else column for column in columns]

    def get_metrics(self, *args: Any) -> dict[str, Any]:
        """Without the version of the logger, which is cut off to "on_0"."""
        return {name: value for name, value in super().get_metrics(*args).items() if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        of = f"/{self.trainer.max_epochs}" if (self.trainer.max_epochs or -1) > 0 else ""
        return f"Epoch {current_epoch + 1}{of}".ljust(len(self.validation_description))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        data: PreparedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self._count(self.train_progress_bar_id, pl_module, len(batch["labels"]) / data.windows_a_row)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, *place: int
    ) -> None:
        super().on_validation_batch_end(trainer, pl_module, outputs, batch, *place)
        self._count(self.val_progress_bar_id, pl_module, len(batch["labels"]))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, *place: int
    ) -> None:
        super().on_test_batch_end(trainer, pl_module, outputs, batch, *place)
        self._count(self.test_progress_bar_id, pl_module, len(batch["labels"]))

    def _count(self, bar: TaskID | None, pl_module: LightningModule, rows: float) -> None:
        if self.progress is not None and bar is not None:
            assert isinstance(pl_module, TransformerModule)
            fields = self.progress.tasks[bar].fields
            fields["rows"] = fields.get("rows", 0.0) + rows * self.trainer.world_size
            fields["unit"] = pl_module.rows_are
