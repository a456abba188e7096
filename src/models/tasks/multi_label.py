"""Several labels a text, or none: a sigmoid, a binary cross-entropy and a threshold for each label."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn
from transformers import PretrainedConfig

from src.models.tasks.task import Figures, Task
from src.system.errors import UserError

if TYPE_CHECKING:
    from src.models.metrics import LabelRows

_MIDDLE = 0.5
_ROUNDING = 1e-6  # of a probability in fp32, on different machines


class MultiLabel(Task):
    """A text has any number of the labels: those whose probability is at least their threshold.

    Args:
        labels: names of the labels, in the order of the logits.
        thresholds: of the labels; None is 0.5 for all.
    """

    problem_type = "multi_label_classification"
    label_kind = "any number of labels"
    answer_fields = ("label",)
    figure_names = ("accuracy", "label_accuracy", "f1", "f1_micro", "auroc", "ece", "loss")

    def __init__(self, labels: Sequence[str], thresholds: Sequence[float] | None = None) -> None:
        super().__init__(labels)
        self.thresholds = [_MIDDLE] * len(labels) if thresholds is None else list(thresholds)
        self._on: dict[torch.device, torch.Tensor] = {}

    @classmethod
    def of(cls, config: PretrainedConfig, labels: Sequence[str]) -> Self:
        """The task of a network, with 0.5 where its configuration has no thresholds, as in those of other programs.

        Raises:
            UserError: it has no number for each label.
        """
        thresholds = getattr(config, "thresholds", None)
        if thresholds is None:
            return cls(labels)
        numbers = isinstance(thresholds, list) and all(
            type(each) in (int, float) and math.isfinite(each) for each in thresholds
        )
        if not numbers or len(thresholds) != len(labels):
            raise UserError(f"the thresholds are no {len(labels)} numbers, one for each label, but {thresholds!r:.100}")
        return cls(labels, thresholds)

    @property
    def settings(self) -> dict[str, Any]:
        return super().settings | {"thresholds": self.thresholds}

    @property
    def label_shape(self) -> tuple[int, ...]:
        return (len(self.labels),)

    # ---- training --------------------------------------------------------------------------------------------------

    def losses(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None, reduction: str = "none"
    ) -> torch.Tensor:
        real = (labels >= 0).to(logits.dtype)
        return nn.functional.binary_cross_entropy_with_logits(
            logits, labels.to(logits.dtype) * real, weight=real, pos_weight=weights, reduction=reduction
        )

    def balanced_weights(self, counts: torch.Tensor, rows: int) -> torch.Tensor:
        """Rows without a label per row that has it; 1 for a label that no row or every row has."""
        return ((rows - counts) / counts).where((counts > 0) & (counts < rows), 1.0).float()

    # ---- predictions -----------------------------------------------------------------------------------------------

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()

    def predicted(self, probabilities: torch.Tensor) -> torch.Tensor:
        return (probabilities >= self._thresholds_on(probabilities.device)).long()

    def confidence(self, probabilities: torch.Tensor) -> torch.Tensor:
        return probabilities.where(self.predicted(probabilities) == 1, 1 - probabilities)

    def contrast(self, logits: torch.Tensor) -> torch.Tensor:
        """The log-odds of the likeliest label."""
        factors = torch.zeros_like(logits)
        factors[logits.argmax()] = 1
        return factors

    def names_of(self, label: torch.Tensor) -> list[str]:
        return [name for name, has in zip(self.labels, label.tolist(), strict=True) if has]

    def calibrated(self, temperatures: torch.Tensor) -> Self:
        """With the thresholds moved as the probabilities are; none can reach one outside of 0 and 1, which stays."""
        before = torch.tensor(self.thresholds, dtype=torch.float64)
        moved = (before.logit() / temperatures).sigmoid().where((before > 0) & (before < 1), before)
        return type(self)(self.labels, moved.tolist())

    def answer(self, probabilities: Sequence[float], min_score: float = 0.0) -> list[Any]:
        found = torch.tensor(probabilities, dtype=torch.float64)
        return [self.names_of(self.predicted(found) * (found >= min_score))]

    def _thresholds_on(self, device: torch.device) -> torch.Tensor:
        """Kept, since a copy to a GPU would wait for it in each step."""
        if device not in self._on:
            self._on[device] = torch.tensor(self.thresholds, dtype=torch.float64, device=device)
        return self._on[device]

    # ---- evaluation ------------------------------------------------------------------------------------------------

    def metrics(self, rows: int = 0) -> "LabelRows":
        from src.models.metrics import LabelRows

        return LabelRows()

    def tuned(self, computed: tuple[torch.Tensor, torch.Tensor]) -> Self:
        """With the thresholds that are best for these rows: see `best_thresholds`."""
        return type(self)(self.labels, best_thresholds(*computed))

    def evaluate(self, computed: tuple[torch.Tensor, torch.Tensor]) -> Figures:
        """`accuracy` is the share of rows whose labels are all right, and `label_accuracy` that of all single labels.

        `f1` and `auroc` are means over the labels for which they are defined, `f1_micro` is over all single labels, and
        `ece` is the calibration error of all probabilities over 15 bins.
        """
        from torchmetrics import functional

        from src.models.metrics import by_class, mean_of_defined

        probabilities, labels = computed
        predicted = self.predicted(probabilities)
        n, right = len(labels), predicted == labels
        positives, found = labels.sum(dim=0), (predicted * labels).sum(dim=0)
        classes = by_class(self.labels, found, predicted.sum(dim=0), positives)
        ranked = (positives > 0) & (positives < n)
        auroc = [
            functional.classification.binary_auroc(probabilities[:, k], labels[:, k], validate_args=False)
            for k in ranked.nonzero()[:, 0].tolist()
        ]
        return Figures(
            {
                "accuracy": right.all(dim=1).double().mean(),
                "label_accuracy": right.double().mean(),
                "f1": mean_of_defined(classes, "f1"),
                "f1_micro": 2 * found.sum() / (predicted.sum() + positives.sum()).double(),
                "auroc": torch.stack(auroc).double().mean() if auroc else torch.tensor(math.nan),
                "ece": functional.classification.binary_calibration_error(
                    probabilities.ravel(), labels.ravel(), n_bins=15, norm="l1", validate_args=False
                ),
                "n": torch.tensor(n),
            },
            classes,
        )


def best_thresholds(probabilities: torch.Tensor, labels: torch.Tensor) -> list[float]:
    """For each label, the threshold with the highest F1 on some rows; 0.5 for a label that none of them has.

    A threshold lies in the middle between two probabilities that differ by more than rounding. Of thresholds with the
    same F1, the highest is taken: the one that gives the fewest labels.

    Args:
        probabilities: of shape (rows, labels).
        labels: 0 or 1, of the same shape.
    """
    if not len(labels):
        return [_MIDDLE] * labels.shape[1]
    ranked, order = probabilities.double().cpu().sort(dim=0, descending=True)
    found = labels.cpu().gather(0, order).cumsum(dim=0)  # among the rows from the first to this one
    positives = found[-1]
    predicted = torch.arange(1, len(found) + 1)[:, None]
    f1 = 2 * found / (predicted + positives).double()
    following = torch.cat([ranked[1:], torch.zeros_like(ranked[:1])])
    f1[:-1][ranked[:-1] - ranked[1:] < _ROUNDING] = -1
    best = f1.argmax(dim=0, keepdim=True)
    middle = (ranked.gather(0, best) + following.gather(0, best))[0] / 2
    thresholds: list[float] = middle.where(positives > 0, _MIDDLE).tolist()
    return thresholds
