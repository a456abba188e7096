"""Temperatures against scikit-learn's, and that no label changes."""

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from src.models.heads.temperature import best_temperatures, divide_head
from src.models.tasks.multi_label import MultiLabel
from src.models.tasks.single_label import SingleLabel


class _Logits(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are its logits."""

    def __init__(self, classes: int) -> None:
        self.classes_ = np.arange(classes)

    def fit(self, x: np.ndarray, y: np.ndarray) -> "_Logits":
        return self

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return x if x.shape[1] > 1 else x[:, 0]

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x.argmax(1)


def _by_scikit_learn(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The calibrated probabilities; logits of one column are those of two classes."""
    frozen = FrozenEstimator(_Logits(max(2, logits.shape[1])))
    fitted = CalibratedClassifierCV(frozen, method="temperature").fit(logits, labels)
    found: np.ndarray = fitted.predict_proba(logits)
    return found


@pytest.mark.parametrize(("classes", "too_sure"), [(2, 4.0), (5, 4.0), (5, 0.3)])
def test_one_label_has_the_probabilities_of_scikit_learn(classes: int, too_sure: float) -> None:
    draw = torch.Generator().manual_seed(0)
    true = torch.randn(300, classes, generator=draw)
    labels = torch.multinomial(true.softmax(dim=1), 1, generator=draw)[:, 0]
    logits, task = true * too_sure, SingleLabel([str(i) for i in range(classes)])
    temperatures = best_temperatures(logits, labels, task)
    assert temperatures.shape == (1,)
    assert temperatures.item() == pytest.approx(too_sure, rel=0.25), "the labels were drawn from the true logits"
    # of two classes scikit-learn reads one number, the difference
    given = (logits[:, 1:] - logits[:, :1] if classes == 2 else logits).double().numpy()
    expected = _by_scikit_learn(given, labels.numpy())
    np.testing.assert_allclose((logits.double() / temperatures).softmax(dim=1), expected, atol=1e-6)


def test_several_labels_have_those_of_scikit_learn_and_keep_each_label() -> None:
    draw = torch.Generator().manual_seed(1)
    true = torch.randn(400, 4, generator=draw) * 2
    labels = torch.bernoulli(true.sigmoid(), generator=draw).long()
    labels[:, 3] = (true[:, 3] > 0).long()  # always right, so that no temperature is the best
    logits, task = true * torch.tensor([5.0, 0.5, 1.0, 1.0]), MultiLabel(list("abcd"), [0.9, 0.3, 0.5, 0.4])
    temperatures = best_temperatures(logits, labels, task)
    for k in range(3):
        expected = _by_scikit_learn(logits[:, [k]].double().numpy(), labels[:, k].numpy())[:, 1]
        np.testing.assert_allclose((logits[:, k].double() / temperatures[k]).sigmoid(), expected, atol=1e-6)
    assert temperatures[3] == 1
    calibrated = task.calibrated(temperatures)
    assert calibrated.thresholds[0] < 0.7, "it moves as the probabilities do"
    assert calibrated.thresholds[2:] == pytest.approx([0.5, 0.4])
    others = torch.randn(1000, 4, generator=draw, dtype=torch.float64) * 8
    before, after = task.probabilities(others), calibrated.probabilities(others / temperatures)
    assert torch.equal(task.predicted(before), calibrated.predicted(after))


def test_a_threshold_that_no_probability_reaches_stays() -> None:
    task = MultiLabel(["a", "b", "c"], [0.0, 1.0, 1.5])
    assert task.calibrated(torch.tensor([2.0, 2.0, 2.0], dtype=torch.float64)).thresholds == [0.0, 1.0, 1.5]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_where_none_is_the_best_it_is_1(sign: float) -> None:
    """All rows right: the colder the better. All rows wrong: the hotter the better."""
    labels = torch.tensor([0, 1, 1, 0])
    logits = sign * nn.functional.one_hot(labels, 2).float()
    assert best_temperatures(logits, labels, SingleLabel(["a", "b"])).tolist() == [1.0]


def test_a_label_that_rounding_would_change_keeps_1() -> None:
    """A threshold that lies among the surest rows, of a label that is far too unsure: all of them would be 1."""
    draw = torch.Generator().manual_seed(2)
    logits = torch.randn(2000, 1, generator=draw) * 0.5
    labels = (logits + torch.randn(2000, 1, generator=draw) * 0.03 > 0).long()
    task = MultiLabel(["a"], [float(logits.double().sigmoid().quantile(0.99))])
    free = best_temperatures(logits, labels, MultiLabel(["a"]))
    assert 0.01 < free.item() < 0.03
    assert best_temperatures(logits, labels, task).tolist() == [1.0]


@pytest.mark.parametrize("several", [False, True])
def test_dividing_the_head_divides_the_logits(several: bool) -> None:
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3)
    network = BertForSequenceClassification(config).eval()
    with torch.no_grad():
        network.classifier.bias.normal_()
        ids = torch.arange(24).reshape(3, 8)
        before = network(input_ids=ids).logits
        temperatures = torch.tensor([2.0, 0.5, 3.0] if several else [2.0], dtype=torch.float64)
        divide_head(network, temperatures)
        torch.testing.assert_close(network(input_ids=ids).logits, (before / temperatures).float())
