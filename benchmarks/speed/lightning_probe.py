"""The probe for `python -m src`: `--trainer.callbacks+=benchmarks.speed.lightning_probe.LightningProbe`."""

import os
from typing import Any

import lightning
import numpy as np
from lightning.pytorch.profilers import Profiler

from benchmarks.speed.probe import Recorder

_RECORDER = Recorder()


class LightningProbe(lightning.Callback):
    """Records training steps and evaluation. The user's callbacks run before the project's own."""

    def on_fit_start(self, *args: Any) -> None:
        """Before the linear probe, which is the network's own `on_fit_start`."""
        _RECORDER.report["fit_at"] = _RECORDER.now()[0]

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        _RECORDER.report["lengths"].append(batch["input_ids"].shape[1])
        _RECORDER.step_begins()

    def on_train_batch_end(self, *args: Any) -> None:
        _RECORDER.step_ends()

    def on_train_end(self, *args: Any) -> None:
        _RECORDER.write()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "validate":
            _RECORDER.evaluation_begins()
            _RECORDER.report["evaluated"] = 0

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any
    ) -> None:
        if trainer.state.fn == "validate":
            _RECORDER.report["evaluated"] += len(batch["labels"])

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if trainer.state.fn == "validate":
            _RECORDER.evaluation_ends()
            _RECORDER.write()


class CorrectRows(lightning.Callback):
    """Writes whether each evaluated row is right, in the data's order, to $BENCH_ROWS (.npy)."""

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        self._predicted: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any
    ) -> None:
        self._predicted.append(outputs["logits"].argmax(dim=-1).cpu().numpy())
        self._labels.append(batch["labels"].cpu().numpy())

    def on_test_batch_end(self, *args: Any) -> None:
        self.on_validation_batch_end(*args)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._write(trainer, "val")

    def on_test_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._write(trainer, "test")

    def _write(self, trainer: lightning.Trainer, name: str) -> None:
        order = trainer.datamodule.eval_order(name)  # type: ignore[attr-defined]
        correct = np.empty(len(order), dtype=bool)
        correct[order] = np.concatenate(self._predicted) == np.concatenate(self._labels)
        np.save(os.environ["BENCH_ROWS"], correct)


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
