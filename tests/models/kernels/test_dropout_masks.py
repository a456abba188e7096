"""Dropout masks: the right probability, independent elements, determined by torch's seed."""

import pytest
import torch
from scipy import stats

from src.models.kernels.dropout_masks import as_factors, keep_mask, kept_scale


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_fraction_dropped(p: float) -> None:
    torch.manual_seed(1)
    n = 4_000_003
    keep = keep_mask(torch.Size([n]), p)
    dropped = round(p * 65536) / 65536
    assert stats.binomtest(n - int(keep.sum()), n, dropped).pvalue > 1e-3
    assert kept_scale(p) == pytest.approx(1 / (1 - dropped))
    assert dropped == pytest.approx(p, abs=1 / 65536)


def test_elements_are_independent() -> None:
    torch.manual_seed(2)
    keep = keep_mask(torch.Size([500_000, 4]), 0.3)
    # each of the 16 patterns of a random number's four slices is as frequent as independence predicts
    patterns = (keep * torch.tensor([8, 4, 2, 1])).sum(dim=1)
    kept = round(0.7 * 65536) / 65536
    expected = [500_000 * kept ** (k := i.bit_count()) * (1 - kept) ** (4 - k) for i in range(16)]
    assert stats.chisquare(torch.bincount(patterns, minlength=16).numpy(), expected).pvalue > 1e-3
    # neighbouring random numbers are independent too
    runs = keep.flatten()
    both = int((runs[:-4:4] & runs[4::4]).sum())
    assert stats.binomtest(both, 499_999, kept**2).pvalue > 1e-3


def test_masks_follow_torchs_seed() -> None:
    torch.manual_seed(3)
    first, second = (keep_mask(torch.Size([100_000]), 0.5) for _ in range(2))
    torch.manual_seed(3)
    again = torch.empty(100_000, dtype=torch.bool)
    assert keep_mask(torch.Size([100_000]), 0.5, out=again) is again
    assert torch.equal(again, first)
    # the second mask is independent of the first
    assert stats.binomtest(int((first == second).sum()), 100_000, 0.5).pvalue > 1e-3


def test_factors_are_one_for_kept_elements() -> None:
    keep = torch.tensor([[True, False], [False, True]])
    assert as_factors(keep, torch.empty(2, 2)).tolist() == [[1.0, 0.0], [0.0, 1.0]]
