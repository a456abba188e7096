"""Which texts a teacher labels, and how: on vectors and words whose classes are known."""

import numpy as np
import pytest

from src.system.errors import UserError
from src.teaching.lesson import Lesson
from src.teaching.teacher import Taught, teach

_WORDS = (["awful", "dull"], ["great", "moving"], ["loud", "tune"])


def _teach(shares: list[float], keep: float = 0.5, n: int = 400, noise: float = 0.7) -> tuple[Taught, np.ndarray]:
    """What is taught of texts with classes in these shares, whose vectors are noisy; and the class of each text."""
    rng = np.random.default_rng(0)
    classes = rng.choice(len(shares), p=shares, size=n)
    centres = np.eye(len(shares))
    vectors = centres[classes] + rng.normal(0, noise, (n, len(shares)))
    plain = ["the", "film", "was", "so"]
    texts = [" ".join([*rng.choice(plain, 5), rng.choice(_WORDS[k])]) for k in classes]
    names = [str(k) for k in range(len(shares))]
    lesson = Lesson({name: ["told"] for name in names}, dict(zip(names, shares, strict=True)), keep)
    return teach(texts, vectors, [centre[None] for centre in centres], lesson), classes


@pytest.mark.parametrize("shares", [[0.5, 0.5], [0.2, 0.8], [0.3, 0.3, 0.4]], ids=str)
def test_the_surest_are_right_in_the_shares_of_the_prior(shares: list[float]) -> None:
    taught, classes = _teach(shares)
    right = (taught.labels == classes[taught.rows]).mean()
    assert right > 0.95
    counts = np.bincount(taught.labels, minlength=len(shares))
    assert counts == pytest.approx(200 * np.array(shares), abs=8)
    assert len(np.unique(taught.rows)) == len(taught.rows)
    assert (np.diff(taught.rows) > 0).all()


def test_words_add_what_vectors_do_not_know() -> None:
    """With vectors this noisy, the nearest sentences are right for three texts in four: a normal's share below 1/√2."""
    taught, classes = _teach([0.5, 0.5], keep=1, noise=1)
    assert (taught.labels == classes[taught.rows]).mean() > 0.85


def test_less_is_kept_of_what_is_surer() -> None:
    most, classes = _teach([0.5, 0.5], keep=1, noise=1.5)
    few, _ = _teach([0.5, 0.5], keep=0.2, noise=1.5)
    assert len(few.rows) == 80
    assert set(few.rows) < set(most.rows)
    assert few.margins.min() > np.median(most.margins)
    assert (few.labels == classes[few.rows]).mean() > (most.labels == classes[most.rows]).mean()


def test_texts_of_one_class_are_refused() -> None:
    with pytest.raises(UserError, match="classes only"):
        _teach([0.005, 0.995], n=150)
