"""Seeds: a resumed run must draw what an uninterrupted one does, on every machine."""

from itertools import product

import lightning

from src.system.seeds import DEFAULT_SEED, run_seed, step_seed


def test_each_argument_changes_the_seed_of_a_step() -> None:
    seeds = {step_seed(*arguments) for arguments in product((0, 1, 42), (0, 1, 2), (0, 1, 2), (0, 1, 7))}
    assert len(seeds) == 3**4


def test_seed_of_a_step_is_a_fixed_number() -> None:
    """Another number would give a resumed run other dropout masks than it began with."""
    assert step_seed(42, 1, 20, 3) == 5365432328486578855
    assert all(0 <= step_seed(seed, 0, 0, 0) < 2**63 for seed in range(1000)), "torch takes no more"


def test_seed_of_the_run_is_that_of_lightning() -> None:
    assert run_seed() == DEFAULT_SEED
    lightning.seed_everything(7, verbose=False)
    assert run_seed() == 7
