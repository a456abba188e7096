"""Stops training on SIGTERM or SIGINT: finishes the step, saves last.ckpt and prints how to resume."""

import os
import signal
import time
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

_SECONDS_BETWEEN_QUESTIONS = 1.0
_STEPS_BETWEEN_QUESTIONS = 100


class GracefulStop(Checkpoint):
    """Saves last.ckpt and ends `fit` after the step in which any rank gets a signal; exit status 143 or 130.

    Lightning itself exits with 0 after SIGTERM, stops in the middle of a step after SIGINT, and hangs if a rank other
    than 0 gets the signal. This is a `Checkpoint` so that Lightning calls it after the callbacks that save.

    To ask the other ranks, a GPU has to be waited for. So they are asked about once a second, in the same steps, and
    after each validation.

    Args:
        last: saves the checkpoint; None where no checkpoints are wanted.
    """

    def __init__(self, last: LastCheckpoint | None) -> None:
        self.last = last
        self.signum = 0
        self._asked_at = 0.0
        self._asked_after = self._ask_after = 0  # steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Lightning has set its own handlers before, and restores the previous ones at the end
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)
        # it asks rank 0 for a SIGTERM before each step, and waits for the answer (lightning #21487)
        trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]
        self._asked_at, self._asked_after = time.monotonic(), trainer.global_step
        self._ask_after = trainer.global_step + 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        if trainer.world_size > 1 and trainer.global_step < self._ask_after:
            return
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

    def _ask_all(self, trainer: Trainer) -> int:
        """The signal that any rank has got, or 0; all find the same step in which to ask next."""
        now = time.monotonic()
        found = torch.tensor([self.signum, now - self._asked_at], device=trainer.strategy.root_device)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        signum, seconds = found.tolist()
        per_second = (trainer.global_step - self._asked_after) / max(seconds, 1e-3)
        steps = min(int(per_second * _SECONDS_BETWEEN_QUESTIONS), _STEPS_BETWEEN_QUESTIONS)
        self._asked_at, self._asked_after = now, trainer.global_step
        self._ask_after = trainer.global_step + max(1, steps)
        return int(signum)

    def _stop_if_signalled(self, trainer: Trainer) -> None:
        signum = self._ask_all(trainer) if trainer.world_size > 1 else self.signum
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
