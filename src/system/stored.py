"""Stored settings are input: what a file holds is compared with an example of what it should hold."""

import math
from typing import Any

import torch

from src.system.errors import one_line


def difference(stored: object, example: object, where: str) -> str:
    """What in `stored` is missing or of another kind than in `example`, in words; empty if nothing is.

    Args:
        stored: of a file, so it may be anything.
        example: a dict has the keys that are needed, and others may be there; a list has the kind of all entries, and a
            tuple that of each; None stands for anything. Integers are counts, so they are not negative. Floats, and
            tensors of floats, are finite if those of the example are; tensors have the same shape and kind of number.
        where: the name of `stored`, for the words.
    """
    if isinstance(example, dict):
        if not isinstance(stored, dict):
            return _no(stored, "section", where)
        missing = next((key for key in example if key not in stored), None)
        if missing is not None:
            return f"{where} has no {missing!r}"
        parts = [(stored[key], each, f"{where}[{key!r}]") for key, each in example.items()]
    elif isinstance(example, list | tuple):
        if not isinstance(stored, type(example)) or (isinstance(example, tuple) and len(stored) != len(example)):
            return _no(stored, f"{type(example).__name__} of {len(example)}", where)
        kinds = example if isinstance(example, tuple) else example[:1] * len(stored)
        parts = [(each, kind, f"{where}[{i}]") for i, (each, kind) in enumerate(zip(stored, kinds, strict=False))]
    else:
        return "" if example is None or _alike(stored, example) else _no(stored, _kind(example), where)
    return next(filter(None, (difference(*part) for part in parts)), "")


def is_plain(tensor: object) -> bool:
    """Whether it is a tensor in memory, each element of which has a place of its own."""
    return (
        isinstance(tensor, torch.Tensor)
        and tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and tensor.nbytes <= tensor.untyped_storage().nbytes()  # else a small file may ask for any memory
    )


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether no number is NaN or infinite. A sum finds both, and reads the memory once."""
    return not tensor.is_floating_point() or math.isfinite(
        (tensor if tensor.dtype == torch.float64 else tensor.float()).sum()
    )


def _alike(stored: Any, example: object) -> bool:
    if isinstance(example, torch.Tensor):
        if not is_plain(stored) or stored.shape != example.shape:
            return False
        if not example.is_floating_point():
            return bool(stored.dtype == example.dtype)
        return bool(stored.is_floating_point()) and (is_finite(stored) or not is_finite(example))
    if isinstance(example, bool) or not isinstance(example, int | float):
        return isinstance(stored, type(example))
    if isinstance(stored, bool):
        return False
    if isinstance(example, int):
        return isinstance(stored, int) and stored >= 0
    return isinstance(stored, int | float) and (math.isfinite(stored) or not math.isfinite(example))


def _kind(example: object) -> str:
    if isinstance(example, torch.Tensor):
        return f"finite tensor of shape {tuple(example.shape)}"
    return {bool: "yes or no", int: "count", float: "finite number", str: "text"}.get(type(example), "such value")


def _no(stored: object, kind: str, where: str) -> str:
    shown = f"a tensor of shape {tuple(stored.shape)}" if isinstance(stored, torch.Tensor) else f"{stored!r:.60}"
    return f"{where} is {one_line(shown)}, which is no {kind}"
