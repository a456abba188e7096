"""Writes TensorBoard's HPARAMS table: each run's options and its best score."""

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger

from src.models.base import TransformerModule


class Hyperparameters(Callback):
    """Writes the options of model and data and the run's best score when training ends.

    Args:
        best: has the best score.
    """

    def __init__(self, best: ModelCheckpoint) -> None:
        self.best = best

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, TransformerModule)
        score = self.best.best_model_score
        if score is None:
            return
        data: LightningDataModule = trainer.datamodule  # type: ignore[attr-defined]
        options = {**data.hparams, **pl_module.hparams, "seed": pl_module.seed}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(options, {f"hp/{self.best.monitor}": float(score)})
