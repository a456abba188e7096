"""Invalid options of the Trainer, its callbacks and its loggers."""

import importlib.util
from collections.abc import Callable

import pytest

from tests.bad_input.world import MISTAKE, Cases, World

_STOP = "--trainer.callbacks+=lightning.pytorch.callbacks.EarlyStopping"
_CALLBACK = "--trainer.callbacks+=lightning.pytorch.callbacks."
_OWN = """
import torch
from lightning.pytorch import Callback

class Own(Callback):
    def __init__(self, device: torch.device | str = torch.device("cpu")) -> None:
        pass
"""

CASES: Cases = {
    "an early stop by what no validation gives": (
        lambda w: w.fit(_STOP, "--trainer.callbacks.monitor=val/los"),
        MISTAKE,
        ["the monitor of EarlyStopping is 'val/los'", "val/loss"],
    ),
    "a callback with a value that it refuses": (
        lambda w: w.fit(_STOP, "--trainer.callbacks.monitor=val/loss", "--trainer.callbacks.mode=up"),
        MISTAKE,
        ["`mode` can be min, max, got up"],
    ),
    "devices that are no number": (lambda w: w.fit("--trainer.devices=x"), MISTAKE, ["the Trainer cannot be made: "]),
    "a seed below 0": (
        lambda w: w.fit("--seed_everything=-1"),
        MISTAKE,
        ["-1 is not in bounds", "(seed_everything in lightning."],
    ),
    "two callbacks with one state": (
        lambda w: w.fit(*[_STOP, "--trainer.callbacks.monitor=val/loss"] * 2),
        MISTAKE,
        ["more than one stateful callback of type `EarlyStopping`"],
    ),
    "checkpoints wanted and not wanted": (
        lambda w: w.fit("--trainer.enable_checkpointing=false", f"{_CALLBACK}ModelCheckpoint"),
        MISTAKE,
        ["trainer.enable_checkpointing is false, but", "ModelCheckpoint"],
    ),
    "a Trainer that logs nothing": (
        lambda w: w.fit("--trainer.barebones=true"),
        MISTAKE,
        ["trainer.barebones", "trainer.logger=false"],
    ),
    "fewer nodes than one": (lambda w: w.fit("--trainer.num_nodes=0"), MISTAKE, ["num_nodes"]),
}

_VALUES = {
    "accumulate_grad_batches": ("0", "-1"),
    "check_val_every_n_epoch": ("0", "-1"),
    "val_check_interval": ("0", "0.0", "-0.5", ".inf"),
    "log_every_n_steps": ("-1",),
    "gradient_clip_val": ("-1", ".nan"),
}
CASES |= {
    f"{name}={value}": (
        lambda w, name=name, value=value: w.fit(f"--trainer.{name}={value}"),  # type: ignore[misc]
        MISTAKE,
        [f"trainer.{name} is "],
    )
    for name, values in _VALUES.items()
    for value in values
}

_REFUSED_CALLBACKS = {
    "BackboneFinetuning": ("", "model.layer_decay"),
    "BatchSizeFinder": ("", "data.batch_size"),
    "GradientAccumulationScheduler": ("scheduling={0: 3}", "trainer.accumulate_grad_batches"),
    "LearningRateFinder": ("", "--trainer.max_steps 0"),
    "ModelPruning": ("pruning_fn=l1_unstructured", "exported"),
    "SpikeDetection": ("", "restored"),
    "StochasticWeightAveraging": ("swa_lrs=1e-4", "WeightAveraging or EMAWeightAveraging"),
}
CASES |= {
    name: (
        lambda w, name=name, argument=argument: w.fit(  # type: ignore[misc]
            _CALLBACK + name, *([f"--trainer.callbacks.{argument}"] if argument else [])
        ),
        MISTAKE,
        [f"{name} ", advice],
    )
    for name, (argument, advice) in _REFUSED_CALLBACKS.items()
}

_REFUSED_STRATEGIES = ["ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_fork_find_unused_parameters_true"]
_REFUSED_STRATEGIES += ["fsdp", "deepspeed", "dp", "xla", "abacus"]
CASES |= {
    strategy: (
        lambda w, strategy=strategy: w.fit(f"--trainer.strategy={strategy}", "--trainer.devices=2"),  # type: ignore[misc]
        MISTAKE,
        ["use trainer.strategy=ddp"] if strategy.startswith("ddp") else [],
    )
    for strategy in _REFUSED_STRATEGIES
}
CASES |= {
    f"{option} where there is none": (
        lambda w, option=option: w.fit(f"--trainer.{option}"),  # type: ignore[misc]
        MISTAKE,
        [],
    )
    for option in ("accelerator=mps", "devices=0", "devices=-1", "devices=[0]", "precision=transformer-engine")
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_one_line(expect_one_line: Callable[..., None], name: str) -> None:
    expect_one_line(*CASES[name])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--trainer.val_check_interval=1000"], ["`val_check_interval` (1000)", "training batches (6)"]),
    ],
    ids=["an interval beyond the epoch"],
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


def test_an_argument_that_the_configuration_cannot_hold_is_one_line(
    run_cli: Callable[..., tuple[int, str, str]], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose config.yaml lacked it could not be resumed."""
    world.file("own_device.py", _OWN)
    monkeypatch.syspath_prepend(world.here)  # as `python -m` does
    status, _, err = run_cli(*world.fit("--trainer.callbacks+=own_device.Own"))
    assert (status, len(err.splitlines())) == (MISTAKE, 1), err
    assert "the argument device of a class is cpu, which config.yaml cannot hold" in err
    assert not list(world.here.rglob("config.yaml"))
