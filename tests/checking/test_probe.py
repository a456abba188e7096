"""Out-of-sample probabilities, the labels that they doubt, and the vectors that they read."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from src.checking.probe import FOLDS, doubted, out_of_sample, vectors_of
from src.data.tokenization import Encoder
from src.models.heads.linear_probe import PENALTY, head_inputs
from tests.synthetic import synthetic_reviews


def _blobs(n: int, classes: int = 2) -> tuple[torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(3)
    y = rng.integers(0, classes, n)
    return torch.from_numpy(rng.normal(size=(n, 6)) + 3 * np.eye(6)[y]), y


def test_probabilities_are_those_of_probes_without_the_row() -> None:
    x, y = _blobs(83, 3)
    probabilities = out_of_sample(x, y, 3)
    assert probabilities.sum(axis=1) == pytest.approx(1)
    for k in range(FOLDS):
        # the rows of each class are dealt in turn
        out = np.zeros(len(y), dtype=bool)
        for label in range(3):
            out[np.flatnonzero(y == label)[k::FOLDS]] = True
        # scikit-learn sums the losses, and halves the squares
        theirs = LogisticRegression(C=1 / (2 * PENALTY * (~out).sum()), tol=1e-10, max_iter=5000)
        theirs.fit(x.numpy()[~out], y[~out])
        assert probabilities[out] == pytest.approx(theirs.predict_proba(x.numpy()[out]), abs=1e-4)


def test_wrong_labels_are_doubted_first() -> None:
    x, y = _blobs(200)
    wrong = np.random.default_rng(0).choice(200, 10, replace=False)
    given = y.copy()
    given[wrong] = 1 - given[wrong]
    assert set(doubted(out_of_sample(x, given, 2), given)[:10].tolist()) == set(wrong.tolist())


def test_a_class_that_no_probe_can_know_is_not_doubted() -> None:
    x, y = _blobs(60)
    y[[4, 9]] = 2
    doubts = doubted(out_of_sample(x, y, 3), y)
    assert len(doubts) == 58
    assert not {4, 9} & set(doubts.tolist())


def test_vector_of_a_review_is_the_mean_over_its_windows(tiny_bert: Path) -> None:
    network = AutoModelForSequenceClassification.from_pretrained(tiny_bert)
    encoder = Encoder(AutoTokenizer.from_pretrained(tiny_bert), 16, "windows")
    reviews = encoder.encode(synthetic_reviews(20)["text"].tolist())
    assert max(map(len, reviews)) > 2
    read: list[int] = []
    vectors = vectors_of(network, reviews, 0, read.append)
    assert sum(read) == sum(map(len, reviews))
    for review, vector in zip(reviews, vectors, strict=True):
        alone = [{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))} for ids in review]
        assert head_inputs(network, alone).mean(dim=0).tolist() == pytest.approx(vector.tolist(), abs=1e-5)
