"""Callbacks that record `python -m src`: `--trainer.callbacks+=benchmarks.speed.recorder_callback.LightningProbe`."""

import os
import signal
from typing import Any

import lightning
import torch
from lightning.pytorch.profilers import Profiler

from benchmarks.speed.recorder import Recorder

_RECORDER = Recorder()


class LightningProbe(lightning.Callback):
    """Records training steps and evaluation. The user's callbacks run before the project's own."""

    def on_fit_start(self, *args: Any) -> None:
        """Before the linear probe, which is the module's own `on_fit_start`."""
        _RECORDER.report["fit_at"] = _RECORDER.now()[0]

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        _RECORDER.report["lengths"].append(batch.get("lengths", []))  # of each row
        _RECORDER.step_begins()

    def on_train_batch_end(self, *args: Any) -> None:
        _RECORDER.step_ends()

    def on_train_end(self, *args: Any) -> None:
        _RECORDER.write()

    def on_validation_start(self, *args: Any) -> None:
        self._started, self._rows = _RECORDER.now()[0], 0

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any
    ) -> None:
        self._rows += len(batch["labels"])

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "validate":
            _RECORDER.report["evaluation_s"] = _RECORDER.now()[0] - self._started
            _RECORDER.report["evaluated"] = self._rows
            _RECORDER.write()


class KillAfter(lightning.Callback):
    """Ends the process by SIGKILL after so many steps."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class NoSynchronisation(lightning.Callback):
    """In the second epoch, makes it an error to wait for the GPU, except in the first and last steps."""

    def __init__(self, margin: int = 20) -> None:
        self.margin = margin

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == self.margin:
            torch.cuda.set_sync_debug_mode("error")
        if trainer.current_epoch == 1 and batch_idx == trainer.num_training_batches - self.margin:
            torch.cuda.set_sync_debug_mode("default")


class PrepareProfiler(Profiler):
    """Records how long the data module's `prepare_data` and `setup` take, as Lightning calls them."""

    def __init__(self) -> None:
        super().__init__()
        self._started: dict[str, float] = {}

    def start(self, action_name: str) -> None:
        self._started[action_name] = _RECORDER.now()[0]

    def stop(self, action_name: str) -> None:
        kind, _, method = action_name.rpartition(".")
        if kind.startswith("[LightningDataModule]") and method in ("prepare_data", "setup"):
            took = _RECORDER.report["prepare_s"]
            took[method] = took.get(method, 0.0) + _RECORDER.now()[0] - self._started[action_name]
