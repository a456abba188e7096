"""One label a text: softmax and cross-entropy."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from src.models.tasks.task import Figures, Task

if TYPE_CHECKING:
    from torchmetrics import MetricCollection


class SingleLabel(Task):
    """A text has exactly one of the labels."""

    problem_type = "single_label_classification"
    label_kind = "one label"
    answer_fields = ("label", "score")  # the score is the label's probability
    figure_names = ("accuracy", "balanced_accuracy", "f1", "auroc", "mcc", "ece", "loss")

    def losses(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None, reduction: str = "none"
    ) -> torch.Tensor:
        # torch ignores `IGNORED_LABEL` by default
        return nn.functional.cross_entropy(logits, labels, weight=weights, reduction=reduction)

    def balanced_weights(self, counts: torch.Tensor, rows: int) -> torch.Tensor:
        """n / (k · count) over the k classes that occur, as in scikit-learn; 1 for the others, which no row needs."""
        return (rows / ((counts > 0).sum() * counts)).where(counts > 0, 1.0).float()

    def right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.argmax(dim=-1) == labels

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(dim=-1)

    def predicted(self, probabilities: torch.Tensor) -> torch.Tensor:
        return probabilities.argmax(dim=-1)

    def confidence(self, probabilities: torch.Tensor) -> torch.Tensor:
        return probabilities.amax(dim=-1)

    def contrast(self, logits: torch.Tensor) -> torch.Tensor:
        """The best label against the second: with two labels, the log-odds of the best."""
        best, second = logits.topk(2).indices.tolist()
        factors = torch.zeros_like(logits)
        factors[best], factors[second] = 1, -1
        return factors

    def names_of(self, label: torch.Tensor) -> list[str]:
        return [self.labels[int(label)]]

    def answer(self, probabilities: Sequence[float], min_score: float = 0.0) -> list[Any]:
        best = int(self.predicted(torch.tensor(probabilities, dtype=torch.float64)))
        score = probabilities[best]
        return [self.labels[best] if score >= min_score else None, score]

    def metrics(self, rows: int = 0) -> "MetricCollection":
        from src.models.metrics import classification_metrics

        return classification_metrics(len(self.labels), rows)

    def evaluate(self, computed: Mapping[str, torch.Tensor]) -> Figures:
        from src.models.metrics import by_class, mean_of_defined

        confusion = computed["confusion_matrix"]
        occurring = confusion.sum(dim=1)
        classes = by_class(self.labels, confusion.diagonal(), confusion.sum(dim=0), occurring)
        overall = {name: value for name, value in computed.items() if name != "confusion_matrix"}
        overall["balanced_accuracy"] = mean_of_defined(classes, "recall")
        return Figures({**overall, "n": confusion.sum()}, classes)
