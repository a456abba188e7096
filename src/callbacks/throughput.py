"""Measures training speed: reviews and tokens per second, and padding."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT

from src.data.base import PreparedDataModule
from src.models.base import Batch, TransformerModule

_MOST_STEPS = 100
"""Steps whose GPU events are kept before their times are added up."""


class Throughput(Callback):
    """Measures `train/reviews_per_s`, `train/tokens_per_s` and `train/padding_waste`.

    `StepLog` logs them. Each value covers the steps since the last row of the log. Only the steps are timed, not the
    loading of batches between them. On a GPU, CUDA events time the steps, so that the program never waits for the GPU.

    If reviews are read in windows, the number of reviews is the number of windows over their mean number per review.
    `padding_waste` is the share of padding among all tokens computed.
    """

    def __init__(self) -> None:
        self._device = ""
        self._reset()

    def _reset(self) -> None:
        self._rows = self._computed = 0
        self._tokens: int | torch.Tensor = 0
        self._seconds = 0.0
        self._steps: list[tuple[Any, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TransformerModule)
        data: PreparedDataModule = trainer.datamodule  # type: ignore[attr-defined]
        self._reset()
        self._unit = pl_module.rows_are
        self._windows_a_row = data.windows_a_row
        self._device = trainer.strategy.root_device.type

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._started = self._now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: STEP_OUTPUT, batch: Batch, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, TransformerModule)
        lengths = batch["attention_mask"].sum(dim=1)
        self._rows += len(batch["labels"])
        self._computed += pl_module.tokens_computed(batch)
        # int() waits for the device. CUDA events need no wait; on other devices the clock is right only after it
        self._tokens += lengths.sum() if self._device == "cuda" else int(lengths.sum())
        self._steps.append((self._started, self._now()))
        if len(self._steps) == _MOST_STEPS:
            self._add_up()

    def metrics(self, trainer: Trainer) -> dict[str, float]:
        """The values since the last call, by their names in the log; empty if there was no step."""
        self._add_up()
        if not self._seconds:
            return {}
        tokens = int(self._tokens)
        row = {
            f"train/{self._unit}_per_s": self._rows * trainer.world_size / self._windows_a_row / self._seconds,
            "train/tokens_per_s": tokens * trainer.world_size / self._seconds,
            "train/padding_waste": 1 - tokens / self._computed,
        }
        self._reset()
        return row

    def _now(self) -> Any:
        """The current time; on a GPU an event for the moment at which the GPU has done all its work so far."""
        if self._device != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _add_up(self) -> None:
        """Adds the steps' times to the sum. Waits for a GPU that has not finished them."""
        for begin, end in self._steps:
            if self._device == "cuda":
                end.synchronize()
            self._seconds += begin.elapsed_time(end) / 1000 if self._device == "cuda" else end - begin
        self._steps.clear()
