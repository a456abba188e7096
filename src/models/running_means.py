"""Weighted means over rows that never synchronise with the GPU, and that survive a restart within an epoch."""

from collections.abc import Iterable

import torch
from torch import nn
from torchmetrics import MeanMetric


class WeightedMean(MeanMetric):
    """The mean of all values so far by their weights, over all ranks; NaN once a value is.

    MeanMetric looks for NaN in every update, to leave such values out: that waits for the GPU, and hides a loss that
    diverged. Its `nan_strategy="disable"` drops the weights (torchmetrics #3434).
    """

    def update(self, value: torch.Tensor, weight: torch.Tensor) -> None:  # type: ignore[override]
        """Adds values with their weights, both of the same shape."""
        value, weight = value.to(self.dtype), weight.to(self.dtype)
        self.mean_value += (value * weight).sum()
        self.weight += weight.sum()


class RunningMeans(nn.Module):
    """Weighted means by name, over all ranks, since they were last taken.

    Args:
        names: of what is averaged.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._means = {name: WeightedMean() for name in names}
        self.means = nn.ModuleDict(self._means)  # so that they move to the device with the module

    def update(self, name: str, values: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds values with their weights, both of the same shape; a weight of 0 leaves a value out."""
        self._means[name].update(values, weight=weights)

    def take(self) -> dict[str, float]:
        """The means by name; begins anew. All ranks must call it."""
        means = {name: float(metric.compute()) for name, metric in self._means.items()}
        for metric in self._means.values():
            metric.reset()
        return means

    def sums(self) -> dict[str, dict[str, torch.Tensor]]:
        """The state, summed over the ranks, for a checkpoint. All ranks must call it."""
        ranks = torch.distributed.is_available() and torch.distributed.is_initialized()
        state = {}
        for name, metric in self._means.items():
            with metric.sync_context(should_sync=ranks):
                state[name] = {key: torch.as_tensor(value).clone() for key, value in metric.metric_state.items()}
        return state

    def restore(self, sums: dict[str, dict[str, torch.Tensor]]) -> None:
        """Takes up what `sums` gave; on one rank only, since it stands for all."""
        for name, state in sums.items():
            for key, value in state.items():
                setattr(self._means[name], key, value.clone())
