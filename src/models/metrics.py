"""The metrics of a classifier: accuracy with its confidence interval, F1, AUROC, MCC, calibration error."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassMatthewsCorrCoef,
)
from torchmetrics.utilities import dim_zero_cat

from src.data.labels import IGNORED_LABEL
from src.models.binned_metrics import BinnedAUROC, BinnedCalibrationError
from src.models.tasks.task import ClassFigures

MOST_PROBABILITIES = 20_000_000
"""What an evaluation keeps at most for an exact AUROC: 80 MB in fp32."""
AT_ONCE = 2_000_000
"""Probabilities that wait before the metrics are updated with them."""


class PresentAUROC(MulticlassAUROC):
    """The macro AUROC (one class against the rest) over the classes that occur; NaN if only one does.

    The macro average of torchmetrics counts a class without rows as predicted wrong (torchmetrics #583).
    """

    def compute(self) -> torch.Tensor:  # type: ignore[override]
        with warnings.catch_warnings():  # of classes that do not occur, which are left out here
            warnings.filterwarnings("ignore", message="No (positive|negative) samples in targets")
            by_class: torch.Tensor = super().compute()
        counts = torch.bincount(dim_zero_cat(self.target), minlength=len(by_class))
        defined = by_class[(counts > 0) & (counts < counts.sum())]
        return defined.mean()  # of none: NaN


class DefinedMCC(MulticlassMatthewsCorrCoef):
    """The Matthews correlation; NaN if only one class occurs, with which nothing can correlate.

    torchmetrics says 1 then if all predictions are right. If all predictions are one class but several occur, it is 0,
    as in scikit-learn; of two classes, torchmetrics says 0.13 for 20 and 10 rows.
    """

    def compute(self) -> torch.Tensor:
        occur, predicted = ((self.confmat.sum(dim=dim) > 0).sum() for dim in (1, 0))
        return super().compute().float().where(predicted > 1, 0.0).where(occur > 1, math.nan)


class LabelRows(Metric):
    """The probabilities and labels of all rows, float32 and int64 of shape (rows, labels), without filler rows.

    It serves a task whose decisions depend on all rows, as thresholds do.
    """

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds rows."""
        self.probabilities.append(probabilities)  # type: ignore[operator, union-attr]
        self.labels.append(labels)  # type: ignore[operator, union-attr]

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """All rows of all ranks."""
        probabilities, labels = (dim_zero_cat(rows) for rows in (self.probabilities, self.labels))  # type: ignore[arg-type]
        real = (labels != IGNORED_LABEL).all(dim=1)
        return probabilities[real], labels[real]


def classification_metrics(num_labels: int, rows: int = 0) -> MetricCollection:
    """The metrics, to be updated with probabilities of shape (rows, labels) and labels of shape (rows,).

    `accuracy` is the micro average, `f1` and `auroc` are macro averages, and `ece` is the expected calibration error
    over 15 bins (Guo et al. 2017). Filler rows (`IGNORED_LABEL`) count in none of them. What only one class leaves
    undefined is NaN: `auroc` and `mcc`. `f1` is over the classes that occur or are predicted.

    They take no logits: torchmetrics takes a batch of logits for probabilities if all of them lie between 0 and 1, and
    the results would depend on the batches.

    Args:
        num_labels: how many labels there are.
        rows: that will be evaluated. The exact AUROC needs all probabilities at once; with more of them than
            `MOST_PROBABILITIES` it is computed from bins (`BinnedAUROC`), and the calibration error from sums.
    """
    binned = rows * num_labels > MOST_PROBABILITIES
    options: dict[str, Any] = {"num_classes": num_labels, "ignore_index": IGNORED_LABEL, "validate_args": False}
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(average="micro", **options),
            "f1": MulticlassF1Score(average="macro", **options),
            "auroc": BinnedAUROC(num_labels) if binned else PresentAUROC(average="none", **options),
            "mcc": DefinedMCC(**options),
            "ece": BinnedCalibrationError() if binned else MulticlassCalibrationError(n_bins=15, norm="l1", **options),
            "confusion_matrix": MulticlassConfusionMatrix(**options),
        },
        # groups save time by sharing state, but a sync between ranks then breaks the references to it
        compute_groups=False,
    )


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """The 95% confidence interval (Wilson 1927) of an accuracy of `correct` out of `n`; (0, 1) for n = 0.

    Unlike the normal approximation, it stays within [0, 1] and is accurate near 0 and 1.
    """
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def by_class(
    names: Sequence[str], right: torch.Tensor, predicted: torch.Tensor, occurring: torch.Tensor
) -> ClassFigures:
    """Precision and recall of each class with their 95% intervals, and F1, from counts of shape (classes,).

    What has no row to be measured on is NaN: the precision of a class that is never predicted, the recall of one that
    does not occur, the F1 of one that does neither.

    Args:
        names: of the classes.
        right: rows of a class that are predicted to have it.
        predicted, occurring: rows that are predicted to have it, and rows that have it.
    """
    classes = {}
    for name, *counts in zip(names, right.tolist(), predicted.tolist(), occurring.tolist(), strict=True):
        hits, said, true = map(int, counts)
        shares = {"precision": (hits, said), "recall": (hits, true), "f1": (2 * hits, said + true)}
        figures: dict[str, float] = {key: part / whole if whole else math.nan for key, (part, whole) in shares.items()}
        for key in ("precision", "recall"):
            figures[f"{key}_low"], figures[f"{key}_high"] = wilson_interval(*shares[key])
        classes[name] = figures | {"support": true}
    return classes


def mean_of_defined(classes: ClassFigures, name: str) -> torch.Tensor:
    """The mean of a figure over the classes for which it is defined: the macro average."""
    return torch.tensor([figures[name] for figures in classes.values()], dtype=torch.float64).nanmean()
