"""Draws the report's figures: confusion matrix, reliability diagram, accuracy by length.

Import it only where a figure is drawn, since matplotlib is slow to import.
"""

import math
import unicodedata
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont
from matplotlib.ft2font import FT2Font
from torchmetrics.classification import MulticlassConfusionMatrix

from src.models.metrics import wilson_interval

_BINS = 15  # as in the metric `ece`
_LENGTH_GROUPS = 8
_MOST_NUMBERS = 20  # classes; with more, the numbers in the matrix are too small to read
_MOST_NAMES = 40  # classes; with more, their names on an axis run into each other
_LONGEST_NAME = 20


def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, names: list[str]) -> Figure:
    """A confusion matrix: true classes are its lines, predicted classes its columns; by number if not `drawable`.

    Args:
        labels, predicted: class numbers, shape (rows,).
        names: of the classes.
    """
    n = len(names)
    # the rows of all ranks are here, and only on rank 0: a metric that synchronises would wait for ever
    metric = MulticlassConfusionMatrix(n, validate_args=False, sync_on_compute=False)
    metric.update(torch.from_numpy(predicted), torch.from_numpy(labels))
    side = min(3.5 + 0.5 * n, 16)
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    metric.plot(ax=axes, add_text=n <= _MOST_NUMBERS, cmap="Blues")
    shown = drawable(names)
    step = 1 if shown else math.ceil(n / _MOST_NAMES)
    ticks, texts = range(0, n, step), shown or [str(k) for k in range(0, n, step)]
    # a dollar sign starts no formula
    axes.set_xticks(ticks, texts, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(ticks, texts, rotation=0, parse_math=False)
    legend = "" if shown else "\n(the text “classes” has the names)"
    axes.set_title(f"{(labels == predicted).sum():,} of {len(labels):,} correct{legend}")
    return figure


def drawable(names: list[str]) -> list[str] | None:
    """The names of the classes, shortened, as an axis shows them.

    None if it cannot: they are too many, the same when shortened, or of a script that the font lacks or that is written
    from right to left, which matplotlib would draw backwards.
    """
    short = [name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…" for name in names]
    characters = set("".join(short))
    font = FT2Font(findfont(FontProperties()))
    plain = all(
        character.isprintable()
        and font.get_char_index(ord(character))
        and unicodedata.bidirectional(character) not in ("R", "AL")
        for character in characters
    )
    return short if plain and len(set(short)) == len(short) <= _MOST_NAMES else None


def confidence_bins(confidence: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The rows, the correct rows and the mean confidence in each of 15 bins of equal width, each of shape (15,)."""
    weights = (np.ones(len(correct)), correct.astype(float), confidence.astype(float))
    n, right, sums = (np.histogram(confidence, _BINS, (0, 1), weights=w)[0] for w in weights)
    return n.astype(int), right.astype(int), sums / np.maximum(n, 1)


def reliability_diagram(confidence: np.ndarray, correct: np.ndarray, lowest: float) -> Figure:
    """Accuracy per confidence bin (Guo et al. 2017), above a histogram of the confidence.

    Args:
        confidence: probability of the predicted class, shape (rows,).
        correct: whether that class is the true one, shape (rows,).
        lowest: the lowest possible confidence, which is one over the number of classes.
    """
    n, right, mean = confidence_bins(confidence, correct)
    used = n > 0
    ece = np.abs(right - mean * n).sum() / max(n.sum(), 1)
    figure = Figure(figsize=(5, 5), layout="constrained")
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    curve.plot([lowest, 1], [lowest, 1], color="0.6", linestyle="--", label="perfect calibration")
    _plot_accuracy(curve, mean[used], right[used], n[used], marker="o", label="model (95% intervals)")
    curve.set(ylabel="accuracy", ylim=(0, 1.02), title=f"expected calibration error {ece:.3f}")
    curve.legend(loc="lower right")
    width = 1 / _BINS
    counts.bar((np.arange(_BINS) + 0.5) * width, n, width=0.92 * width)
    counts.set(xlabel="probability of the predicted class", ylabel="rows", xlim=(np.floor(lowest / width) * width, 1))
    return figure


def length_groups(lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Groups rows of similar length.

    There are at most eight groups, with about as many rows in each. Rows of the same length are in the same group. If
    many rows have the greatest length, mostly because they were truncated to it, they are a group of their own.

    Returns:
        each row's group, shape (rows,), and each group's greatest length, shape (groups,).
    """
    top = lengths.max()
    shorter = lengths[lengths < top]
    if len(lengths) - len(shorter) < len(lengths) / _LENGTH_GROUPS:
        shorter = lengths
    n_groups = max(1, round(_LENGTH_GROUPS * len(shorter) / len(lengths)))
    quantiles = np.linspace(0, 1, n_groups + 1)[1:]
    ends = np.quantile(shorter, quantiles, method="higher") if len(shorter) else []
    ends = np.unique(np.append(ends, top)).astype(np.int64)
    return np.searchsorted(ends, lengths), ends


def accuracy_by_length(lengths: np.ndarray, correct: np.ndarray) -> Figure:
    """The accuracy on shorter and longer reviews.

    Args:
        lengths: tokens of each review, shape (rows,).
        correct: whether the predicted class is the true one, shape (rows,).
    """
    group, ends = length_groups(lengths)
    n = np.bincount(group)
    right = np.bincount(group, weights=correct).astype(int)
    starts = [int(lengths[group == i].min()) for i in range(len(ends))]
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.add_subplot()
    _plot_accuracy(axes, np.arange(len(ends)), right, n, marker="s", linestyle="none", label="group (95% intervals)")
    axes.axhline(correct.mean(), color="0.6", linestyle="--", label=f"all rows: {correct.mean():.3f}")
    names = [f"{a}" if a == b else f"{a}–{b}" for a, b in zip(starts, ends, strict=True)]
    axes.set_xticks(range(len(ends)), [f"{name}\nn={k}" for name, k in zip(names, n, strict=True)], fontsize=8)
    axes.set(xlabel="length of the review in tokens, as the model reads it", ylabel="accuracy")
    axes.set_ylim(top=1.02)
    axes.legend()
    return figure


def _plot_accuracy(axes: Axes, x: np.ndarray, right: np.ndarray, n: np.ndarray, **style: Any) -> None:
    """Plots `right` out of `n` with 95% intervals; `style` goes to matplotlib's errorbar."""
    share = right / n
    intervals = [wilson_interval(int(k), int(m)) for k, m in zip(right, n, strict=True)]
    low, high = np.reshape(intervals, (-1, 2)).T  # none where all confidences are NaN
    # rounding may put an end of the interval just on the wrong side of the share
    errors = np.maximum([share - low, high - share], 0)
    axes.errorbar(x, share, yerr=errors, capsize=4, **style)
