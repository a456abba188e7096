"""Prints the result of `validate` or `test` and writes it to validate.json or test.json."""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from src.data.base import PreparedDataModule
from src.models.base import TransformerModule
from src.models.classifier import BertClassifier
from src.models.metrics import wilson_interval
from src.runs.checkpoint_reading import Checkpoint
from src.runs.results import BY_CLASS, write_results


class Results(Callback):
    """Writes `validate.json` or `test.json` into the checkpoint's run and prints the accuracy with its 95% interval.

    If the model has no accuracy, all its metrics are printed. Those of a test are also logged, at the checkpoint's
    step.

    Args:
        run: directory of the checkpoint's run.
        checkpoint: the checkpoint that is evaluated.
    """

    def __init__(self, run: Path, checkpoint: Checkpoint) -> None:
        self.run = run
        self.checkpoint = checkpoint

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "val", self.run / "validate.json")

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer, pl_module, "test", self.run / "test.json")

    def _write(self, trainer: Trainer, pl_module: LightningModule, prefix: str, path: Path) -> None:
        if not trainer.is_global_zero:
            return
        figures: dict[str, float] = {
            name.removeprefix(f"{prefix}/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith(f"{prefix}/")
        }
        assert isinstance(pl_module, TransformerModule)
        figures |= dict.fromkeys(pl_module.undefined, math.nan)
        n = int(figures.pop("n"))
        if prefix == "test":  # `fit` has logged the validation metrics already
            step = self.checkpoint.step - 1
            for logger in trainer.loggers:
                logger.log_metrics({f"test/{name}": v for name, v in figures.items() if math.isfinite(v)}, step)
        if "accuracy" in figures:
            correct = round(figures["accuracy"] * n)  # fp32 has rounded the accuracy
            low, high = wilson_interval(correct, n)
            figures |= {"accuracy": correct / n, "accuracy_low": low, "accuracy_high": high}
            line = f"Accuracy: {figures['accuracy']:.4f} (95% CI {low:.4f}–{high:.4f}, n={n})"
        else:
            line = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        known: dict[str, Any] = _defined(figures)
        if isinstance(pl_module, BertClassifier):
            known[BY_CLASS] = {name: _defined(each) for name, each in pl_module.by_class.items()}
        known |= {"n": n, "checkpoint": os.path.relpath(self.checkpoint.path, self.run)}
        known["checkpoint_digest"] = self.checkpoint.digest
        data: PreparedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        known |= data.description(prefix)
        write_results(path, known)
        # afterwards, since printing may fail: the output may be closed, or not take the dash
        print(f"{line}\nWritten to {os.path.relpath(path)}", flush=True)


def _defined(figures: Mapping[str, float]) -> dict[str, float | None]:
    """The figures as JSON has them: what is undefined is null."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}
