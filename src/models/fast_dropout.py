"""Dropout on a CPU at the speed of the memory: masks from 16-bit slices of 64-bit draws.

PyTorch draws a dropout mask on a CPU one number at a time in one thread (`bernoulli_`): 11 ms for a tensor of 8 reviews
× 512 tokens × 384, and 64 times that for the attention probabilities of one layer. A 64-bit draw holds four slices that
are uniform over 65,536 values; comparing each with p · 65,536 drops with the probability p rounded to a 65,536th, and
what is kept is scaled by exactly that. A training step with the seed experiment's dropout (8 × 512 tokens, 6 layers)
takes 1.27 times as long without it.
"""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

_VALUES = 1 << 16
_ATTENTION = "sdpa_fast_dropout"


def use_fast_dropout(module: nn.Module) -> int:
    """Makes every `nn.Dropout` below `module` a `FastDropout`, in place, and returns how many.

    A network of `transformers` that attends by SDPA also drops attention probabilities by `attention_with_dropout`.
    """
    found = [part for part in module.modules() if type(part) is nn.Dropout and not part.inplace]
    for part in found:
        part.__class__ = FastDropout
    for network in module.modules():
        if isinstance(network, PreTrainedModel) and network.config._attn_implementation == "sdpa":
            network.set_attn_implementation(_ATTENTION)
    return len(found)


class FastDropout(nn.Dropout):
    """`nn.Dropout` with a quicker mask on a CPU; elsewhere, `nn.Dropout` itself. torch's seed determines the mask."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p in (0.0, 1.0) or input.device.type != "cpu":
            return super().forward(input)
        result: torch.Tensor = _Dropout.apply(input, self.p)
        return result


def keep_mask(shape: torch.Size, p: float) -> tuple[torch.Tensor, float]:
    """Which elements stay, boolean of `shape`, each with a probability of 1 - p; and the factor on those that do."""
    n = shape.numel()
    dropped = min(round(p * _VALUES), _VALUES - 1)
    draws = torch.empty((n + 3) // 4, dtype=torch.int64).random_(-(1 << 63), None)
    slices = draws.view(torch.int16)[:n].view(shape)  # uniform over -32,768 … 32,767
    return slices >= dropped - _VALUES // 2, _VALUES / (_VALUES - dropped)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, p: float) -> torch.Tensor:
        keep, ctx.scale = keep_mask(values.shape, p)
        ctx.save_for_backward(keep)
        return (values * keep).mul_(ctx.scale)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (keep,) = ctx.saved_tensors
        return (grad * keep).mul_(ctx.scale), None


def attention_with_dropout(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA as `transformers` calls it, for (rows, heads, tokens, size); where nothing is dropped, its own kernel.

    SDPA has no fused CPU kernel with dropout. Its general one saves three tensors of (rows, heads, tokens, tokens)
    for the backward pass; here it is one, and a mask of a byte an element.
    """
    encoder = not getattr(module, "is_causal", True) and key.shape[1] == query.shape[1] and not kwargs.get("cache")
    if not dropout or query.device.type != "cpu" or not encoder or kwargs.get("position_bias") is not None:
        plain: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return plain
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    context: torch.Tensor = _Attention.apply(query, key, value, attention_mask, dropout, scale)
    return context.transpose(1, 2).contiguous(), None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None,
        p: float,
        scale: float,
    ) -> torch.Tensor:
        scores = torch.matmul(query * scale, key.transpose(-1, -2))
        if mask is not None and mask.dtype == torch.bool:
            scores.masked_fill_(~mask, torch.finfo(scores.dtype).min)
        elif mask is not None:
            scores += mask
        probabilities = torch.softmax(scores, dim=-1)
        keep, kept_scale = keep_mask(probabilities.shape, p)
        ctx.save_for_backward(query, key, value, probabilities, keep)
        ctx.scale, ctx.kept_scale = scale, kept_scale
        # the factors go onto the small tensors
        return torch.matmul(torch.mul(probabilities, keep, out=scores), value).mul_(kept_scale)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, probabilities, keep = ctx.saved_tensors
        grad = grad * ctx.kept_scale
        grad_value = torch.matmul((probabilities * keep).transpose(-1, -2), grad)
        grad_probabilities = torch.matmul(grad, value.transpose(-1, -2)).mul_(keep)
        grad_scores = torch._softmax_backward_data(grad_probabilities, probabilities, -1, probabilities.dtype)
        grad_query = torch.matmul(grad_scores, key).mul_(ctx.scale)
        grad_key = torch.matmul(grad_scores.transpose(-1, -2), query).mul_(ctx.scale)
        return grad_query, grad_key, grad_value, None, None, None


# by name, as `transformers` finds the attention and the kind of mask that it takes
AttentionInterface.register(_ATTENTION, attention_with_dropout)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
