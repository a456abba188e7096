"""Weighted means over rows that never synchronise with the GPU, and that a resumed run continues within an epoch."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torchmetrics import MeanMetric

from src.system.errors import UserError
from src.system.stored import difference


class WeightedMean(MeanMetric):
    """The weighted mean of all values so far, over all ranks. A NaN makes it NaN.

    MeanMetric drops NaN values, which waits for the GPU in every update and hides that a loss has diverged. With its
    `nan_strategy="disable"` it ignores the weights (torchmetrics #3434).
    """

    def update(self, value: torch.Tensor, weight: torch.Tensor) -> None:  # type: ignore[override]
        """Adds values with their weights, both of the same shape."""
        value, weight = value.to(self.dtype), weight.to(self.dtype)
        self.mean_value += (value * weight).sum()
        self.weight += weight.sum()


class RunningMeans(nn.Module):
    """Weighted means by name, over all ranks, since the last `take`.

    Args:
        names: of the means.
    """

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__()
        self._means = {name: WeightedMean() for name in names}
        self.means = nn.ModuleDict(self._means)  # registered, so that they move to the device

    def update(self, name: str, values: torch.Tensor, weights: torch.Tensor) -> None:
        """Adds values with their weights, both of the same shape; a value with weight 0 does not count."""
        self._means[name].update(values, weight=weights)

    def take(self) -> dict[str, float]:
        """Returns the means by name, and resets them. All ranks must call it."""
        means = {name: float(metric.compute()) for name, metric in self._means.items()}
        for metric in self._means.values():
            metric.reset()
        return means

    def sums(self) -> dict[str, dict[str, torch.Tensor]]:
        """The state for a checkpoint, summed over the ranks. All ranks must call it."""
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        state = {}
        for name, metric in self._means.items():
            with metric.sync_context(should_sync=distributed):
                state[name] = {key: torch.as_tensor(value).clone() for key, value in metric.metric_state.items()}
        return state

    def restore(self, sums: Any) -> None:
        """Restores what `sums` returned, on one rank only, since it is the sum over all.

        Raises:
            UserError: it is no such thing: it comes from a file.
        """
        example = {name: metric.metric_state for name, metric in self._means.items()}
        if wrong := difference(sums, example, "the state of the means"):
            raise UserError(f"the run cannot be restored, since its checkpoint is damaged: {wrong}")
        for name, state in example.items():
            for key in state:
                setattr(self._means[name], key, sums[name][key].clone())
