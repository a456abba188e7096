"""Weighted means, also of a loss that has diverged to NaN."""

import math

import torch
from torchmetrics import MeanMetric

from src.models.running_means import RunningMeans, WeightedMean


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


def test_a_checkpoint_holds_the_sums_of_each_rank() -> None:
    means = RunningMeans(["loss"])
    state = {"loss": {"mean_value": torch.tensor([6.0, 1.0]), "weight": torch.tensor([2.0, 2.0])}}
    for rank, expected in enumerate([3.0, 0.5]):
        means.restore(state, rank, world_size=2)
        assert means.take() == {"loss": expected}
    # another number of ranks: the first gets all
    means.restore(state, rank=0, world_size=1)
    assert means.sums() == {"loss": {"mean_value": torch.tensor([7.0]), "weight": torch.tensor([4.0])}}
    means.restore(state, rank=0, world_size=3)
    assert means.take() == {"loss": 7 / 4}
    means.restore(state, rank=2, world_size=3)
    assert means.sums() == {"loss": {"mean_value": torch.tensor([0.0]), "weight": torch.tensor([0.0])}}
