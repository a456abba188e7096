"""AUROC and calibration error from counts in bins, whose memory does not grow with the rows.

All states are integers: no precision rounds them, and any number of ranks and batches gives the same sums.
"""

import torch
from torchmetrics import Metric

from src.data.labels import IGNORED_LABEL

# By the logit of a probability, not by the probability: of a thousand classes, most have probabilities near 0. Bins are
# 0.04 wide, over which odds change by 4%.
_BINS, _LARGEST_LOGIT = 2000, 40.0
_CONFIDENCE_BINS = 15
_ONE = 2**30  # a probability of 1 as an integer


class BinnedAUROC(Metric):
    """The mean over the classes that occur of the AUROC of one class against the rest; NaN if only one occurs.

    A positive and a negative row in the same bin count half, as rows of equal probability do. torchmetrics' own, with
    `thresholds`, goes through the rows once for each threshold.
    """

    full_state_update = False
    positives: torch.Tensor
    rows: torch.Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for name in ("positives", "rows"):
            self.add_state(name, torch.zeros(num_classes, _BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Counts rows: probabilities of shape (rows, classes) and labels of shape (rows,)."""
        real = labels != IGNORED_LABEL
        probabilities, labels = probabilities[real], labels[real]
        logits = probabilities.float().logit().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
        bins = ((logits + _LARGEST_LOGIT) * ((_BINS - 1) / (2 * _LARGEST_LOGIT))).long()
        places = bins + torch.arange(self.rows.shape[0], device=bins.device) * _BINS
        of_label = places.gather(1, labels[:, None])
        for state, found in ((self.rows, places), (self.positives, of_label)):
            state.view(-1).index_add_(0, found.ravel(), torch.ones_like(found.ravel()))

    def compute(self) -> torch.Tensor:
        positives, rows = self.positives.double(), self.rows.double()
        negatives = rows - positives
        below = negatives.cumsum(dim=1) - negatives
        n_positives, n_negatives = positives.sum(dim=1), negatives.sum(dim=1)
        defined = (n_positives > 0) & (n_negatives > 0)
        wins = (positives * (below + negatives / 2)).sum(dim=1)
        return (wins / (n_positives * n_negatives))[defined].mean().float()


class BinnedCalibrationError(Metric):
    """The expected calibration error over 15 bins of equal width (Guo et al. 2017), as that of torchmetrics.

    torchmetrics' own keeps two numbers a row, in a tensor of its own for each update; between large temporary tensors
    these scatter the heap, which grew by gigabytes.
    """

    full_state_update = False
    confidence: torch.Tensor
    right: torch.Tensor
    rows: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("confidence", "right", "rows"):
            self.add_state(name, torch.zeros(_CONFIDENCE_BINS, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probabilities: torch.Tensor, labels: torch.Tensor) -> None:
        """Counts rows: probabilities of shape (rows, classes) and labels of shape (rows,)."""
        real = labels != IGNORED_LABEL
        highest, predicted = probabilities[real].max(dim=1)
        confidence = highest.double()
        bins = (confidence * _CONFIDENCE_BINS).long().clamp(max=_CONFIDENCE_BINS - 1)
        self.confidence.index_add_(0, bins, (confidence * _ONE).round().long())
        self.right.index_add_(0, bins, (predicted == labels[real]).long())
        self.rows.index_add_(0, bins, torch.ones_like(bins))

    def compute(self) -> torch.Tensor:
        gaps = self.confidence.double() / _ONE - self.right
        return (gaps.abs().sum() / self.rows.sum()).float()
