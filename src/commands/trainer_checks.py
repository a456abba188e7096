"""Refuses by name, before training, what of the Trainer does not work here: values, callbacks and strategies."""

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Checkpoint,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    SpikeDetection,
    StochasticWeightAveraging,
)
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from src.system.errors import UserError

_LEAST = {
    "accumulate_grad_batches": 1,
    "check_val_every_n_epoch": 1,
    "log_every_n_steps": 0,
    "gradient_clip_val": 0,
}

_CALLBACKS: dict[type[Callback], str] = {
    BaseFinetuning: "changes the parameters that the optimizer has, which a resumed run could not restore: use "
    "model.layer_decay, or model.linear_probe",
    BatchSizeFinder: "changes the batch size of a run that has begun, and with it the schedule: find the largest size "
    "with --trainer.fast_dev_run true, and set data.batch_size",
    GradientAccumulationScheduler: "changes the number of steps, which the learning rate follows: use "
    "trainer.accumulate_grad_batches",
    ModelPruning: "needs the layers before the network is built: prune the exported model",
    SpikeDetection: "cannot be restored from a checkpoint, so its run could be neither resumed nor tested; a loss that "
    "is no number ends a run without it",
    StochasticWeightAveraging: "replaces the schedule, so that its run could not be resumed exactly: use "
    "lightning.pytorch.callbacks.WeightAveraging or EMAWeightAveraging",
}


def check_options(options: Mapping[str, Any]) -> None:
    """Raises UserError if an option of the Trainer has a value that would fail, or be ignored, after training began."""
    for name, least in _LEAST.items():
        value = options.get(name)
        if value is not None and not value >= least:  # NaN too
            raise UserError(f"trainer.{name} is {value}; it must be {least} or more")
    interval = options.get("val_check_interval")
    if isinstance(interval, int | float) and not 0 < interval < math.inf:
        raise UserError(f"trainer.val_check_interval is {interval}; it must be above 0")
    if options.get("barebones"):
        raise UserError(
            "trainer.barebones leaves out what this program logs and saves: use trainer.logger=false, "
            "trainer.enable_checkpointing=false and trainer.enable_progress_bar=false"
        )


def check_unsaved(callbacks: list[Callback]) -> None:
    """Raises UserError if a callback saves, though `trainer.enable_checkpointing` is false."""
    for callback in callbacks:
        if isinstance(callback, Checkpoint):
            raise UserError(
                f"trainer.enable_checkpointing is false, but trainer.callbacks has {type(callback).__name__}, which "
                "saves checkpoints: leave out one of them"
            )


def check_parts(trainer: Trainer, options: Mapping[str, Any]) -> None:
    """Raises UserError if a callback or the strategy of a Trainer does not work here.

    Args:
        trainer: as it was made.
        options: of which it was made.
    """
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    for callback in callbacks:
        for refused, reason in _CALLBACKS.items():
            if isinstance(callback, refused):
                raise UserError(f"{type(callback).__name__} {reason}")
        if isinstance(callback, LearningRateFinder) and trainer.max_steps:
            raise UserError(
                "LearningRateFinder changes the learning rate but not the schedule, and runs again when its run is "
                "resumed: use it with --trainer.max_steps 0, and train with what it prints as model.learning_rate"
            )
    strategy, typed = trainer.strategy, options.get("strategy")
    name = f"trainer.strategy={typed}" if isinstance(typed, str) else type(strategy).__name__
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise UserError(
            f"{name} trains in copies of this process, which would not get the results: use trainer.strategy=ddp"
        )
    if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy) or isinstance(strategy, DeepSpeedStrategy):
        raise UserError(
            f"{name} shares out the parameters, of which gradient norms, checkpoints and exact resuming need all: "
            "use trainer.strategy=ddp"
        )
