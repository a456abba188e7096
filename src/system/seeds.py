"""Random seeds: that of the run, and one for each training step, so that a resumed run repeats the same dropout."""

import os

import numpy as np
import torch

DEFAULT_SEED = 42


def run_seed() -> int:
    """The seed that `seed_everything` was given, by the command line or in Python; 42 if it was not called."""
    return int(os.environ.get("PL_GLOBAL_SEED", DEFAULT_SEED))


def step_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """The seed of torch for one training batch on one rank, 63 bits; the same in every version of Python."""
    words = np.random.SeedSequence((seed, epoch, batch, rank)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))


def seed_torch(seed: int, device: torch.device) -> None:
    """Seeds what draws on the CPU and on `device`, as `torch.manual_seed` does for all devices there might be.

    That takes almost a millisecond a call: PyTorch formats a stack trace for each kind of device that is not in use.
    """
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
    if device.type in ("cpu", "cuda"):
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)
