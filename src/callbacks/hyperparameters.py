"""TensorBoard's table of runs: what each was told, and how well it did."""

from typing import Any

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger


class Hyperparameters(lightning.Callback):
    """Writes the options of model and data with the best score of the run when training ends.

    Args:
        best: knows that score.
    """

    def __init__(self, best: ModelCheckpoint) -> None:
        self.best = best

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        score = self.best.best_model_score
        if score is None:
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        options = {**data.hparams, **pl_module.hparams, "seed": pl_module.seed}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(options, {f"hp/{self.best.monitor}": float(score)})
