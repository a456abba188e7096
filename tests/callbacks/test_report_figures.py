"""The report's figures show what was counted."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from src.callbacks.report_figures import (
    accuracy_by_length,
    confidence_bins,
    confusion_matrix,
    drawable,
    length_groups,
    reliability_diagram,
)


def numbers_in(figure: object) -> list[int]:
    return [int(text.get_text()) for text in figure.axes[0].texts]  # type: ignore[attr-defined]


def test_confusion_matrix_counts_every_row_in_its_cell() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
    predicted = np.array([0, 0, 1, 1, 0, 2, 2, 2, 1])
    figure = confusion_matrix(labels, predicted, ["bad", "so $x$", "good"])
    assert numbers_in(figure) == [2, 1, 0, 1, 1, 0, 0, 1, 3]  # true classes are its lines
    assert figure.axes[0].get_title() == "6 of 9 correct"
    figure.canvas.draw()  # a dollar sign in a name is no formula


@pytest.mark.parametrize(
    "names",
    [
        ["bad", "good"],
        ["schlecht", "großartig"],
        ["плохо", "хорошо"],
        ["差", "好"],
        ["سيئ", "جيد"],
        ["רע", "טוב"],
        ["😡", "😀"],
        ["a\nb", "a\tb"],
        ["\u200bneg", "neg"],
        ["\\frac{$a$}", "100 $"],
        ["a very long name of the first class", "a very long name of the second class"],
        [f"class {i}" for i in range(40)],
        [f"class {i}" for i in range(100)],
    ],
)
def test_classes_are_named_or_numbered_and_no_glyph_is_missing(names: list[str]) -> None:
    labels = np.arange(len(names))
    figure = confusion_matrix(labels, labels, names)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    axes = figure.axes[0]
    for axis in (axes.xaxis, axes.yaxis):
        ticks = axis.get_ticklabels()
        shown = [names.index(tick.get_text()) if drawable(names) else int(tick.get_text()) for tick in ticks]
        assert shown == list(axis.get_ticklocs())
        boxes = [tick.get_window_extent() for tick in axes.yaxis.get_ticklabels()]
        assert not any(one.y0 < other.y1 and other.y0 < one.y1 for one, other in itertools.pairwise(boxes))


def test_confusion_matrix_of_many_classes_has_no_numbers() -> None:
    labels = np.arange(60)
    figure = confusion_matrix(labels, labels, [str(k) for k in labels])
    assert not figure.axes[0].texts
    assert max(figure.get_size_inches()) <= 16


@pytest.mark.parametrize("n_classes", [2, 5])
def test_confidence_bins_give_the_logged_calibration_error(n_classes: int) -> None:
    rng = np.random.default_rng(0)
    probabilities = torch.tensor(rng.normal(scale=2, size=(500, n_classes)), dtype=torch.float32).softmax(1)
    labels = torch.tensor(rng.integers(0, n_classes, 500))
    confidence, correct = probabilities.max(1).values.numpy(), (probabilities.argmax(1) == labels).numpy()
    n, right, mean = confidence_bins(confidence, correct)
    assert n.sum() == 500
    assert right.sum() == correct.sum()
    expected = multiclass_calibration_error(probabilities, labels, n_classes, n_bins=15)
    assert np.abs(right - mean * n).sum() / 500 == pytest.approx(float(expected), abs=1e-6)
    assert (
        reliability_diagram(confidence, correct, 1 / n_classes).axes[0].get_title().endswith(f" {float(expected):.3f}")
    )


def test_calibration_of_a_model_that_is_always_sure() -> None:
    n, right, mean = confidence_bins(np.ones(4, dtype=np.float32), np.array([True, True, True, False]))
    assert (n[-1], right[-1], mean[-1]) == (4, 3, 1.0)
    reliability_diagram(np.ones(4, dtype=np.float32), np.array([True, True, True, False]), 0.5).canvas.draw()


def test_groups_of_length_part_no_length_and_are_alike_in_rows() -> None:
    lengths = np.random.default_rng(0).integers(10, 500, 800)
    group, ends = length_groups(lengths)
    assert len(ends) == 8
    assert all(len(set(group[lengths == length])) == 1 for length in set(lengths))
    assert np.bincount(group).min() > 80
    assert all(lengths[group == i].max() == end for i, end in enumerate(ends))


def test_reviews_that_were_cut_are_a_group_of_their_own() -> None:
    lengths = np.minimum(np.random.default_rng(0).integers(10, 500, 800), 256)
    group, ends = length_groups(lengths)
    assert set(lengths[group == len(ends) - 1]) == {256}


@pytest.mark.parametrize("lengths", [[5], [5, 5, 5], [3, 4], [1, *[9] * 20]])
def test_few_rows_are_drawn_too(lengths: list[int]) -> None:
    group, ends = length_groups(np.array(lengths))
    assert np.bincount(group, minlength=len(ends)).min() > 0
    figure = accuracy_by_length(np.array(lengths), np.ones(len(lengths), dtype=bool))
    figure.canvas.draw()
    n = [int(tick.get_text().split("n=")[1]) for tick in figure.axes[0].get_xticklabels()]
    assert sum(n) == len(lengths)
