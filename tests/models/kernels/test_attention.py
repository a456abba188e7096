"""Attention with dropout: equal to plain attention without dropout, SDPA's distribution, and the right gradient.

Each test runs with all rows in one block, and with few or one row per block.
"""

import copy
import functools
from pathlib import Path

import pytest
import torch
from scipy import stats
from torch import nn
from transformers import AutoModelForSequenceClassification

from src.models.kernels import attention
from src.models.kernels.attention import _Attention
from src.models.kernels.dropout import use_fast_dropout
from src.models.kernels.last_layer import use_partial_last_layer


# blocks of one row; of two rows (2 heads, 20 tokens), so that one of three rows is left over; of all rows
@pytest.fixture(autouse=True, params=[1, 2 * 2 * 20 * 20, 1 << 21])
def elements_at_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "_ELEMENTS_AT_ONCE", request.param)


@pytest.fixture
def network(tiny_bert: Path) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(str(tiny_bert), dtype=torch.float32).train()


@pytest.mark.parametrize("cls_only", [False, True])
def test_attention_has_the_plain_gradients_if_nothing_is_dropped(network: nn.Module, cls_only: bool) -> None:
    """With p = 1e-7, which rounds to a threshold of 0, the code with dropout runs and drops nothing."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 1e-7
    plain = copy.deepcopy(network)
    use_fast_dropout(network)
    for module in plain.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    if cls_only:
        use_partial_last_layer(network)
        use_partial_last_layer(plain)
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
    """The mean over many masks is the attention without dropout, and the distribution is SDPA's."""
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
    # rounded, since the few distinct values differ in the last bit
    mine, theirs = (each[:, 0, 0, 0].round(decimals=4).numpy() for each in (mine, theirs))
    assert stats.ks_2samp(mine, theirs).pvalue > 1e-3


def test_attention_gradient_with_dropout_is_the_numerical_one() -> None:
    def attend(*inputs: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)  # the same mask each time
        return _Attention.apply(*inputs, None, 0.4, 0.5)

    inputs = [torch.randn(2, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(attend, inputs)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_bf16_trains_as_exactly_as_its_products_are(network: nn.Module, p: float) -> None:
    use_fast_dropout(network)
    attend = functools.partial(attention.attention_with_dropout, network.bert.encoder.layer[0].attention.self)
    inputs = [torch.randn(3, 2, 20, 16, dtype=torch.bfloat16) for _ in range(3)]
    mask = torch.ones(3, 1, 20, 20, dtype=torch.bool)
    mask[1, ..., 12:] = False

    def context_and_gradients(dtype: torch.dtype) -> list[torch.Tensor]:
        copies = [each.to(dtype, copy=True).requires_grad_() for each in inputs]
        torch.manual_seed(6)
        context, _ = attend(*copies, mask, dropout=p or 1e-7)  # 1e-7 drops nothing, by the same code
        context.square().sum().backward()
        return [context.detach(), *(each.grad for each in copies)]  # type: ignore[misc]

    for mine, exact in zip(context_and_gradients(torch.bfloat16), context_and_gradients(torch.float64), strict=True):
        assert mine.dtype == torch.bfloat16
        assert float((mine - exact).norm() / exact.norm()) < 0.02, "five roundings to 8 bits"


def test_bf16_is_evaluated_by_sdpa(network: nn.Module) -> None:
    attend = functools.partial(attention.attention_with_dropout, network.bert.encoder.layer[0].attention.self)
    inputs = [torch.randn(1, 2, 6, 4, dtype=torch.bfloat16) for _ in range(3)]
    with torch.no_grad():
        evaluated, _ = attend(*inputs, None)
    assert torch.equal(evaluated, nn.functional.scaled_dot_product_attention(*inputs).transpose(1, 2))
