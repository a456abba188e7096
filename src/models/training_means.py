"""Loss and accuracy of training, over the rows since the last time they were asked for."""

from typing import Any

import torch
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from src.data.labels import MASKED_LABEL


class TrainingMeans(nn.Module):
    """The mean loss and the accuracy over real rows, over all ranks, which survive a restart in mid-epoch.

    Args:
        num_labels: number of classes.
    """

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.loss = MeanMetric()
        self.accuracy = MulticlassAccuracy(num_labels, average="micro", ignore_index=MASKED_LABEL, validate_args=False)

    def update(self, losses: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds rows: losses of shape (rows,), logits of shape (rows, labels) and labels of shape (rows,)."""
        self.loss.update(losses, weight=(labels != MASKED_LABEL).float())
        self.accuracy.update(logits, labels)

    def take(self) -> dict[str, float]:
        """`train/loss` and `train/accuracy`; begins anew. All ranks must call it."""
        means = {f"train/{name}": float(metric.compute()) for name, metric in self._metrics().items()}
        for metric in self._metrics().values():
            metric.reset()
        return means

    def sums(self) -> dict[str, dict[str, torch.Tensor]]:
        """The state, summed over the ranks, for a checkpoint. All ranks must call it."""
        ranks = torch.distributed.is_available() and torch.distributed.is_initialized()
        state = {}
        for name, metric in self._metrics().items():
            with metric.sync_context(should_sync=ranks):
                state[name] = {key: value.detach().clone() for key, value in metric.metric_state.items()}
        return state

    def restore(self, sums: dict[str, dict[str, torch.Tensor]]) -> None:
        """Takes up what `sums` gave; on one rank only, since it stands for all."""
        for name, state in sums.items():
            for key, value in state.items():
                setattr(self._metrics()[name], key, value.clone())

    def _metrics(self) -> dict[str, Any]:
        return {"loss": self.loss, "accuracy": self.accuracy}
