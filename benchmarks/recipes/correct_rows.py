"""A callback for `validate` and `test` that writes which evaluated rows are correct."""

import os
from typing import Any

import lightning
import numpy as np


class CorrectRows(lightning.Callback):
    """Writes to $BENCH_ROWS (.npy) whether each row is correct: boolean of shape (rows,), in the data's order."""

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        self._correct: list[np.ndarray] = []

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any
    ) -> None:
        self._correct.append((outputs["logits"].argmax(dim=-1) == batch["labels"]).cpu().numpy())

    def on_test_batch_end(self, *args: Any) -> None:
        self.on_validation_batch_end(*args)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._write(trainer, "val")

    def on_test_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._write(trainer, "test")

    def _write(self, trainer: lightning.Trainer, name: str) -> None:
        order = trainer.datamodule.eval_order(name)  # type: ignore[attr-defined]
        correct = np.empty(len(order), dtype=bool)
        correct[order] = np.concatenate(self._correct)
        np.save(os.environ["BENCH_ROWS"], correct)
