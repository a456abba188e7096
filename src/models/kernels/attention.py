"""Attention on a CPU with dropout, or in bf16, for `transformers` networks.

PyTorch has no fused CPU kernel for attention with dropout. Its general kernel makes a dozen passes over tensors of
shape (rows, heads, tokens, tokens), 100 MB each for 8 × 512 tokens and 12 heads, and saves three for the backward pass.
In bf16, its fused kernel without dropout is slow backwards: 3.9 times as long as in fp32 for 8 × 128 tokens.

Here attention is computed for as many rows at a time as fit into the processor's cache. It saves one such tensor, and
with dropout a mask of one byte per element.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import AttentionInterface

from src.models.kernels.dropout_masks import as_factors, keep_mask, kept_scale

ATTENTION = "sdpa_fast_dropout"

# attention scores per block of rows: 8 MB in fp32, so that two buffers and what is saved fit a cache of 32 MB
_ELEMENTS_AT_ONCE = 1 << 21


def attention_with_dropout(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function for `transformers`: query, key and value have the shape (rows, heads, tokens, size).

    It calls PyTorch's SDPA unless there is dropout, or training in bf16, on a CPU in a plain encoder.
    """
    trains_in_bf16 = query.dtype == torch.bfloat16 and torch.is_grad_enabled()
    drops = dropout > 0 and query.dtype in (torch.float32, torch.float64)
    slow_in_pytorch = query.device.type == "cpu" and (trains_in_bf16 or drops)
    in_encoder = not getattr(module, "is_causal", True) and key.shape[1] == query.shape[1]
    plain_mask = attention_mask is None or (attention_mask.dim() == 4 and not attention_mask.requires_grad)
    special = any(kwargs.get(name) is not None for name in ("cache", "is_causal", "position_bias"))
    if not slow_in_pytorch or not in_encoder or not plain_mask or special:
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
        if mask is not None and mask.dtype == torch.bool:
            mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
        if mask is not None:
            mask = mask.expand(query.shape[0], -1, -1, -1)
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
        shape = (*query.shape[:-1], key.shape[-2])
        probabilities = query.new_empty(shape)
        keep = torch.empty(shape, dtype=torch.bool) if p else None
        result = query.new_empty(query.shape)
        scaled, keys = query * scale, key.transpose(-1, -2)
        for rows, (buffer,) in _blocks(probabilities, n_buffers=1):
            scores = torch.matmul(scaled[rows], keys[rows], out=buffer)
            if mask is not None:
                scores += mask[rows]
            kept = torch.softmax(scores, dim=-1, out=probabilities[rows])
            if keep is not None:
                keep_mask(scores.shape, p, out=keep[rows])
                kept = as_factors(keep[rows], out=buffer).mul_(kept)
            torch.matmul(kept, value[rows], out=result[rows])
        ctx.save_for_backward(query, key, value, probabilities, keep)
        ctx.scale, ctx.kept_scale = scale, kept_scale(p)
        return result.mul_(ctx.kept_scale) if p else result  # scales the small tensors, not the probabilities

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, probabilities, keep = ctx.saved_tensors
        grad = (grad if keep is None else grad * ctx.kept_scale).contiguous()
        grad_query, grad_key, grad_value = (each.new_empty(each.shape) for each in (query, key, value))
        values = value.transpose(-1, -2)
        for rows, (factors, scores) in _blocks(probabilities, n_buffers=2):
            grad_probabilities = torch.matmul(grad[rows], values[rows], out=scores)
            kept = probabilities[rows]
            if keep is not None:
                grad_probabilities.mul_(as_factors(keep[rows], out=factors))
                kept = factors.mul_(kept)
            torch.matmul(kept.transpose(-1, -2), grad[rows], out=grad_value[rows])
            grad_scores = torch._softmax_backward_data(grad_probabilities, probabilities[rows], -1, probabilities.dtype)
            torch.matmul(grad_scores, key[rows], out=grad_query[rows])
            torch.matmul(grad_scores.transpose(-1, -2), query[rows], out=grad_key[rows])
        return grad_query.mul_(ctx.scale), grad_key.mul_(ctx.scale), grad_value, None, None, None


def _blocks(like: torch.Tensor, n_buffers: int) -> Iterator[tuple[slice, list[torch.Tensor]]]:
    """Slices of the rows of `like`, each with buffers of its shape, which reuse the same memory."""
    n_rows = like.shape[0]
    at_once = max(1, min(n_rows, _ELEMENTS_AT_ONCE // like[0].numel()))
    buffers = [like.new_empty((at_once, *like.shape[1:])) for _ in range(n_buffers)]
    for start in range(0, n_rows, at_once):
        rows = slice(start, min(start + at_once, n_rows))
        yield rows, [buffer[: rows.stop - rows.start] for buffer in buffers]


# `transformers` finds an attention function, and the function that makes its mask, by name
AttentionInterface.register(ATTENTION, attention_with_dropout)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
