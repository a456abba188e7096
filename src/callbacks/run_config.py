"""The run's config.yaml: all options, so that `test` and `fit --ckpt_path last` find them again."""

from typing import Any

import lightning
from lightning.pytorch.cli import SaveConfigCallback


class RunConfig(SaveConfigCallback):
    """Written when training is about to start.

    Lightning writes it earlier, before a checkpoint is looked at: where a resumption is then refused, since another
    option was typed than the run began with, the run's record would say what was refused.
    """

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Too early."""

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        super().setup(trainer, pl_module, "fit")
