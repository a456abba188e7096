"""Invalid options of the Trainer, its callbacks and its loggers."""

import importlib.util
from collections.abc import Callable

import pytest

from tests.bad_input.world import MISTAKE, Cases, World

_STOP = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"
_ACCUMULATE = "--trainer.callbacks+=lightning.pytorch.callbacks.GradientAccumulationScheduler"

CASES: Cases = {
    "a callback with a value that it refuses": (
        lambda w: w.fit(_STOP, "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.mode=up"),
        MISTAKE,
        ["`mode` can be min, max, got up"],
    ),
    "no batch to accumulate": (
        lambda w: w.fit("--trainer.accumulate_grad_batches=0"),
        MISTAKE,
        ["trainer.accumulate_grad_batches is 0"],
    ),
    "no epoch to validate after": (
        lambda w: w.fit("--trainer.check_val_every_n_epoch=0"),
        MISTAKE,
        ["trainer.check_val_every_n_epoch is 0"],
    ),
    "devices that are no number": (lambda w: w.fit("--trainer.devices=x"), MISTAKE, ["the Trainer cannot be made: "]),
    "a seed below 0": (
        lambda w: w.fit("--seed_everything=-1"),
        MISTAKE,
        ["-1 is not in bounds", "(seed_everything in lightning."],
    ),
    "steps that change in number": (
        lambda w: w.fit(_ACCUMULATE, "--trainer.callbacks.scheduling={0: 3}"),
        MISTAKE,
        ["GradientAccumulationScheduler", "trainer.accumulate_grad_batches"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([_STOP, "--trainer.callbacks.monitor=val/los"], ["`val/los` which is not available", "`val/loss`"]),
        (["--trainer.val_check_interval=1000"], ["`val_check_interval` (1000)", "training batches (6)"]),
    ],
    ids=["a metric that is not logged", "an interval beyond the epoch"],
)
def test_mistake_that_shows_once_a_run_has_begun_is_one_line(
    run_cli: Callable[..., tuple[int, str, str]], world: World, options: list[str], words: list[str]
) -> None:
    status, _, err = run_cli(*world.fit(*options))
    assert status == MISTAKE
    assert len(err.splitlines()) == 1
    for word in words:
        assert word in err


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_logger_that_is_not_installed_is_one_line(run_cli: Callable[..., tuple[int, str, str]], world: World) -> None:
    status, _, err = run_cli(*world.fit("--trainer.logger=lightning.pytorch.loggers.WandbLogger"))
    assert status == MISTAKE
    assert len(err.splitlines()) == 1
    assert "WandbLogger': Requirement 'wandb" in err
