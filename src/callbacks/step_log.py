"""Logs one row of training metrics per step, before a checkpoint of that step can be saved."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.types import STEP_OUTPUT

from src.callbacks.throughput import Throughput
from src.models.base import Batch, TransformerModule


class StepLog(Callback):
    """Logs the module's `step_metrics` every n-th step and its `epoch_metrics` at the end of each epoch.

    Lightning writes what `self.log` was given only after `on_train_batch_end`, in which checkpoints are saved. A run
    that is killed in between and resumed from the checkpoint has lost that step's row. So this callback writes the row
    itself, and comes before the callbacks that save.

    Args:
        throughput: adds its metrics to each row.
    """

    def __init__(self, throughput: Throughput) -> None:
        self.throughput = throughput

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Logs every `log_every_n_steps`-th optimizer step (0: none) and the last of each epoch."""
        assert isinstance(pl_module, TransformerModule)
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate():
            return
        row: dict[str, float] = {}
        last = loop.batch_progress.is_last_batch
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if last or (every and trainer.global_step % every == 0):
            row |= pl_module.step_metrics() | self.throughput.metrics(trainer) | {"epoch": trainer.current_epoch}
        if last:
            row |= {f"{name}_epoch": value for name, value in pl_module.epoch_metrics().items()}
        if row:
            for logger in trainer.loggers:
                logger.log_metrics(row, trainer.global_step - 1)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Flushes the loggers, so that a kill after the checkpoint loses no row."""
        for logger in trainer.loggers:
            logger.save()
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.flush()
