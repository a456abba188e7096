"""A teacher of texts that have no labels: it knows sentences that say what each class means, and nothing else.

A sentence encoder tells how near a text is to the sentences of each class. The texts that it is surest of teach a model
of words (TF-IDF and logistic regression), which sees what the encoder does not: the two together are right more often
than each. What is kept are the surest texts of both. Measured in docs/experiments/few_labels.md.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from src.system.errors import UserError
from src.teaching.lesson import Lesson

_LEAST_USES = 3  # of a word, or it is not in the model of words


class Taught(NamedTuple):
    """The texts that a teacher is surest of, in their order.

    Attributes:
        rows: their places among all texts, int64.
        labels: the number of the class of each, int64.
        margins: how much more that class has than the next, in standard deviations of all scores; float64.
    """

    rows: np.ndarray
    labels: np.ndarray
    margins: np.ndarray


def teach(texts: Sequence[str], vectors: np.ndarray, sentences: Sequence[np.ndarray], lesson: Lesson) -> Taught:
    """Labels the texts that the teacher is surest of.

    Args:
        texts: without labels.
        vectors: of a sentence encoder for each text, of shape (texts, size).
        sentences: its vectors for the sentences of each class, each of shape (sentences, size).
        lesson: the prior, and what is kept.

    Raises:
        UserError: there are too few texts to teach any word, or none of a class.
    """
    prior = np.array([lesson.prior[name] for name in lesson.sentences])
    near = _standardised(_unit(vectors) @ np.stack([_unit(each).mean(axis=0) for each in sentences], axis=1))
    first = _surest(near, prior, lesson.keep)
    return _surest(near + _standardised(_word_scores(texts, first, len(prior))), prior, lesson.keep)


def _surest(scores: np.ndarray, prior: np.ndarray, keep: float) -> Taught:
    """Of each class, the texts with the highest margin over all other classes, as many as the prior gives it."""
    others = np.stack([np.delete(scores, k, axis=1).max(axis=1) for k in range(len(prior))], axis=1)
    margins = scores - others
    chosen = np.full(scores.shape, -np.inf)
    for k, quota in enumerate(np.floor(keep * prior * len(scores)).astype(int)):
        best = np.argsort(-margins[:, k], kind="stable")[:quota]
        chosen[best, k] = margins[best, k]
    rows = np.flatnonzero(np.isfinite(chosen).any(axis=1))
    labels = chosen[rows].argmax(axis=1)  # where the prior gives a text to two classes, the nearer one has it
    return Taught(rows, labels, margins[rows, labels])


def _word_scores(texts: Sequence[str], taught: Taught, classes: int) -> np.ndarray:
    """The log probability of each class for all texts, by a model of the words of those that are taught."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    if (found := len(np.unique(taught.labels))) < classes:
        raise UserError(f"the teacher has texts for {found} of {classes} classes only: give it more texts")
    try:
        words = TfidfVectorizer(ngram_range=(1, 2), min_df=_LEAST_USES, sublinear_tf=True, max_features=200_000)
        x = words.fit_transform(texts)
    except ValueError as error:
        raise UserError(f"no word occurs in {_LEAST_USES} texts or more: give the teacher more texts") from error
    model = LogisticRegression(max_iter=300).fit(x[taught.rows], taught.labels)
    return np.asarray(model.predict_log_proba(x))


def _standardised(scores: np.ndarray) -> np.ndarray:
    """Each class with mean 0 over the texts, so that none is favoured; all with one standard deviation."""
    centred = scores - scores.mean(axis=0)
    centred -= centred.mean(axis=1, keepdims=True)  # only differences between classes count
    return np.asarray(centred / max(centred.std(), 1e-12))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12))
