"""One label a text: losses and class weights against torch and scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional

from src.data.labels import IGNORED_LABEL
from src.models.tasks.single_label import SingleLabel
from src.models.tasks.task import named_weights
from src.system.errors import UserError

_TASK = SingleLabel(["a", "b", "c"])


def test_weighted_losses_add_up_to_torchs() -> None:
    logits, labels = torch.randn(9, 3), torch.tensor([0, 1, 2] * 3)
    weights = torch.tensor([1.0, 2.0, 0.5])
    expected = functional.cross_entropy(logits, labels, weight=weights, reduction="sum")
    torch.testing.assert_close(_TASK.losses(logits, labels, weights).sum(), expected)
    # torch's mean divides by the sum of the weights, which differs from one batch to the next
    assert float(_TASK.losses(logits, labels, weights, reduction="mean")) == pytest.approx(float(expected) / 10.5)
    labels[4] = IGNORED_LABEL
    assert float(_TASK.losses(logits, labels, weights)[4]) == 0


@pytest.mark.parametrize("labels", [[0] * 7 + [1] * 2 + [2], [0] * 3 + [2]], ids=["all occur", "one does not"])
def test_balanced_weights_are_those_of_scikit_learn(labels: list[int]) -> None:
    counts = torch.bincount(torch.tensor(labels), minlength=3)
    weights = _TASK.balanced_weights(counts, len(labels))
    occurring = np.unique(labels)
    expected = compute_class_weight("balanced", classes=occurring, y=labels)
    np.testing.assert_allclose(weights[occurring], expected, rtol=1e-6)
    assert torch.isfinite(weights).all()
    # the mean weight of a row is 1, so that the learning rate keeps its meaning
    assert float(weights[labels].mean()) == pytest.approx(1)


def test_figures_of_a_class_are_those_of_scikit_learn() -> None:
    """Of a class that never occurs, and of one that is never predicted, what cannot be measured is undefined."""
    rng = np.random.default_rng(0)
    task = SingleLabel(list("abcde"))
    labels = rng.integers(0, 4, 60)  # no e
    probabilities = rng.dirichlet(np.ones(5), 60) + np.eye(5)[labels] * 0.2
    probabilities[:, 3] = 0  # d is never predicted
    probabilities = torch.tensor(probabilities / probabilities.sum(1, keepdims=True))
    metrics = task.metrics()
    metrics.update(probabilities, torch.tensor(labels))
    overall, classes = task.evaluate(metrics.compute())
    predicted = task.predicted(probabilities).numpy()
    expected = precision_recall_fscore_support(labels, predicted, labels=range(5), zero_division=np.nan)
    for k, name in enumerate("abcde"):
        for figure, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert classes[name][figure] == pytest.approx(values[k], nan_ok=True), (name, figure)
    assert np.isnan(classes["d"]["precision"])
    assert np.isnan(classes["e"]["recall"])
    assert float(overall["balanced_accuracy"]) == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert int(overall["n"]) == 60
    assert {*overall, "loss"} == {*task.figure_names, "n"}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"neg": 1.0}, "has no number for the label 'pos'; the labels are neg, pos"),
        ({"neg": 1.0, "pos": 2.0, "so-so": 3.0}, "names what is no label: 'so-so'"),
        ({"neg": 1.0, "pos": 0.0}, "the weight of 'pos' is 0.0; it must be positive"),
        ({"neg": 1.0, "pos": float("nan")}, "the weight of 'pos' is nan"),
    ],
)
def test_weights_name_each_label_once(weights: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        named_weights(weights, ["neg", "pos"])
