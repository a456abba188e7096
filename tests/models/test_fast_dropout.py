"""Fast dropout drops as often as it should, independently, by torch's seed, and has the right gradient."""

import copy
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import nn
from transformers import AutoModelForSequenceClassification

from src.models.fast_dropout import FastDropout, keep_mask, use_fast_dropout
from src.models.last_layer import compute_last_layer_at_cls_only


@pytest.fixture
def network(tiny_bert: Path) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(str(tiny_bert), dtype=torch.float32).train()


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_share_that_is_dropped(p: float) -> None:
    torch.manual_seed(1)
    n = 4_000_003
    keep, scale = keep_mask(torch.Size([n]), p)
    dropped = round(p * 65536) / 65536
    assert stats.binomtest(n - int(keep.sum()), n, dropped).pvalue > 1e-3
    assert scale == pytest.approx(1 / (1 - dropped))
    assert dropped == pytest.approx(p, abs=1 / 65536)


def test_slices_of_a_draw_are_independent_and_alike() -> None:
    torch.manual_seed(2)
    keep, _ = keep_mask(torch.Size([500_000, 4]), 0.3)
    # each of the 16 patterns of a draw's four slices as often as independence says
    patterns = (keep * torch.tensor([8, 4, 2, 1])).sum(dim=1)
    kept = round(0.7 * 65536) / 65536
    expected = [500_000 * kept ** (k := i.bit_count()) * (1 - kept) ** (4 - k) for i in range(16)]
    assert stats.chisquare(torch.bincount(patterns, minlength=16).numpy(), expected).pvalue > 1e-3
    # and neighbouring draws too
    runs = keep.flatten()
    both = int((runs[:-4:4] & runs[4::4]).sum())
    assert stats.binomtest(both, 499_999, kept**2).pvalue > 1e-3


def test_mask_follows_torchs_seed() -> None:
    dropout, x = FastDropout(0.5), torch.ones(3, 7)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


def test_identity_where_nothing_is_dropped() -> None:
    x = torch.randn(5, 6)
    assert torch.equal(FastDropout(0.5).eval()(x), x)
    assert torch.equal(FastDropout(0.0)(x), x)
    assert torch.equal(FastDropout(1.0)(x), torch.zeros(5, 6))


def test_gradient_is_the_mask() -> None:
    x = torch.randn(40, 30, dtype=torch.float64, requires_grad=True)
    y = FastDropout(0.25)(x)
    y.backward(torch.ones_like(y))
    assert torch.equal(x.grad != 0, y != 0)
    assert torch.allclose(y, x * x.grad)
    assert set(x.grad.unique().tolist()) == {0.0, 65536 / (65536 - 16384)}


def test_network_in_eval_and_without_dropout_stays_as_it_is(network: nn.Module) -> None:
    plain = copy.deepcopy(network)
    n = sum(type(module) is nn.Dropout for module in plain.modules())
    assert use_fast_dropout(network) == n > 0
    assert use_fast_dropout(network) == 0
    assert plain.config.to_dict() == network.config.to_dict()
    ids = torch.randint(5, 40, (3, 20))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    with torch.no_grad():
        assert torch.equal(network.eval()(ids, mask).logits, plain.eval()(ids, mask).logits)


@pytest.mark.parametrize("cls_only", [False, True])
def test_attention_has_the_plain_gradients_where_all_is_kept(network: nn.Module, cls_only: bool) -> None:
    """With so small a p that its threshold rounds to 0, what computes is the path with dropout, which drops nothing."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 1e-7
    plain = copy.deepcopy(network)
    use_fast_dropout(network)
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if cls_only:
        compute_last_layer_at_cls_only(network)
        compute_last_layer_at_cls_only(plain)
    ids = torch.randint(5, 40, (3, 20))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    for each in (network, plain):
        each(ids, mask, labels=torch.tensor([0, 1, 1])).loss.backward()
    for (name, mine), (_, other) in zip(network.named_parameters(), plain.named_parameters(), strict=True):
        if other.grad is None:
            assert mine.grad is None
        else:
            assert torch.allclose(mine.grad, other.grad, rtol=1e-4, atol=1e-6), name


def test_attention_drops_probabilities_without_bias() -> None:
    """The mean over many masks is the attention without dropout, and the spread is as SDPA's."""
    from src.models.fast_dropout import _Attention

    torch.manual_seed(4)
    query, key, value = (torch.randn(1, 2, 6, 4) for _ in range(3))
    mask = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    mask[..., 4:] = False
    many = [t.expand(4000, -1, -1, -1) for t in (query, key, value)]
    exact = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    theirs = nn.functional.scaled_dot_product_attention(*many, attn_mask=mask, dropout_p=0.3)
    mine = _Attention.apply(*many, mask, 0.3, 0.5)
    assert torch.allclose(mine.mean(dim=0), exact[0], atol=0.06)
    assert torch.allclose(mine.std(dim=0), theirs.std(dim=0), rtol=0.1)
    # rounded, since a few masks give the same few values, but for the last bit
    mine, theirs = (each[:, 0, 0, 0].round(decimals=4).numpy() for each in (mine, theirs))
    assert stats.ks_2samp(mine, theirs).pvalue > 1e-3


def test_attention_gradient_with_dropout_is_the_numerical_one() -> None:
    from src.models.fast_dropout import _Attention

    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)  # the same mask each time
        return _Attention.apply(*inputs, None, 0.4, 0.5)

    inputs = [torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(attend, inputs)
