"""Several labels a text: losses against torch, figures against scikit-learn, thresholds against a search."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.nn import functional
from transformers import BertConfig

from src.data.labels import IGNORED_LABEL
from src.models.tasks.known import task_of
from src.models.tasks.multi_label import MultiLabel, best_thresholds
from src.system.errors import UserError

_NAMES = ["a", "b", "c", "d"]


def _rows(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities in steps of 1/20, so that some are equal, and labels; the last label is no text's."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((n, 4)) < (0.5, 0.2, 0.05, 0)).astype(int)
    scores = np.clip(0.3 * labels + rng.random((n, 4)) * 0.7, 0, 1)
    return torch.tensor(np.round(scores * 20) / 20, dtype=torch.float32), torch.tensor(labels)


def test_losses_are_torchs_and_filler_rows_have_none() -> None:
    task = MultiLabel(_NAMES)
    logits, (_, labels) = torch.randn(6, 4), _rows(6)
    weights = torch.tensor([1.0, 2.0, 3.0, 0.5])
    expected = functional.binary_cross_entropy_with_logits(logits, labels.float(), pos_weight=weights, reduction="none")
    torch.testing.assert_close(task.losses(logits, labels, weights), expected)
    labels[2] = IGNORED_LABEL
    expected[2] = 0
    torch.testing.assert_close(task.losses(logits, labels, weights), expected)


def test_balanced_weights_give_both_sides_of_a_label_the_same_share() -> None:
    counts = torch.tensor([20, 5, 0, 100])
    weights = MultiLabel(_NAMES).balanced_weights(counts, 100)
    assert weights.tolist() == [4.0, 19.0, 1.0, 1.0]


@pytest.mark.parametrize("batch_size", [7, 200])
def test_figures_are_those_of_scikit_learn(batch_size: int) -> None:
    probabilities, labels = _rows(120)
    task = MultiLabel(_NAMES, [0.5, 0.42, 0.61, 0.97])
    metrics = task.metrics()
    for i in range(0, 120, batch_size):
        metrics.update(probabilities[i : i + batch_size], labels[i : i + batch_size])
    metrics.update(torch.full((2, 4), 0.5), torch.full((2, 4), IGNORED_LABEL))  # of a rank without rows
    overall, classes = task.evaluate(metrics.compute())
    truth = labels.numpy()
    predicted = (probabilities.numpy() >= np.array(task.thresholds, dtype=np.float32)).astype(int)
    assert {*overall, "loss"} == {*task.figure_names, "n"}
    assert int(overall["n"]) == 120
    assert float(overall["accuracy"]) == pytest.approx(sklearn_metrics.accuracy_score(truth, predicted))
    assert float(overall["label_accuracy"]) == pytest.approx(1 - sklearn_metrics.hamming_loss(truth, predicted))
    assert float(overall["f1_micro"]) == pytest.approx(sklearn_metrics.f1_score(truth, predicted, average="micro"))
    expected = sklearn_metrics.precision_recall_fscore_support(truth, predicted, zero_division=np.nan)
    for k, name in enumerate(_NAMES):
        for figure, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert classes[name][figure] == pytest.approx(values[k], nan_ok=True), (name, figure)
        recall = classes[name]["recall"]
        assert math.isnan(recall) or classes[name]["recall_low"] <= recall <= classes[name]["recall_high"]
    assert float(overall["f1"]) == pytest.approx(np.nanmean(expected[2]))
    # the last label is no text's, which leaves its ranking undefined
    auroc = sklearn_metrics.roc_auc_score(truth[:, :3], probabilities[:, :3].numpy(), average="macro")
    assert float(overall["auroc"]) == pytest.approx(auroc, abs=1e-6)


def test_a_threshold_is_the_best_that_a_search_finds() -> None:
    probabilities, labels = _rows(60, seed=1)
    thresholds = best_thresholds(probabilities, labels)
    assert thresholds[3] == 0.5, "no text has the last label"
    tried = np.arange(0, 1.05, 0.025)
    for k in range(3):
        y, p = labels[:, k].numpy(), probabilities[:, k].numpy()
        scores = [sklearn_metrics.f1_score(y, p >= t, zero_division=0) for t in tried]
        assert sklearn_metrics.f1_score(y, p >= thresholds[k]) == pytest.approx(max(scores)), k
        assert not np.isclose(p, thresholds[k]).any(), "between two probabilities"
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert best_thresholds(probabilities[order], labels[order]) == thresholds, "whatever the order of the rows"


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]], ids=["none has it", "all have it"])
def test_thresholds_of_constant_labels_are_finite(labels: list[int]) -> None:
    (threshold,) = best_thresholds(torch.tensor([[0.2], [0.9], [0.4]]), torch.tensor(labels)[:, None])
    assert (threshold <= 0.2) == (labels == [1, 1, 1])


def test_the_configuration_keeps_the_thresholds() -> None:
    config = BertConfig(id2label=dict(enumerate(_NAMES)))
    config.update(MultiLabel(_NAMES, [0.1, 0.2, 0.3, 0.4]).settings)
    again = task_of(BertConfig.from_dict(config.to_dict()), _NAMES)
    assert isinstance(again, MultiLabel)
    assert again.thresholds == [0.1, 0.2, 0.3, 0.4]
    del config.thresholds
    assert task_of(config, _NAMES).settings["thresholds"] == [0.5] * 4, "as other programs write it"


@pytest.mark.parametrize("thresholds", [[0.5], "0.5", [0.5, 0.5, 0.5, math.nan], [0.5, 0.5, 0.5, "x"], 0.5, [True] * 4])
def test_damaged_thresholds_are_refused(thresholds: Any) -> None:
    config = BertConfig(problem_type="multi_label_classification")
    config.thresholds = thresholds
    with pytest.raises(UserError, match="the thresholds are no 4 numbers"):
        task_of(config, _NAMES)
