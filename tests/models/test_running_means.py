"""Weighted means, also of a loss that has diverged to NaN."""

import math

import torch
from torchmetrics import MeanMetric

from src.models.running_means import WeightedMean


def test_equals_the_mean_of_torchmetrics() -> None:
    ours, theirs = WeightedMean(), MeanMetric()
    for seed in range(3):
        values, weights = torch.rand(2, 7 + seed, generator=torch.Generator().manual_seed(seed))
        ours.update(values, weights)
        theirs.update(values, weights)
    torch.testing.assert_close(ours.compute(), theirs.compute())


def test_nan_counts() -> None:
    mean = WeightedMean()
    mean.update(torch.tensor([1.0, float("nan")]), torch.tensor([1.0, 1.0]))
    assert math.isnan(mean.compute())
    mean.reset()
    mean.update(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 0.0]))
    assert mean.compute() == 1.0, "reset works, and a value with weight 0 does not count"
