"""SIGTERM and SIGINT: finish the step, save, and say how to go on."""

import os
import signal
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Checkpoint

from src.callbacks.last_checkpoint import LastCheckpoint
from src.system.errors import Interrupted


class GracefulStop(Checkpoint):
    """Ends `fit` at the next step's boundary after a signal to any rank, with a checkpoint; exit 143 or 130.

    Lightning's own way exits 0 after SIGTERM, interrupts in mid-step after SIGINT, and hangs where a rank other
    than 0 is signalled. A `Checkpoint`, so that Lightning calls it after those that save the best.

    Args:
        last: saves the checkpoint.
    """

    def __init__(self, last: LastCheckpoint) -> None:
        self.last = last
        self.signum = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # after Lightning has set its handlers, which it also takes away again at the end
        signal.signal(signal.SIGTERM, self._note)
        signal.signal(signal.SIGINT, self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            os._exit(128 + signum)  # a second Ctrl-C: at once
        self.signum = signum
        print(f"\n{signal.Signals(signum).name}: stopping after this step", flush=True)

    def _signal_on_any_rank(self, trainer: lightning.Trainer) -> int:
        if trainer.world_size == 1:
            return self.signum
        signum = torch.tensor(self.signum, device=trainer.strategy.root_device)
        torch.distributed.all_reduce(signum, torch.distributed.ReduceOp.MAX)
        return int(signum)

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        loop = trainer.fit_loop.epoch_loop
        if loop.batch_progress.is_last_batch or loop._should_accumulate():
            return  # at the end of an epoch, validation comes first: on_validation_end
        if signum := self._signal_on_any_rank(trainer):
            self._stop(trainer, signum)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.fit_loop._should_accumulate():
            return
        if signum := self._signal_on_any_rank(trainer):
            self._stop(trainer, signum)

    def _stop(self, trainer: lightning.Trainer, signum: int) -> None:
        self.last.save(trainer)
        raise Interrupted(
            signum,
            f"stopped by {signal.Signals(signum).name} after step {trainer.global_step}; "
            f"saved {self.last.path(trainer)}; go on with: python -m src fit --ckpt_path last",
        )
