"""The classifier's metrics against scikit-learn and published values."""

import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from src.data.labels import IGNORED_LABEL
from src.models.binned_metrics import BinnedAUROC
from src.models.metrics import classification_metrics, wilson_interval


def _ece(probabilities: np.ndarray, labels: np.ndarray, n_bins: int = 15) -> float:
    """Guo et al. 2017, equation 3."""
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    of_bin = np.minimum((confidence * n_bins).astype(int), n_bins - 1)
    return sum(
        abs(right[of_bin == b].mean() - confidence[of_bin == b].mean()) * (of_bin == b).mean()
        for b in range(n_bins)
        if (of_bin == b).any()
    )


@pytest.mark.parametrize("n_labels", [2, 5])
@pytest.mark.parametrize("batch_size", [7, 200])
def test_metrics_are_those_of_scikit_learn(n_labels: int, batch_size: int) -> None:
    rng = np.random.default_rng(n_labels)
    labels = rng.integers(0, n_labels, 203)
    logits = rng.normal(size=(203, n_labels)) + 1.2 * np.eye(n_labels)[labels]
    ours = classification_metrics(n_labels)
    # filler rows among them, with logits of their own
    real = rng.permutation(260) < 203
    all_labels, all_logits = np.full(260, IGNORED_LABEL), rng.normal(size=(260, n_labels))
    all_labels[real], all_logits[real] = labels, logits
    for i in range(0, 260, batch_size):
        ours.update(torch.tensor(all_logits[i : i + batch_size]).float(), torch.tensor(all_labels[i : i + batch_size]))
    results = ours.compute()

    probabilities = torch.tensor(logits).float().softmax(dim=1).double().numpy()
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    predicted = probabilities.argmax(axis=1)
    scores = probabilities[:, 1] if n_labels == 2 else probabilities
    expected = {
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "f1": sklearn_metrics.f1_score(labels, predicted, average="macro"),
        "mcc": sklearn_metrics.matthews_corrcoef(labels, predicted),
        "auroc": sklearn_metrics.roc_auc_score(labels, scores, multi_class="ovr", average="macro"),
        "ece": _ece(probabilities, labels),
    }
    for name, value in expected.items():
        assert float(results[name]) == pytest.approx(value, abs=1e-6), name
    assert results["confusion_matrix"].tolist() == sklearn_metrics.confusion_matrix(labels, predicted).tolist()


def test_a_class_without_rows_does_not_count() -> None:
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, 100)
    probabilities = torch.tensor(rng.normal(size=(100, 4)) + np.eye(4)[labels]).float().softmax(dim=1)
    ours = classification_metrics(4)
    ours.update(probabilities, torch.tensor(labels))
    of_each = [sklearn_metrics.roc_auc_score(labels == label, probabilities[:, label]) for label in range(3)]
    assert float(ours.compute()["auroc"]) == pytest.approx(np.mean(of_each), abs=1e-6)


@pytest.mark.parametrize(("n_labels", "spread"), [(2, 1), (2, 12), (50, 1), (50, 6)])
def test_binned_auroc_is_close_to_the_exact_one(monkeypatch: pytest.MonkeyPatch, n_labels: int, spread: float) -> None:
    """With small and with saturated probabilities, in several updates, with filler rows; other metrics are equal."""
    generator = torch.Generator().manual_seed(n_labels)
    labels = torch.randint(n_labels - 1, (3000,), generator=generator)  # the last class does not occur
    logits = torch.randn(3000, n_labels, generator=generator)
    logits[torch.arange(3000), labels] += 1.5
    probabilities = (spread * logits).softmax(dim=1)
    labels[::10] = IGNORED_LABEL
    monkeypatch.setattr("src.models.metrics.MOST_PROBABILITIES", 3000 * n_labels - 1)
    exact, binned = classification_metrics(n_labels, 2999), classification_metrics(n_labels, 3000)
    assert isinstance(binned["auroc"], BinnedAUROC)
    assert not isinstance(exact["auroc"], BinnedAUROC)
    exact.update(probabilities, labels)
    for part in range(0, 3000, 700):
        binned.update(probabilities[part : part + 700], labels[part : part + 700])
    expected, results = exact.compute(), binned.compute()
    if n_labels > 2:
        assert float(results["auroc"]) == pytest.approx(float(expected["auroc"]), abs=2e-4)
    else:
        assert results["auroc"].isnan(), "one class occurs"
    for name in ("accuracy", "f1", "mcc", "ece"):
        assert torch.allclose(results[name], expected[name], atol=1e-6, equal_nan=True), name
    assert torch.equal(results["confusion_matrix"], expected["confusion_matrix"])


@pytest.mark.parametrize("n_labels", [2, 4])
@pytest.mark.parametrize("right", [True, False])
def test_nothing_correlates_with_a_single_class(n_labels: int, right: bool) -> None:
    metrics = classification_metrics(n_labels)
    metrics.update(torch.eye(n_labels)[[0, 0 if right else 1]], torch.tensor([0, 0]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = metrics.compute()
    assert results["auroc"].isnan()
    assert results["mcc"].isnan()
    # over the classes that occur or are predicted
    assert float(results["f1"]) == pytest.approx(1.0 if right else 1 / 3)


@pytest.mark.parametrize("n_labels", [2, 4])
def test_constant_predictions_do_not_correlate(n_labels: int) -> None:
    metrics = classification_metrics(n_labels)
    metrics.update(torch.eye(n_labels)[[0, 0, 0]], torch.tensor([0, 1, 0]))
    assert float(metrics.compute()["mcc"]) == 0.0


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [
        (437, 500, 0.8420, 0.9003),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
        (0, 0, 0.0, 1.0),
    ],
)
def test_wilson_interval_equals_published_values(correct: int, n: int, low: float, high: float) -> None:
    assert wilson_interval(correct, n) == pytest.approx((low, high), abs=5e-5)
