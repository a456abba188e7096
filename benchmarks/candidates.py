"""Ideas from the literature that are compared with the options of `fit`, and are none themselves unless they pay.

Named on the command line of a recipe: `--trainer.callbacks+=benchmarks.candidates.ReinitialiseTopLayers`.
"""

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn

from src.data.labels import MASKED_LABEL
from src.models.classifier import BertClassifier


class ReinitialiseTopLayers(lightning.Callback):
    """Begins with random weights in the top layers, and in the pooler (Zhang et al. 2021, section 5).

    Args:
        layers: how many, from the top.
    """

    def __init__(self, layers: int = 1) -> None:
        self.layers = layers

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        bert = pl_module.model.bert
        for part in [*bert.encoder.layer[-self.layers :], bert.pooler]:
            for module in part.modules():
                _reinitialise(module, bert.config.initializer_range)


def _reinitialise(module: nn.Module, deviation: float) -> None:
    """As BERT begins: normal weights, zero biases, norms that change nothing."""
    with torch.no_grad():
        if isinstance(module, nn.Linear):
            module.weight.normal_(0.0, deviation)
            module.bias.zero_()
        elif isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
            module.bias.zero_()


class AverageOfLastSteps(WeightAveraging):
    """Evaluates and saves the mean of the weights after each step of the last part of a run (Izmailov et al. 2018).

    Args:
        share: of the steps.
    """

    def __init__(self, share: float = 0.25) -> None:
        super().__init__()
        self.share = share
        self._steps = 0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: Any) -> None:
        super().on_train_start(trainer, pl_module)
        self._steps = int(trainer.estimated_stepping_batches)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx >= (1 - self.share) * self._steps


class SmoothedClassifier(BertClassifier):
    """With label smoothing (Szegedy et al. 2016, section 7): `--model=benchmarks.candidates.SmoothedClassifier`."""

    smoothing = 0.1

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(
            logits, labels, ignore_index=MASKED_LABEL, reduction="none", label_smoothing=self.smoothing
        )
