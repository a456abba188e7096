"""Stops training on SIGTERM or SIGINT: finishes the step, saves last.ckpt and prints how to resume."""

import os
import signal
from pathlib import Path
from types import FrameType

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.types import STEP_OUTPUT

from src.callbacks.last_checkpoint import LastCheckpoint, validation_is_due
from src.models.base import Batch
from src.runs import directories
from src.system.errors import Interrupted
from src.system.signals import say


class GracefulStop(Checkpoint):
    """Saves last.ckpt and ends `fit` after the step in which any rank gets a signal; exit status 143 or 130.

    Lightning itself exits with 0 after SIGTERM, stops in the middle of a step after SIGINT, and hangs if a rank other
    than 0 gets the signal. This is a `Checkpoint` so that Lightning calls it after the callbacks that save.

    Args:
        last: saves the checkpoint; None where no checkpoints are wanted.
    """

    def __init__(self, last: LastCheckpoint | None) -> None:
        self.last = last
        self.signum = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning has set its own handlers before, and restores the previous ones at the end
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        # a validation that is due comes first: see on_validation_end
        if not trainer.fit_loop._should_accumulate() and not validation_is_due(trainer):
            self._stop_if_signalled(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.fit_loop._should_accumulate():
            self._stop_if_signalled(trainer)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            os._exit(128 + signum)  # a second Ctrl-C ends the process at once
        self.signum = signum
        say(f"\n{signal.Signals(signum).name}: stopping after this step")

    def _stop_if_signalled(self, trainer: Trainer) -> None:
        signum = self.signum
        if trainer.world_size > 1:
            highest = torch.tensor(signum, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(highest, torch.distributed.ReduceOp.MAX)
            signum = int(highest)
        if not signum:
            return
        stopped = f"stopped by {signal.Signals(signum).name} after step {trainer.global_step}"
        if self.last is None:
            raise Interrupted(signum, f"{stopped}; nothing is saved, since trainer.enable_checkpointing is false")
        self.last.save(trainer)
        saved = Path(self.last.path(trainer))
        own = directories.is_read_unasked(directories.run_of(saved), Path())
        resume = f"python -m src fit {'--ckpt_path last' if own else directories.chosen(saved)}"
        raise Interrupted(signum, f"{stopped}; saved {saved}; resume with: {resume}")
