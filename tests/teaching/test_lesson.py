"""What a file of sentences may say."""

from pathlib import Path

import pytest

from src.system.errors import UserError
from src.teaching.lesson import Lesson
from tests.docs.pages import ROOT

_CLASSES = 'sentences: {"0": [Bad., Worse.], "1": [Good.]}\n'


def _read(content: str) -> Lesson:
    Path("lesson.yaml").write_text(content)
    return Lesson.read(Path("lesson.yaml"))


def test_shares_are_equal_and_half_is_kept_unless_said() -> None:
    lesson = _read("sentences: {bad: [Bad.], 1: [Good.], maybe: [So so.]}")
    assert lesson.sentences == {"bad": ["Bad."], "1": ["Good."], "maybe": ["So so."]}
    assert lesson.prior == dict.fromkeys(lesson.sentences, pytest.approx(1 / 3))
    assert lesson.keep == 0.5
    told = _read(_CLASSES + 'prior: {"0": 0.25, "1": 0.75}\nkeep: 1')
    assert (told.prior, told.keep) == ({"0": 0.25, "1": 0.75}, 1.0)


def test_the_shipped_sentences_are_read() -> None:
    assert list(Lesson.read(ROOT / "configs" / "teacher" / "imdb.yaml").sentences) == ["0", "1"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "must have `sentences`"),
        ("[a", "cannot be read"),
        (_CLASSES + "kept: 0.5", "nothing else"),
        ("sentences: {a: [Bad.]}", "two or more classes"),
        ("sentences: {a: [Bad.], b: []}", "two or more classes"),
        ("sentences: {a: [Bad.], b: [' ']}", "two or more classes"),
        ("sentences: {no: [Bad.], yes: [Good.]}", "between quotes"),
        (_CLASSES + "prior: {a: 0.5, b: 0.5}", "a share for each class"),
        (_CLASSES + 'prior: {"0": 0.5, "1": 0.6}', "whose sum is 1"),
        (_CLASSES + 'prior: {"0": .nan, "1": 0.6}', "whose sum is 1"),
        (_CLASSES + 'prior: {"0": 0, "1": 1}', "whose sum is 1"),
        (_CLASSES + "keep: 0", "above 0, at most 1"),
        (_CLASSES + "keep: true", "above 0, at most 1"),
    ],
)
def test_other_content_is_one_line(content: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        _read(content)


def test_a_missing_file_is_one_line() -> None:
    with pytest.raises(UserError, match="cannot be read"):
        Lesson.read(Path("none.yaml"))
