"""One answer from the windows of a review."""

import torch

from src.models.windows import mean_over_windows


def test_mean_over_windows() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0], [0.0, -2.0]])
    review = torch.tensor([0, 2, 2, 1])
    assert mean_over_windows(logits, review, 3).tolist() == [[1.0, 2.0], [0.0, -2.0], [4.0, 5.5]]
