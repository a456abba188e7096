"""What is measured of a classifier."""

import math
from typing import Any

import torch
from torchmetrics import MetricCollection
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


class PresentAUROC(MulticlassAUROC):
    """The mean over the classes that some rows have, and some have not; 0 where there is none.

    The macro average of torchmetrics takes an absent class for one that is always told wrong (torchmetrics #583).
    """

    def compute(self) -> torch.Tensor:  # type: ignore[override]
        of_each: torch.Tensor = super().compute()
        counts = torch.bincount(dim_zero_cat(self.target), minlength=len(of_each))
        known = of_each[(counts > 0) & (counts < counts.sum())]
        return known.mean() if len(known) else of_each.new_zeros(())


def classification_metrics(num_labels: int) -> MetricCollection:
    """Metrics over rows, updated with probabilities of shape (rows, labels) and labels of shape (rows,).

    Probabilities, not logits: torchmetrics takes the logits of a batch for probabilities where all of them happen to
    lie between 0 and 1, so that the result would depend on how rows are cut into batches.

    `accuracy` is the share of rows that are right (micro); `f1` and `auroc` are the mean over the classes (macro),
    `ece` the expected calibration error over 15 bins (Guo et al. 2017). Masked rows count in none.
    """
    kind: dict[str, Any] = {"num_classes": num_labels, "ignore_index": IGNORED_LABEL, "validate_args": False}
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(average="micro", **kind),
            "f1": MulticlassF1Score(average="macro", **kind),
            "auroc": PresentAUROC(average="none", **kind),
            "mcc": MulticlassMatthewsCorrCoef(**kind),
            "ece": MulticlassCalibrationError(n_bins=15, norm="l1", **kind),
            "confusion_matrix": MulticlassConfusionMatrix(**kind),
        },
        # groups share state to save time, but hand out references to it that a sync between ranks then breaks
        compute_groups=False,
    )


def wilson_interval(correct: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% interval of a share of `correct` out of `n` (Wilson 1927); (0, 1) for n = 0.

    Unlike the normal approximation it stays within [0, 1] and holds near its ends.
    """
    if n == 0:
        return 0.0, 1.0
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
