"""The precision of a training, where the user has not set one."""

import os

import torch
from jsonargparse import Namespace

from src.system.processor import multiplies_bf16

FASTEST_ON_CPU = "bf16-mixed"


def choose_precision(trainer: Namespace) -> None:
    """Sets `trainer.precision` to bf16-mixed on a CPU with instructions for it, and says so.

    It stands in the run's config.yaml, so that a resumed run and an evaluation have it too.

    Args:
        trainer: the Trainer's options. A precision, or a plugin for one, is left as it is.
    """
    on_cpu = trainer.accelerator == "cpu" or (trainer.accelerator == "auto" and not torch.accelerator.is_available())
    is_set = trainer.precision is not None or "Precision" in str(trainer.plugins)
    if is_set or not on_cpu or not multiplies_bf16():
        return
    trainer.precision = FASTEST_ON_CPU
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(
            f"Precision: {FASTEST_ON_CPU}, since this CPU has instructions for bf16; --trainer.precision 32-true is "
            "exact, and slower",
            flush=True,
        )
