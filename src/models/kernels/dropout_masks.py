"""Which elements dropout keeps, drawn at the speed of the memory: 16-bit slices of 64-bit draws.

PyTorch draws a dropout mask on a CPU one number at a time in one thread (`bernoulli_`): 11 ms for a tensor of 8 reviews
× 512 tokens × 384, and 16 times that for the attention probabilities of one layer. A 64-bit draw holds four slices that
are uniform over 65,536 values; comparing each with p · 65,536 drops with the probability p rounded to a 65,536th, and
what is kept is scaled by exactly that.
"""

import numpy as np
import torch

_VALUES = 1 << 16


def kept_scale(p: float) -> float:
    """The factor on what is kept: 1 over the probability with which `keep_mask` keeps."""
    return _VALUES / (_VALUES - _dropped(p))


def keep_mask(shape: torch.Size, p: float, out: torch.Tensor | None = None) -> torch.Tensor:
    """Which elements stay, boolean of `shape`, each with a probability of 1 - p. torch's seed determines them.

    Args:
        shape: of the mask.
        p: the probability of being dropped, below 1.
        out: where to write it, boolean of `shape`.
    """
    n = shape.numel()
    # numpy's SFC64 draws in half the time of torch's own `random_`, which is a serial Mersenne Twister
    seed = int(torch.empty((), dtype=torch.int64).random_())
    draws = np.random.SFC64(seed).random_raw((n + 3) // 4)
    slices = torch.from_numpy(draws.view(np.int16))[:n].view(shape)  # uniform over -32,768 … 32,767
    return torch.ge(slices, _dropped(p) - _VALUES // 2, out=out)


def as_factors(keep: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Writes 1 where an element stays and 0 elsewhere, in the type of `out`, and returns it.

    A product with a boolean tensor takes two to three times as long: only conversions from bytes are vectorised.
    """
    return out.copy_(keep.view(torch.uint8))


def _dropped(p: float) -> int:
    return min(round(p * _VALUES), _VALUES - 1)
