"""Records a run from within: the time and page faults of each training step, evaluation, and data preparation.

Both sides use this one clock: `benchmarks.speed.recorder_callback` under `python -m src`, and
`benchmarks.peers.recorder_callback` under the Hugging Face Trainer.
The report goes to the file $BENCH_REPORT. Every $BENCH_GEMM_EVERY steps the rates of an fp32 and of a bf16 matrix
product are measured; that time and its page faults are subtracted. After the steps that $BENCH_WAIT_AFTER lists
("10,256"), it waits for the GPU, so that the time between two of them is the GPU's too.

Only light imports at the top, since the time from the command to the first step includes this module.
"""

import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any


class Recorder:
    """Collects the moments of one process, in seconds of the machine's monotonic clock."""

    def __init__(self) -> None:
        self.report: dict[str, Any] = {
            "fit_at": None,
            "first_step_at": None,
            "steps": [],
            "lengths": [],
            "gemm": [],
            "gemm_bf16": [],
            "evaluation_s": None,
            "evaluated": None,
            "prepare_s": {},
        }
        self.gemm_every = int(os.environ.get("BENCH_GEMM_EVERY", "0"))
        self.wait_after = [int(n) for n in os.environ.get("BENCH_WAIT_AFTER", "").split(",") if n]
        self._last: tuple[float, int] | None = None

    @staticmethod
    def now() -> tuple[float, int]:
        """The time, and the page faults of this process so far."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return time.monotonic(), usage.ru_minflt + usage.ru_majflt

    def step_begins(self) -> None:
        """A step counts from the end of the one before it, so that fetching its batch counts too."""
        n = len(self.report["steps"])
        if self.report["first_step_at"] is None:
            self.report["first_step_at"] = self.now()[0]
        begin = self.now() if self._last is None else self._last
        if self.gemm_every and n % self.gemm_every == 1:
            before = self.now()
            self.report["gemm"].append(gemm_rate("float32"))
            self.report["gemm_bf16"].append(gemm_rate("bfloat16"))
            after = self.now()
            begin = (begin[0] + after[0] - before[0], begin[1] + after[1] - before[1])
        self._begin = begin

    def step_ends(self) -> None:
        if len(self.report["steps"]) + 1 in self.wait_after and (torch := sys.modules["torch"]).cuda.is_available():
            torch.cuda.synchronize()
        self._last = self.now()
        self.report["steps"].append([self._last[0] - self._begin[0], self._last[1] - self._begin[1]])

    def write(self) -> None:
        """Writes the report as it is now; each later call replaces it."""
        if torch := sys.modules.get("torch"):
            self.report["gpu_peak_mib"] = torch.cuda.max_memory_allocated() / 2**20  # 0 without a GPU
            if self.wait_after and torch.cuda.is_available():
                self.report["bf16_rate"] = bf16_rate()
        if path := os.environ.get("BENCH_REPORT"):
            Path(path).write_text(json.dumps(self.report))


def gemm_rate(dtype: str, seconds: float = 0.2) -> float:
    """Operations a second of the fastest product of two 1,024 × 1,024 matrices within `seconds`, on the CPU."""
    import torch

    with torch.no_grad():
        a, b, product = (torch.randn(1024, 1024).to(getattr(torch, dtype)) for _ in range(3))
        torch.mm(a, b, out=product)
        best = float("inf")
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            started = time.perf_counter()
            torch.mm(a, b, out=product)
            best = min(best, time.perf_counter() - started)
    return 2 * 1024**3 / best


def bf16_rate(n: int = 8192, repeats: int = 8) -> float:
    """Operations a second of bf16 products of two n × n matrices on the GPU."""
    import torch

    a, b = (torch.randn(n, n, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    product = torch.empty_like(a)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for i in range(3 + repeats):
        if i == 3:  # the first load kernels
            begin.record()
        torch.mm(a, b, out=product)
    end.record()
    end.synchronize()
    return float(repeats * 2 * n**3 / (begin.elapsed_time(end) / 1e3))
