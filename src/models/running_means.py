"""Weighted means over rows that never synchronise with the GPU, and that a resumed run continues within an epoch."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torchmetrics import MeanMetric
from torchmetrics.utilities.distributed import gather_all_tensors

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
        """The state for a checkpoint: by name and sum, its value on each rank. All ranks must call it."""
        return {
            name: {key: _of_all_ranks(torch.as_tensor(value)) for key, value in metric.metric_state.items()}
            for name, metric in self._means.items()
        }

    def restore(self, sums: Any, rank: int, world_size: int) -> None:
        """Restores what `sums` returned; on another number of ranks, the first gets all.

        Raises:
            UserError: it is no such thing: it comes from a file.
        """
        parts = [(name, key) for name, metric in self._means.items() for key in metric.metric_state]
        shape = torch.Size([world_size])
        for name, key in parts:
            wrong = difference(sums, {name: {key: None}}, "the state of the means")
            if not wrong:
                value = sums[name][key]
                if isinstance(value, torch.Tensor) and value.dim() <= 1 and value.numel():
                    shape = value.shape  # of another number of ranks
                wrong = difference(value, torch.zeros(()).expand(shape), "a sum of the means")
            if wrong:
                raise UserError(f"the run cannot be restored, since its checkpoint is damaged: {wrong}")
        for name, key in parts:
            of_ranks = sums[name][key].reshape(-1)
            if len(of_ranks) != world_size:
                of_ranks = nn.functional.pad(of_ranks.sum().reshape(1), (0, world_size - 1))
            setattr(self._means[name], key, of_ranks[rank].clone())


def _of_all_ranks(value: torch.Tensor) -> torch.Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.stack(gather_all_tensors(value))
    return value.reshape(1).clone()
