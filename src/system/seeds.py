"""Seeds: the run's own, and one for each training step, so that a resumed run draws what an uninterrupted one does."""

import os

import numpy as np

DEFAULT_SEED = 42


def run_seed() -> int:
    """The seed given to `seed_everything`, by the command line or in Python; 42 where nobody called it."""
    return int(os.environ.get("PL_GLOBAL_SEED", DEFAULT_SEED))


def step_seed(seed: int, epoch: int, batch: int, rank: int) -> int:
    """A seed for torch that differs for each training batch and rank, 63 bits; the same in every Python version."""
    words = np.random.SeedSequence((seed, epoch, batch, rank)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
