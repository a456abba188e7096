"""What a checkpoint says of its run, compared with what this run would write, before Lightning restores it."""

from collections.abc import Mapping
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from packaging.version import InvalidVersion, Version

from src.system.errors import UserError
from src.system.stored import difference

_OLDEST_LIGHTNING = Version("2.6")  # Lightning rewrites checkpoints of older ones


def check_run_state(checkpoint: Mapping[str, Any], trainer: lightning.Trainer) -> None:
    """Compares the positions of the loops and the states of the callbacks.

    Raises:
        UserError: something is missing or of another type.
    """
    example: dict[str, Any] = {"epoch": 0, "global_step": 0, "pytorch-lightning_version": "", "callbacks": {}}
    loops = {
        TrainerFn.FITTING: ("fit_loop", trainer.fit_loop),
        TrainerFn.VALIDATING: ("validate_loop", trainer.validate_loop),
        TrainerFn.TESTING: ("test_loop", trainer.test_loop),
    }
    name, loop = loops[trainer.state.fn]  # type: ignore[index]
    example["loops"] = {name: loop.state_dict() | {"state_dict": {}}}
    if name == "fit_loop":
        example |= {
            "optimizer_states": [{"state": {}, "param_groups": [{}]}],
            "lr_schedulers": [{}],
            "hyper_parameters": {},
        }
    _refuse(difference(checkpoint, example, "the checkpoint"))
    states = checkpoint["callbacks"]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, ModelCheckpoint | EarlyStopping) and callback.state_key in states:
            where = f"the state of {type(callback).__name__}"
            _refuse(difference(states[callback.state_key], callback.state_dict(), where))
    try:
        version = Version(checkpoint["pytorch-lightning_version"])
    except InvalidVersion:
        version = Version("0")
    if version < _OLDEST_LIGHTNING:
        _refuse(f"its pytorch-lightning_version is {checkpoint['pytorch-lightning_version']!r:.50}")
    if name == "fit_loop":
        loop_state = checkpoint["loops"][name]
        optimizer = loop_state["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        if (steps := optimizer["step"]["total"]["completed"]) != checkpoint["global_step"]:
            _refuse(f"its global_step is {checkpoint['global_step']}, but its loop has taken {steps} steps")
        loaders = loop_state["state_dict"].get("combined_loader", [])
        _refuse(difference(loaders, [{}], "the state of the loaders"))


def check_optimizer_state(checkpoint: Mapping[str, Any], made: OptimizerLRSchedulerConfig) -> None:
    """Compares the states of an AdamW and its schedule with those that this run has made.

    Raises:
        UserError: something is missing, of another type or shape, or not finite.
    """
    optimizer: Any = made["optimizer"]
    scheduler: Any = made["lr_scheduler"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = {
        i: {"step": torch.zeros(()), "exp_avg": _zeros(parameter), "exp_avg_sq": _zeros(parameter)}
        for i, parameter in enumerate(parameters)
    }
    example = optimizer.state_dict() | ({"state": moments} if checkpoint["global_step"] else {})
    for name, expected in (("optimizer_states", example), ("lr_schedulers", scheduler["scheduler"].state_dict())):
        stored = checkpoint[name]
        if len(stored) != 1:
            _refuse(f"its {name} are {len(stored)}, not 1")
        _refuse(difference(stored[0], expected, f"the checkpoint[{name!r}]"))


def _zeros(parameter: torch.Tensor) -> torch.Tensor:
    """Of the same shape, in the memory of one number."""
    return torch.zeros(()).expand(parameter.shape)


def _refuse(wrong: str) -> None:
    if wrong:
        raise UserError(f"the run cannot be restored, since its checkpoint is damaged: {wrong}")
