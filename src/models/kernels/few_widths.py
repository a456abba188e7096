"""Batches of few different widths, for bf16 on a CPU.

There oneDNN computes the matrix products, and compiles each for each new shape: 0.5 ms for each of 150 products of a
step of MiniLM. So batches get a little more padding, and their widths come again.
"""

import torch
from torch import nn

_FROM_A_POWER_OF_2_TO_THE_NEXT = 8
_LEAST_MULTIPLE = 8


def with_few_widths(batch: dict[str, torch.Tensor], longest: int) -> dict[str, torch.Tensor]:
    """A batch with `input_ids` and `attention_mask` of shape (rows, width) padded on the right to `few_widths`."""
    width = batch["input_ids"].shape[1]
    extra = few_widths(width, longest) - width
    return batch | {name: nn.functional.pad(batch[name], (0, extra)) for name in ("input_ids", "attention_mask")}


def few_widths(width: int, longest: int) -> int:
    """The least width to use that is at least `width`. From a power of 2 to the next there are 8, up to `longest`."""
    above = 1 << (width - 1).bit_length()
    multiple = max(_LEAST_MULTIPLE, above // (2 * _FROM_A_POWER_OF_2_TO_THE_NEXT))
    return max(width, min(-(-width // multiple) * multiple, longest))
