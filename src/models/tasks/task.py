"""What the logits of a classifier mean. A task is one file of this package; this one says what every task tells.

torchmetrics is imported where it is used: `predict` and `export` need no metrics, and it takes a second.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import torch
from transformers import PretrainedConfig

from src.system.errors import UserError

if TYPE_CHECKING:
    from torchmetrics import Metric, MetricCollection

ClassFigures = dict[str, dict[str, float]]
"""By the name of a class: `precision` and `recall`, their 95% intervals (`recall_low` …), `f1`, and `support`, its
number of rows. What is undefined is NaN.
"""


class Figures(NamedTuple):
    """The figures of an evaluation.

    Attributes:
        overall: by name, those of `Task.figure_names` but for the loss, and `n`, the number of rows.
        by_class: those of each label.
    """

    overall: dict[str, torch.Tensor]
    by_class: ClassFigures


class Task(ABC):
    """What the logits of a classifier, of shape (rows, labels), mean.

    True labels are int64 of shape (rows, *label_shape). All those of a filler row, which counts in nothing, are
    `IGNORED_LABEL`, the only negative number. Predicted labels have the same shape as true ones.

    Args:
        labels: names of the labels, in the order of the logits.

    Attributes:
        problem_type: name of the task in a configuration of `transformers`.
        label_kind: how many labels a text has, in words.
        answer_fields: what an output file says of a row beside the probabilities.
        figure_names: figures by which a checkpoint can be selected.
    """

    problem_type: ClassVar[str]
    label_kind: ClassVar[str]
    answer_fields: ClassVar[tuple[str, ...]]
    figure_names: ClassVar[tuple[str, ...]]

    def __init__(self, labels: Sequence[str]) -> None:
        self.labels = list(labels)

    @classmethod
    def of(cls, config: PretrainedConfig, labels: Sequence[str]) -> Self:  # noqa: ARG003
        """The task of a network; `settings` are in its configuration, which may be a stranger's."""
        return cls(labels)

    @property
    def settings(self) -> dict[str, Any]:
        """What a configuration holds, so that `of` finds the task again."""
        return {"problem_type": self.problem_type}

    @property
    def label_shape(self) -> tuple[int, ...]:
        """The shape of the true labels of one row."""
        return ()

    # ---- training --------------------------------------------------------------------------------------------------

    @abstractmethod
    def losses(
        self, logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None, reduction: str = "none"
    ) -> torch.Tensor:
        """The loss of each label, in the shape of `labels`; 0 for filler rows.

        Args:
            logits, labels: of some rows.
            weights: of the classes, shape (labels,).
            reduction: of torch's losses.
        """

    @abstractmethod
    def balanced_weights(self, counts: torch.Tensor, rows: int) -> torch.Tensor:
        """Weights with which all classes have the same share in the loss, float32 of shape (labels,).

        Args:
            counts: training examples of each label, int64 of shape (labels,).
            rows: training examples.
        """

    def right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Whether all labels of a row are predicted as they are, bool of shape (rows,)."""
        same = self.predicted(self.probabilities(logits)) == labels
        return same.reshape(len(labels), -1).all(dim=1)

    # ---- predictions -----------------------------------------------------------------------------------------------

    @abstractmethod
    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Of shape (rows, labels), in the type of `logits`."""

    @abstractmethod
    def predicted(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The predicted labels, int64 of shape (rows, *label_shape)."""

    @abstractmethod
    def confidence(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The probability of each predicted label, of shape (rows, *label_shape)."""

    def calibrated(self, temperatures: torch.Tensor) -> Self:
        """The task that gives the same labels once the logits are divided by `temperatures`.

        Args:
            temperatures: positive, float64 of shape (1,), or (labels,) where a text may have several.
        """
        return self

    @abstractmethod
    def contrast(self, logits: torch.Tensor) -> torch.Tensor:
        """How the score that an explanation takes apart is made of the logits: a factor for each, shape (labels,).

        Args:
            logits: of a text, shape (labels,).
        """

    @abstractmethod
    def names_of(self, label: torch.Tensor) -> list[str]:
        """The names of the labels of a row, of shape label_shape."""

    @abstractmethod
    def answer(self, probabilities: Sequence[float], min_score: float = 0.0) -> list[Any]:
        """The values of `answer_fields` for a row with these probabilities.

        Args:
            probabilities: of the labels.
            min_score: a label whose probability is lower is left out.
        """

    # ---- evaluation ------------------------------------------------------------------------------------------------

    @abstractmethod
    def metrics(self, rows: int = 0) -> "Metric | MetricCollection":
        """What collects an evaluation: it is updated with probabilities and labels, and gathers the ranks' rows.

        Args:
            rows: that will be evaluated; of very many, less is kept.
        """

    def tuned(self, computed: Any) -> Self:
        """This task, with what validation rows decide; `computed` is what `metrics` have computed of them."""
        return self

    @abstractmethod
    def evaluate(self, computed: Any) -> Figures:
        """The figures, of what `metrics` have computed."""


def named_weights(weights: Mapping[str, float], labels: Sequence[str]) -> torch.Tensor:
    """The numbers of `model.class_weights` in the order of `labels`, float32 of shape (labels,).

    Raises:
        UserError: a label has none, a name is no label's, or a number is no weight.
    """
    by_name = {str(name): weight for name, weight in weights.items()}  # YAML reads 0 as a number
    for names, what in ((set(labels) - by_name.keys(), "has no number for"), (by_name.keys() - set(labels), "names")):
        if names:
            of = "the label" if what.startswith("has") else "what is no label:"
            raise UserError(
                f"model.class_weights {what} {of} {min(names)!r}; the labels are {', '.join(labels)[:200]}. "
                "YAML needs quotes around yes, no, on and off"
            )
    for name, weight in by_name.items():
        if not 0 < weight < math.inf:
            raise UserError(f"model.class_weights: the weight of {name!r} is {weight}; it must be positive")
    return torch.tensor([float(by_name[label]) for label in labels])
