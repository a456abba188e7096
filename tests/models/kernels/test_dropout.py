"""Fast dropout: seeded, unchanged results where nothing is dropped, and the right gradient."""

import copy
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from src.models.kernels.dropout import FastDropout, use_fast_dropout


@pytest.fixture
def network(tiny_bert: Path) -> nn.Module:
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_pretrained(str(tiny_bert), dtype=torch.float32).train()


def test_mask_follows_torchs_seed() -> None:
    dropout, x = FastDropout(0.5), torch.ones(3, 7)
    torch.manual_seed(3)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


def test_identity_if_nothing_is_dropped() -> None:
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


def test_network_in_eval_mode_gives_the_same_logits(network: nn.Module) -> None:
    plain = copy.deepcopy(network)
    use_fast_dropout(network)
    assert {type(module) for module in network.modules() if isinstance(module, nn.Dropout)} == {FastDropout}
    assert plain.config.to_dict() == network.config.to_dict()
    ids = torch.randint(5, 40, (3, 20))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    with torch.no_grad():
        assert torch.equal(network.eval()(ids, mask).logits, plain.eval()(ids, mask).logits)
