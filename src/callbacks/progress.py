"""Prints the progress of `fit`: one line at the start, and one every ten seconds where no progress bar is shown."""

import math
import time
from datetime import timedelta
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from src.data.base import PreparedDataModule
from src.models.base import Batch, TransformerModule

_SECONDS_BETWEEN_LINES = 10.0


class Summary(Callback):
    """Prints the number of parameters, the device, the batches per epoch and the effective batch size at the start.

    Args:
        run: directory of the run.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        per_device = trainer.datamodule.hparams.batch_size  # type: ignore[attr-defined]
        accumulate = trainer.accumulate_grad_batches
        parts = f"{per_device} per device × {trainer.world_size} devices"
        parts += f" × {accumulate} accumulated" if accumulate > 1 else ""
        millions = sum(p.numel() for p in pl_module.parameters() if p.requires_grad) / 1e6
        resumed = f" from step {trainer.global_step}" if trainer.global_step else ""
        print(
            f"Training {millions:.1f} M parameters on {trainer.strategy.root_device.type}{resumed}: "
            f"{trainer.num_training_batches} batches an epoch, "
            f"effective batch {per_device * trainer.world_size * accumulate} ({parts}); written to {self.run}",
            flush=True,
        )


class PlainProgress(Callback):
    """Prints a line every ten seconds: epoch, step, metrics, speed and time left; and a line after each validation.

    The metrics are those that the module logs with `prog_bar=True`.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._rows = 0.0
        self._started = self._printed = time.monotonic()
        self._first_batch = trainer.fit_loop.epoch_loop.total_batch_idx + 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        assert isinstance(pl_module, TransformerModule)
        data: PreparedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self._rows += len(batch["labels"]) * trainer.world_size / data.windows_a_row
        now = time.monotonic()
        n_batches = trainer.num_training_batches
        if now - self._printed < _SECONDS_BETWEEN_LINES and batch_idx + 1 < n_batches:
            return
        self._printed = now
        elapsed = now - self._started
        done = trainer.fit_loop.epoch_loop.total_batch_idx + 1 - self._first_batch
        left = min(_batches_left(trainer, batch_idx) * elapsed / max(done, 1), _seconds_left_of_max_time(trainer))
        of = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        line = [f"epoch {trainer.current_epoch + 1}{of} step {batch_idx + 1}/{n_batches}", *_metrics(trainer, "train/")]
        line.append(f"{self._rows / elapsed:.1f} {pl_module.rows_are}/s")
        if left < math.inf:
            line.append(f"about {timedelta(seconds=round(left))} left")
        print(*line, flush=True)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and trainer.state.fn == "fit" and not trainer.sanity_checking:
            print(f"epoch {trainer.current_epoch + 1}: {', '.join(_metrics(trainer, 'val/'))}", flush=True)


def _metrics(trainer: Trainer, prefix: str) -> list[str]:
    metrics = trainer.progress_bar_metrics.items()
    return [f"{name} {float(value):.4f}" for name, value in metrics if name.startswith(prefix)]


def _batches_left(trainer: Trainer, batch_idx: int) -> float:
    """Batches still to come by max_epochs and max_steps; infinite if neither is set."""
    n = trainer.num_training_batches
    by_epochs = by_steps = math.inf
    if (epochs := trainer.max_epochs or -1) > 0:
        by_epochs = (epochs - trainer.current_epoch) * n - (batch_idx + 1)
    if trainer.max_steps > 0:
        # the last step of an epoch may accumulate fewer batches
        steps_an_epoch = math.ceil(n / trainer.accumulate_grad_batches)
        by_steps = (trainer.max_steps - trainer.global_step) * n / steps_an_epoch
    return min(by_epochs, by_steps)


def _seconds_left_of_max_time(trainer: Trainer) -> float:
    """Seconds until max_time ends the training; infinite if it is not set."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    left = [timer.time_remaining() for timer in timers]
    return min((seconds for seconds in left if seconds is not None), default=math.inf)
