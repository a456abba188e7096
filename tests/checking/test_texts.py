"""Equal and nearly equal texts, against comparing all with all."""

import re
from itertools import pairwise

import numpy as np
import pytest

from src.checking.texts import NEAR, SHINGLE, Repeat, nearly_repeated, repeated
from src.data.fingerprints import hash_texts
from tests.synthetic import synthetic_reviews


def _jaccard(one: str, other: str) -> float:
    def shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[i : i + SHINGLE]) for i in range(max(len(words) - SHINGLE + 1, 1))}

    a, b = shingles(one), shingles(other)
    return len(a & b) / len(a | b)


def test_equal_texts_name_the_first() -> None:
    hashes = hash_texts(["a b", "c", "A  B", "c", "d", "a b\n"])
    assert repeated(hashes) == [Repeat(2, 0), Repeat(3, 1), Repeat(5, 0)]


def test_near_texts_are_those_of_comparing_all() -> None:
    texts = synthetic_reviews(120, seed=5)["text"].tolist()
    rng = np.random.default_rng(1)
    for i in range(0, 60, 2):  # copies with some words changed: some are near enough, some are not
        words = texts[i].split()
        for place in rng.choice(len(words), size=min(len(words), 1 + i // 12), replace=False):
            words[place] = f"other{place}"
        texts.append(" ".join(words))
    expected = {
        (later, earlier)
        for later in range(120, 150)
        if _jaccard(texts[later], texts[earlier := 2 * (later - 120)]) >= NEAR
    }
    assert 5 < len(expected) < 25, "the test has cases on both sides"
    found = {(each.text, each.earlier) for each in nearly_repeated(texts) if each}
    assert all(_jaccard(texts[text], texts[earlier]) >= NEAR for text, earlier in found)
    assert found == expected


def test_progress_is_told_of_each_text() -> None:
    assert [each for each in nearly_repeated(["a b c", "d e f", "", "…!"]) if each is None] == [None] * 4


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("good", "Good!", True),
        ("good", "bad", False),
        ("すばらしい映画でした。また見たいです", "すばらしい映画でした。また見たいです！", True),
        ("这部电影非常好看我很喜欢", "这部电影一点也不好看", False),
        ("!!!", "???", False),
        ("a b c d e f g h i j k l m n", "A, b, c, d, e: f g h i j k l m n o", True),
    ],
)
def test_short_texts_and_other_scripts(one: str, other: str, near: bool) -> None:
    assert [each for each in nearly_repeated([one, other]) if each] == ([Repeat(1, 0)] if near else [])


def test_a_text_that_many_share_takes_no_longer_than_its_copies() -> None:
    """2,000 form letters that differ in a name: all are near the first, and each is compared about once a band."""
    letter = " ".join(f"word{i}" for i in range(60))
    found = [each for each in nearly_repeated([f"{letter} name{i}" for i in range(2000)]) if each]
    assert [each.text for each in found] == list(range(1, 2000))
    assert all(before.earlier <= after.text for before, after in pairwise(found))
