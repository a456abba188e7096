"""The figures at the end: on the screen, and in a file that other programs read."""

import json
import math
import os
from pathlib import Path
from typing import Any

import lightning

from src.models.metrics import wilson_interval
from src.runs.reading import Checkpoint
from src.system.atomic import atomic_write


class Results(lightning.Callback):
    """Writes `validate.json` or `test.json` into the run that the checkpoint belongs to, and prints the accuracy, or
    whatever else a model is measured by.

    The figures of a test go to the run's TensorBoard log too, at the step of the checkpoint.

    Args:
        run: the directory of that run.
        checkpoint: what was evaluated.
    """

    def __init__(self, run: Path, checkpoint: Checkpoint) -> None:
        self.run = run
        self.checkpoint = checkpoint

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._write(trainer, "val", self.run / "validate.json")

    def on_test_end(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._write(trainer, "test", self.run / "test.json")

    def _write(self, trainer: lightning.Trainer, prefix: str, path: Path) -> None:
        if not trainer.is_global_zero:
            return
        figures: dict[str, Any] = {
            name.removeprefix(f"{prefix}/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{prefix}/")
        }
        if prefix == "test":  # those of validation stand in the log since training
            step = self.checkpoint.step - 1
            for logger in trainer.loggers:
                logger.log_metrics({f"test/{name}": value for name, value in figures.items() if name != "n"}, step)
        figures["n"] = n = int(figures["n"])
        figures["checkpoint"] = os.path.relpath(self.checkpoint.path, self.run)
        if "accuracy" in figures:
            correct = round(figures["accuracy"] * n)  # exact again, after fp32
            low, high = wilson_interval(correct, n)
            figures |= {"accuracy": correct / n, "accuracy_low": low, "accuracy_high": high}
            print(f"Accuracy: {figures['accuracy']:.4f} (95% CI {low:.4f}–{high:.4f}, n={n})", flush=True)
        else:
            print(", ".join(f"{name} {value:.4f}" for name, value in figures.items() if isinstance(value, float)))
        # JSON knows no NaN, which is what a loss becomes that diverged
        known = {
            name: None if isinstance(value, float) and math.isnan(value) else value for name, value in figures.items()
        }
        with atomic_write(path) as unfinished:
            unfinished.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
        print(f"Written to {os.path.relpath(path)}", flush=True)
