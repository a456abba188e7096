"""A weighted mean that lets a GPU run ahead."""

import torch
from torchmetrics import MeanMetric


class WeightedMean(MeanMetric):
    """The mean of all values so far by their weights, over all ranks; NaN once a value is.

    MeanMetric looks for NaN in every update, to leave such values out: the program waits for the GPU there, and a loss
    that diverged is hidden. Its `nan_strategy="disable"` drops the weights (torchmetrics #3434).
    """

    def update(self, value: torch.Tensor, weight: torch.Tensor) -> None:  # type: ignore[override]
        """Adds values with their weights, both of the same shape."""
        value, weight = value.to(self.dtype), weight.to(self.dtype)
        self.mean_value += (value * weight).sum()
        self.weight += weight.sum()
