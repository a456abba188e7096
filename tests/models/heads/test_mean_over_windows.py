"""The mean of the logits over a review's windows."""

import torch

from src.models.heads.mean_over_windows import mean_over_windows


def test_mean_over_windows() -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 7.0], [0.0, -2.0]])
    review = torch.tensor([0, 2, 2, 1])
    assert mean_over_windows(logits, review, 3).tolist() == [[1.0, 2.0], [0.0, -2.0], [4.0, 5.5]]


def test_no_rounding_in_mixed_precision_and_no_leak_between_reviews() -> None:
    logits = torch.tensor([[1.001, 2.0], [1.003, 4.0], [torch.inf, 0.0]])
    with torch.autocast("cpu", torch.bfloat16):
        found = mean_over_windows(logits, torch.tensor([0, 0, 1]), 2)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([[1.002, 3.0], [torch.inf, 0.0]]), atol=1e-6, rtol=0)
