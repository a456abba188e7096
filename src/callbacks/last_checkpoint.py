"""The checkpoint from which an interrupted run goes on."""

from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Checkpoint

from src.runs.folders import LAST
from src.runs.reading import FINISHED_KEY


class LastCheckpoint(Checkpoint):
    """Renews `checkpoints/last.ckpt` after each epoch's validation, and every so many steps within an epoch.

    Not Lightning's ModelCheckpoint: that takes either steps or epochs as its rhythm; removes the file it replaces;
    and saved at the last batch of an epoch, resumes without that epoch's validation.

    Args:
        every_n_train_steps: optimizer steps between two saves; 0 saves at the ends of epochs only.

    Attributes:
        run: the directory of the run; None for the first logger's.
    """

    def __init__(self, every_n_train_steps: int = 100) -> None:
        self.every_n_train_steps = every_n_train_steps
        self.run: Path | None = None
        self.finished = False

    def path(self, trainer: lightning.Trainer) -> str:
        """Where it is saved."""
        return f"{self.run or trainer.log_dir}/{LAST}"

    def save(self, trainer: lightning.Trainer) -> None:
        """Saves now. All ranks must call it."""
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(self.path(trainer))

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        """Saves at every n-th optimizer step, but not between the batches that one step accumulates.

        A checkpoint has no gradients: a run that went on from there would have lost half a step.
        """
        loop = trainer.fit_loop.epoch_loop
        if loop._should_accumulate() or not self.every_n_train_steps or loop.batch_progress.is_last_batch:
            return
        if trainer.global_step % self.every_n_train_steps == 0:
            self.save(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking and not trainer.fit_loop._should_accumulate():
            self.save(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Where there are no validation rows, an epoch ends here."""
        if not sum(trainer.num_val_batches):
            self.save(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.finished = not trainer.interrupted
        self.save(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[FINISHED_KEY] = self.finished
