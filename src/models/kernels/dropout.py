"""Fast dropout on a CPU, with the masks of `dropout_masks`: PyTorch draws a mask one number at a time."""

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from src.models.kernels.attention import ATTENTION
from src.models.kernels.dropout_masks import as_factors, keep_mask, kept_scale


def use_fast_dropout(network: nn.Module) -> None:
    """Replaces every `nn.Dropout` in the network and its SDPA attention by the fast versions, in place."""
    for part in network.modules():
        if type(part) is nn.Dropout and not part.inplace:
            part.__class__ = FastDropout
        elif isinstance(part, PreTrainedModel) and part.config._attn_implementation == "sdpa":
            part.set_attn_implementation(ATTENTION)


class FastDropout(nn.Dropout):
    """`nn.Dropout` with a faster mask on a CPU, determined by torch's seed; elsewhere the same as `nn.Dropout`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p in (0.0, 1.0) or input.device.type != "cpu":
            return super().forward(input)
        result: torch.Tensor = _Dropout.apply(input, self.p)
        return result


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, p: float) -> torch.Tensor:
        keep = keep_mask(values.shape, p)
        ctx.scale = kept_scale(p)
        ctx.save_for_backward(keep)
        return _drop(values, keep, ctx.scale)

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (keep,) = ctx.saved_tensors
        return _drop(grad, keep, ctx.scale), None


def _drop(values: torch.Tensor, keep: torch.Tensor, scale: float) -> torch.Tensor:
    return as_factors(keep, torch.empty_like(values)).mul_(scale).mul_(values)
