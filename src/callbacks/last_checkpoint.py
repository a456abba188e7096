"""Saves `checkpoints/last.ckpt`, from which an interrupted run resumes."""

from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT

from src.models.base import Batch
from src.runs.checkpoint_reading import FINISHED_KEY
from src.runs.directories import LAST


def validation_is_due(trainer: Trainer) -> bool:
    """Whether the batch that has just ended is the last of its epoch, or is followed by a validation.

    A checkpoint that is saved between the two would resume after the validation, which then never happens.
    """
    loop, batches = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    assert batches is not None
    return loop.batch_progress.is_last_batch or loop._should_check_val_fx(batches)


class LastCheckpoint(Checkpoint):
    """Saves a run's `last.ckpt` after each epoch's validation, every few steps within an epoch, and at the end.

    Lightning's ModelCheckpoint would not do. It saves every few steps or every few epochs, not both. It deletes the
    old file. And a checkpoint that it saves at an epoch's last batch resumes without that epoch's validation.

    Args:
        every_n_train_steps: optimizer steps between two saves; 0 saves at the ends of epochs only.

    Attributes:
        run: directory of the run; None means that of the first logger.
    """

    def __init__(self, every_n_train_steps: int = 100) -> None:
        self.every_n_train_steps = every_n_train_steps
        self.run: Path | None = None
        self.finished = False

    def path(self, trainer: Trainer) -> str:
        """The path of the checkpoint."""
        return f"{self.run or trainer.log_dir}/{LAST}"

    def save(self, trainer: Trainer) -> None:
        """Saves the checkpoint now. All ranks must call it."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path(trainer))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        """Saves after every n-th optimizer step, but never between the batches whose gradients one step accumulates.

        A checkpoint holds no gradients, so a run resumed from there would lose those of the earlier batches.
        """
        if not self.every_n_train_steps or trainer.fit_loop._should_accumulate() or validation_is_due(trainer):
            return
        if trainer.global_step % self.every_n_train_steps == 0:
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.fit_loop._should_accumulate():
            self.save(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves after an epoch without validation rows."""
        if not sum(trainer.num_val_batches):
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.finished = not trainer.interrupted
        self.save(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint[FINISHED_KEY] = self.finished
