"""Paired comparison of classifiers that answered the same rows, trained with the same seeds."""

from dataclasses import dataclass

import numpy as np

_RESAMPLES = 5000


@dataclass(frozen=True)
class Difference:
    """In accuracy, mine minus the baseline's: the mean, the ends of its 95% interval, and a two-sided p."""

    mean: float
    low: float
    high: float
    p: float


def paired_difference(mine: np.ndarray, baseline: np.ndarray, seed: int = 0) -> Difference:
    """Bootstrap of the difference in accuracy: rows and, where there are several, seeds are drawn anew, in pairs.

    Args:
        mine: whether each row was right, boolean of shape (seeds, rows).
        baseline: the same for the other classifier, on the same rows, its seeds in the same order.
        seed: of the draws.
    """
    if mine.shape != baseline.shape:
        raise ValueError(f"not in pairs: shapes {mine.shape} and {baseline.shape}")
    rng = np.random.default_rng(seed)
    difference = mine.astype(np.float64) - baseline.astype(np.float64)
    n_seeds, n_rows = difference.shape
    by_seed = np.empty((_RESAMPLES, n_seeds))
    for start in range(0, _RESAMPLES, 500):
        weights = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=500)
        by_seed[start : start + 500] = weights @ difference.T / n_rows
    drawn = rng.integers(0, n_seeds, size=(_RESAMPLES, n_seeds))
    means = np.take_along_axis(by_seed, drawn, axis=1).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    p = min(1.0, 2 * min((means <= 0).mean(), (means >= 0).mean()) + 1 / _RESAMPLES)
    return Difference(float(difference.mean()), float(low), float(high), float(p))


def pack(correct: np.ndarray) -> str:
    """A boolean row as hexadecimal text, for a csv."""
    return np.packbits(correct).tobytes().hex()


def unpack(text: str, n: int) -> np.ndarray:
    """The `n` booleans that `pack` wrote."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8), count=n).astype(bool)
