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
from src.models.module import Batch


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


class RDropClassifier(BertClassifier):
    """Each row twice with different dropout, and how far the answers differ in the loss (Wu et al. 2021, R-Drop).

    `--model=benchmarks.candidates.RDropClassifier`.
    """

    weight = 1.0

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        self._logits = super().forward(input_ids, attention_mask)
        return self._logits

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        loss = super().training_step({name: torch.cat([values, values]) for name, values in batch.items()}, batch_idx)
        one, other = (logits.log_softmax(dim=-1) for logits in self._logits.chunk(2))
        there, back = (
            nn.functional.kl_div(a, b, log_target=True, reduction="batchmean") for a, b in ((one, other), (other, one))
        )
        return loss + self.weight * (there + back) / 2


class SmoothedClassifier(BertClassifier):
    """With label smoothing (Szegedy et al. 2016, section 7): `--model=benchmarks.candidates.SmoothedClassifier`."""

    smoothing = 0.1

    def row_losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(
            logits, labels, ignore_index=MASKED_LABEL, reduction="none", label_smoothing=self.smoothing
        )
