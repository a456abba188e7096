"""Means over training rows since the last time they were asked for, which survive a restart in mid-epoch."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from src.models.weighted_mean import WeightedMean


class TrainingMeans(nn.Module):
    """Weighted means, over all ranks.

    Args:
        names: of what is averaged.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self.means = nn.ModuleDict({name: WeightedMean() for name in names})

    def update(self, name: str, values: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds values with their weights, both of the same shape; a weight of 0 leaves a value out."""
        self._metrics()[name].update(values, weight=weights)

    def take(self) -> dict[str, float]:
        """The means by name; begins anew. All ranks must call it."""
        means = {name: float(metric.compute()) for name, metric in self._metrics().items()}
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
        return dict(self.means.items())
