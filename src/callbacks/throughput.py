"""Measures training speed: reviews and tokens per second, padding, and the share of the CPU's peak."""

import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.types import STEP_OUTPUT
from torch.utils.benchmark import Timer
from transformers import PretrainedConfig

from src.data.base import PreparedDataModule
from src.models.base import Batch, TransformerModule

_MOST_STEPS = 100
"""Steps whose GPU events are kept before their times are added up."""


class Throughput(Callback):
    """Measures `train/reviews_per_s`, `train/tokens_per_s`, `train/padding_waste` and `train/share_of_gemm`.

    `StepLog` logs them. Each value covers the steps since the last row of the log. Only the steps are timed, not the
    loading of batches between them. On a GPU, CUDA events time the steps, so that the program never waits for the GPU.

    If reviews are read in windows, the number of reviews is the number of windows over their mean number per review.
    `padding_waste` is the share of padding among all tokens computed. `share_of_gemm` (on a CPU only) is the rate of
    floating-point operations that the real tokens need, over the rate of an fp32 matrix product measured after the
    first steps: model FLOPs utilisation (MFU) against a measured peak.
    """

    def __init__(self) -> None:
        self._device = ""
        self._gemm_rate = 0.0
        self._reset()

    def _reset(self) -> None:
        self._rows = self._computed = 0
        self._tokens: int | torch.Tensor = 0
        self._flops = self._seconds = 0.0
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
        lengths = batch["attention_mask"].sum(dim=1)
        self._rows += len(batch["labels"])
        self._computed += batch["attention_mask"].numel()
        # int() waits for the device. CUDA events need no wait; on other devices the clock is right only after it
        self._tokens += lengths.sum() if self._device == "cuda" else int(lengths.sum())
        self._steps.append((self._started, self._now()))
        if len(self._steps) == _MOST_STEPS:
            self._add_up()
        if self._device == "cpu":
            assert isinstance(pl_module, TransformerModule)
            assert pl_module.model is not None
            self._flops += training_flops(pl_module.model.config, lengths, pl_module.count_masked_tokens(batch))

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
        if self._device == "cpu":
            self._gemm_rate = self._gemm_rate or gemm_rate()  # not earlier, since users wait for the first step
            row["train/share_of_gemm"] = self._flops / self._seconds / self._gemm_rate
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


def training_flops(config: PretrainedConfig, lengths: torch.Tensor, masked: int = 0) -> float:
    """Floating-point operations of a training step of the plain encoder on rows of these lengths, without padding.

    Per layer and token, the matrix products take 2·(4h² + 2·h·f) operations and attention 4·h·(length). The head over
    a vocabulary of v takes 2·(h² + h·v) for each of the `masked` tokens. A training step takes three times the forward
    pass. Embeddings, norms and a head over labels are left out: they are below 1%.

    Args:
        config: of the network.
        lengths: tokens of each row, of shape (rows,).
        masked: tokens at which the head over the vocabulary is computed.
    """
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", 4 * hidden)
    layers = config.num_hidden_layers
    n = lengths.double()
    forward = layers * (n * 2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * hidden * n**2).sum()
    forward += masked * 2 * (hidden**2 + hidden * config.vocab_size)
    return 3 * float(forward)


def gemm_rate() -> float:
    """Floating-point operations per second of an fp32 matrix product (1,024 × 1,024 × 1,024) on this CPU now."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    timer = Timer("torch.mm(a, b)", globals={"torch": torch, "a": a, "b": b}, num_threads=torch.get_num_threads())
    return 2 * 1024**3 / min(timer.blocked_autorange(min_run_time=0.3).times)
