"""How fast a run is: reviews and tokens a second, padding, and the share of what the machine can do."""

import time
from typing import Any

import lightning
import torch

from src.data.labels import IGNORED_LABEL

_MOST_STEPS = 100
"""On a GPU, whose moments are kept before they are added up."""


class Throughput(lightning.Callback):
    """Measures `train/reviews_per_s`, `train/tokens_per_s`, `train/padding_waste` and `train/share_of_gemm`.

    Over the steps since the last row of the log, in which `StepLog` writes them; the time between steps, in which
    batches are loaded, is not counted. A GPU's clock tells when a step began and ended there, so that the program need
    not wait for it after each. Of reviews in several windows, the windows are counted, and divided by how many a review
    has on average. padding_waste is the share of computed tokens that are padding. share_of_gemm (on a CPU
    only) is the floating-point operations that the real tokens need, a second, over the rate of an fp32 matrix product
    measured after the first steps.
    """

    def __init__(self) -> None:
        self._gemm_rate = 0.0
        self._on_cpu = self._on_cuda = False
        self._reset()

    def _reset(self) -> None:
        self.rows = self.computed = 0
        self.tokens: int | torch.Tensor = 0
        self.flops = 0.0
        self._busy = 0.0
        self._steps: list[tuple[Any, Any]] = []

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        self._reset()
        self._unit = pl_module.rows_are
        self._windows_a_row = trainer.datamodule.windows_a_row  # type: ignore[attr-defined]
        self._on_cpu = trainer.strategy.root_device.type == "cpu"
        self._on_cuda = trainer.strategy.root_device.type == "cuda"

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._started = self._now()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        lengths = batch["attention_mask"].sum(dim=1)
        self.rows += len(batch["labels"])
        # but for CUDA's clock, asking for a number is what waits for a device that works behind the program
        self.tokens += lengths.sum() if self._on_cuda else int(lengths.sum())
        self._steps.append((self._started, self._now()))
        if not self._on_cuda or len(self._steps) == _MOST_STEPS:
            self._add_up()
        self.computed += batch["attention_mask"].numel()
        if self._on_cpu:
            labels = batch["labels"]
            guessed = int((labels != IGNORED_LABEL).sum()) if labels.dim() == 2 else 0  # a label a token, not a row
            self.flops += training_flops(pl_module.model.config, lengths, guessed)

    def metrics(self, trainer: lightning.Trainer) -> dict[str, float]:
        """The figures since the last call."""
        self._add_up()
        if not self._busy:
            return {}
        tokens = int(self.tokens)
        row = {
            f"train/{self._unit}_per_s": self.rows * trainer.world_size / self._windows_a_row / self._busy,
            "train/tokens_per_s": tokens * trainer.world_size / self._busy,
            "train/padding_waste": 1 - tokens / self.computed,
        }
        if self._on_cpu:
            self._gemm_rate = self._gemm_rate or gemm_rate()  # not before the first step, which users wait for
            row["train/share_of_gemm"] = self.flops / self._busy / self._gemm_rate
        self._reset()
        return row

    def _now(self) -> Any:
        """A moment: on a GPU the one at which it will have done all that it was given so far."""
        if not self._on_cuda:
            return time.perf_counter()
        moment = torch.cuda.Event(enable_timing=True)
        moment.record()
        return moment

    def _add_up(self) -> None:
        """The time of the steps since the last call; waits until a GPU has done them."""
        for begin, end in self._steps:
            if self._on_cuda:
                end.synchronize()
            self._busy += begin.elapsed_time(end) / 1000 if self._on_cuda else end - begin
        self._steps.clear()


def training_flops(config: Any, lengths: torch.Tensor, guessed: int = 0) -> float:
    """Operations of a training step of the plain encoder on rows of these lengths, without any padding.

    Per layer and token, the matrix products take 2·(4h² + 2·h·f) operations, attention 4·h·(length), and the head over
    a vocabulary of v 2·(h² + h·v) for each of the `guessed` tokens; a training step takes three times the forward pass.
    Embeddings, norms and a head over labels are left out: below 1%.
    """
    hidden = config.hidden_size
    inner = getattr(config, "intermediate_size", 4 * hidden)
    layers = config.num_hidden_layers
    n = lengths.double()
    forward = layers * (n * 2 * (4 * hidden**2 + 2 * hidden * inner) + 4 * hidden * n**2).sum()
    forward += guessed * 2 * (hidden**2 + hidden * config.vocab_size)
    return 3 * float(forward)


def gemm_rate(seconds: float = 0.3) -> float:
    """Operations a second of an fp32 matrix product on this machine's CPU, as it is now (1,024 × 1,024 × 1,024)."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    torch.mm(a, b)
    best = float("inf")
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        torch.mm(a, b)
        best = min(best, time.perf_counter() - started)
    return 2 * 1024**3 / best
