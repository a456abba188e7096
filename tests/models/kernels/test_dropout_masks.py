"""Masks drop as often as they should, independently, by torch's seed."""

import pytest
import torch
from scipy import stats

from src.models.kernels.dropout_masks import as_factors, keep_mask, kept_scale


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_share_that_is_dropped(p: float) -> None:
    torch.manual_seed(1)
    n = 4_000_003
    keep = keep_mask(torch.Size([n]), p)
    dropped = round(p * 65536) / 65536
    assert stats.binomtest(n - int(keep.sum()), n, dropped).pvalue > 1e-3
    assert kept_scale(p) == pytest.approx(1 / (1 - dropped))
    assert dropped == pytest.approx(p, abs=1 / 65536)


def test_slices_of_a_draw_are_independent_and_alike() -> None:
    torch.manual_seed(2)
    keep = keep_mask(torch.Size([500_000, 4]), 0.3)
    # each of the 16 patterns of a draw's four slices as often as independence says
    patterns = (keep * torch.tensor([8, 4, 2, 1])).sum(dim=1)
    kept = round(0.7 * 65536) / 65536
    expected = [500_000 * kept ** (k := i.bit_count()) * (1 - kept) ** (4 - k) for i in range(16)]
    assert stats.chisquare(torch.bincount(patterns, minlength=16).numpy(), expected).pvalue > 1e-3
    # and neighbouring draws too
    runs = keep.flatten()
    both = int((runs[:-4:4] & runs[4::4]).sum())
    assert stats.binomtest(both, 499_999, kept**2).pvalue > 1e-3


def test_seeds_of_torch_give_masks_of_their_own() -> None:
    torch.manual_seed(3)
    first, second = (keep_mask(torch.Size([100_000]), 0.5) for _ in range(2))
    torch.manual_seed(3)
    again = torch.empty(100_000, dtype=torch.bool)
    assert keep_mask(torch.Size([100_000]), 0.5, out=again) is again
    assert torch.equal(again, first)
    # the second mask says nothing of the first
    assert stats.binomtest(int((first == second).sum()), 100_000, 0.5).pvalue > 1e-3


def test_factors_are_one_where_an_element_stays() -> None:
    keep = torch.tensor([[True, False], [False, True]])
    assert as_factors(keep, torch.empty(2, 2)).tolist() == [[1.0, 0.0], [0.0, 1.0]]
