"""Saves what a rank's dropout lets through, for a test that compares the ranks."""

from typing import Any

import lightning
import torch


class DropoutProbe(lightning.Callback):
    """Writes one dropout mask, drawn as the step's own are, to mask{rank}.pt in the run's root directory."""

    def on_before_zero_grad(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: Any
    ) -> None:
        mask = torch.nn.functional.dropout(torch.ones(1000))
        torch.save(mask, f"{trainer.default_root_dir}/mask{trainer.global_rank}.pt")
