"""One row of the log a step, written before a checkpoint of that step can be saved."""

from typing import Any

import lightning
from lightning.pytorch.loggers import TensorBoardLogger

from src.callbacks.throughput import Throughput


class StepLog(lightning.Callback):
    """Writes the module's `step_metrics` of each n-th step, and its `epoch_metrics`, to the loggers.

    Lightning writes what `self.log` was given only after `on_train_batch_end`, where checkpoints are saved: a run
    that is killed after one and resumed from it has lost that step's row. This callback comes before those that save.

    Args:
        throughput: whose figures belong in the same row.
    """

    def __init__(self, throughput: Throughput) -> None:
        self.throughput = throughput

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: Any, *args: Any) -> None:
        """Logs at every `log_every_n_steps`-th optimizer step (0: at none) and at the last of an epoch."""
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

    def on_save_checkpoint(self, trainer: lightning.Trainer, pl_module: Any, checkpoint: dict[str, Any]) -> None:
        """Brings to disk what was logged up to the checkpoint, so that a kill after it loses no row."""
        for logger in trainer.loggers:
            logger.save()
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.flush()
