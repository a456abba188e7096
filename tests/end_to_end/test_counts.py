"""What makes a run fast, counted: figures that do not depend on the clock, as a guard against getting slower unseen."""

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import pytest

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]


class Passes(lightning.Callback):
    """Counts the encoder's forward passes, in training and in evaluation."""

    training: int
    evaluation: int

    def setup(self, trainer: lightning.Trainer, pl_module: Any, stage: str) -> None:
        Passes.training = Passes.evaluation = 0

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        pl_module.model.bert.register_forward_hook(self._count)

    def _count(self, network: Any, *args: Any) -> None:
        if network.training:
            Passes.training += 1
        else:
            Passes.evaluation += 1


def test_each_row_goes_through_the_network_once(run_cli: Run, tiny_options: list[str]) -> None:
    """48 rows for training and 24 for validation in batches of 8, two epochs: no sanity check, nothing twice."""
    probe = f"--trainer.callbacks+={__name__}.Passes"
    status, _, err = run_cli("fit", *tiny_options, "--data.batch_size=8", "--trainer.max_epochs=2", probe)
    assert status == 0, err
    assert (Passes.training, Passes.evaluation) == (2 * 6, 2 * 3)


_ALLOCATING = """
import resource, sys
import torch
from src.system.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.empty(2**24).fill_(1.0) for _ in range(2)]  # 64 MiB each
    del tensors
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is told how to behave on glibc alone")
@pytest.mark.parametrize(("how", "faults"), [("kept", 0), ("given back", 2 * 2**14)])
def test_freed_memory_is_reused(how: str, faults: int) -> None:
    """Page faults a step, once the first steps have made the memory grow; each page has 4 KiB."""
    printed = subprocess.run(
        [sys.executable, "-c", _ALLOCATING, how], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert int(printed.split()[-1]) == pytest.approx(faults, abs=100)
