"""Dropout masks drawn fast on a CPU: each 64-bit random number gives four elements.

PyTorch's `bernoulli_` draws one number per element in one thread: 11 ms for 8 reviews × 512 tokens × 384, and 16 times
that for the attention probabilities of one layer. Here each 16-bit slice of a 64-bit number is compared with
p · 65,536. So p is rounded to a multiple of 1/65,536, and kept elements are scaled by the rounded value.
"""

import numpy as np
import torch

_VALUES = 1 << 16


def kept_scale(p: float) -> float:
    """The factor on kept elements: 1 over the probability that `keep_mask` keeps one."""
    return _VALUES / (_VALUES - _dropped(p))


def keep_mask(shape: torch.Size, p: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """Draws which elements are kept: boolean of `shape`, determined by torch's seed.

    Args:
        shape: of the mask.
        p: the probability of dropping an element, below 1.
        out: the tensor to write to, boolean of `shape`.
    """
    n = shape.numel()
    # numpy's SFC64 takes half the time of torch's `random_`, a serial Mersenne Twister
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = np.random.SFC64(seed).random_raw((n + 3) // 4)
    slices = torch.from_numpy(draws.view(np.int16))[:n].view(shape)  # uniform over -32,768 … 32,767
    return torch.ge(slices, _dropped(p) - _VALUES // 2, out=out)


def as_factors(keep: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Writes 1 for kept elements and 0 for dropped ones to `out`, in its dtype, and returns it.

    Multiplying by a boolean tensor takes two to three times as long: PyTorch vectorises the conversion of bytes only.
    """
    return out.copy_(keep.view(torch.uint8))


def _dropped(p: float) -> int:
    return min(round(p * _VALUES), _VALUES - 1)
