"""Progress where the output is a file or a pipe: a line now and then, in place of a bar."""

import math
import time
from datetime import timedelta
from typing import Any

import lightning
from lightning.pytorch.callbacks import Timer

_SECONDS_BETWEEN_LINES = 10.0


class PlainProgress(lightning.Callback):
    """Prints a line every ten seconds with epoch, step, loss, speed and the time left, and one after validation."""

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._rows = 0.0
        self._started = self._printed = time.monotonic()
        self._first_batch = trainer.fit_loop.epoch_loop.total_batch_idx + 1

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        self._rows += len(batch["labels"]) * trainer.world_size / trainer.datamodule.windows_a_row  # type: ignore
        now = time.monotonic()
        n_batches = trainer.num_training_batches
        last = batch_idx + 1 == n_batches
        if now - self._printed < _SECONDS_BETWEEN_LINES and not last:
            return
        self._printed = now
        loop = trainer.fit_loop.epoch_loop
        done = loop.total_batch_idx + 1 - self._first_batch
        of = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        line = f"epoch {trainer.current_epoch + 1}{of} step {batch_idx + 1}/{n_batches}"
        line += "".join(
            f" {name} {float(value):.4f}"
            for name, value in trainer.progress_bar_metrics.items()
            if name.startswith("train")
        )
        line += f" {self._rows / (now - self._started):.1f} {pl_module.rows_are}/s"
        left = _batches_left(trainer, batch_idx) * (now - self._started) / max(done, 1)
        left = min(left, _most_time_left(trainer))
        if left < math.inf:
            line += f" about {timedelta(seconds=round(left))} left"
        print(line, flush=True)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.is_global_zero and trainer.state.fn == "fit" and not trainer.sanity_checking:
            figures = {
                k: float(v)
                for k, v in trainer.callback_metrics.items()
                if k in ("val/loss", "val/accuracy", "val/mlm_loss")
            }
            print(
                f"epoch {trainer.current_epoch + 1}: " + ", ".join(f"{k} {v:.4f}" for k, v in figures.items()),
                flush=True,
            )


def _batches_left(trainer: lightning.Trainer, batch_idx: int) -> float:
    """How many are to come after this one, by max_epochs and max_steps; infinite where neither is set."""
    n = trainer.num_training_batches
    by_epochs = by_steps = math.inf
    if (epochs := trainer.max_epochs or -1) > 0:
        by_epochs = (epochs - trainer.current_epoch) * n - (batch_idx + 1)
    if trainer.max_steps > 0:
        steps_an_epoch = math.ceil(n / trainer.accumulate_grad_batches)  # the last of an epoch may be of fewer batches
        by_steps = (trainer.max_steps - trainer.global_step) * n / steps_an_epoch
    return min(by_epochs, by_steps)


def _most_time_left(trainer: lightning.Trainer) -> float:
    """Seconds that max_time leaves; infinite without it."""
    timers = [callback for callback in trainer.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
    left = [timer.time_remaining() for timer in timers]
    return min((seconds for seconds in left if seconds is not None), default=math.inf)
