"""What a run is about to do, in one line."""

from pathlib import Path
from typing import Any

import lightning


class Summary(lightning.Callback):
    """Prints the device, the number of parameters and steps, and the effective batch when training starts.

    Args:
        run: the run's directory.
    """

    def __init__(self, run: Path) -> None:
        self.run = run

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        if not trainer.is_global_zero:
            return
        per_device = trainer.datamodule.hparams.batch_size  # type: ignore[attr-defined]
        accumulate = trainer.accumulate_grad_batches
        effective = per_device * trainer.world_size * accumulate
        parts = f"{per_device} per device × {trainer.world_size} devices"
        parts += f" × {accumulate} accumulated" if accumulate > 1 else ""
        millions = sum(p.numel() for p in pl_module.parameters() if p.requires_grad) / 1e6
        batches = f"{trainer.num_training_batches} batches an epoch"
        begun = f" from step {trainer.global_step}" if trainer.global_step else ""
        print(
            f"Training {millions:.1f} M parameters on {trainer.strategy.root_device.type}{begun}: {batches}, "
            f"effective batch {effective} ({parts}); written to {self.run}",
            flush=True,
        )
