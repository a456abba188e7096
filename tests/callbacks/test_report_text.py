"""Reviews on TensorBoard's text page are shown literally, never interpreted as HTML or Markdown."""

import html
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tensorboard.plugin_util import markdown_to_safe_html

from src.callbacks.report_text import class_list, escape, review_list, shorten

TAG = re.compile(r"<[^>]*>")


def list_of(text: str, label: str = "pos") -> str:
    return review_list([7], [label], ["neg"], [0.97], [text])


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![a picture](http://example.org/spy.png)",
        "[a link](javascript:alert(1)) and <http://example.org>",
        "a | cell | more\n\n# and a heading\n\n* a list\n```\ncode\n```",
        "`code` *em* __strong__ ~~struck~~ \\*no\\* &lt;script&gt; &#60;b&#62;",
        "[1]: http://example.org\n\n[1]",
    ],
)
def test_text_is_shown_and_not_understood(text: str) -> None:
    """TensorBoard's HTML has only the tags of the list itself, and the text word for word."""
    page = markdown_to_safe_html(list_of(text))
    assert sorted(set(TAG.findall(page))) == sorted(set(TAG.findall(markdown_to_safe_html(list_of("plain")))))
    assert page.count("<blockquote>") == 1
    assert " ".join(text.split()) in html.unescape(page)
    assert "<script" not in page
    assert "<img" not in page
    assert "<a" not in page


def test_script_is_escaped_in_the_event_itself() -> None:
    """Unlike TensorBoard, other readers of event files may not strip scripts."""
    assert "<" not in list_of("<script>alert(1)</script>", label="<b>pos</b>")


@given(st.text(max_size=60))
@example("\x1b ")
def test_any_text_stays_in_its_place(text: str) -> None:
    page = markdown_to_safe_html(list_of(text + ".", label=text + "."))
    shown = " ".join("".join(c for c in text + "." if c.isprintable() or c.isspace()).split())
    paragraphs = [html.unescape(TAG.sub("", part)).strip() for part in page.split("<blockquote>")]
    assert paragraphs == [f"row 7: label {shown}, predicted neg with 0.9700", shown]


def test_characters_that_reverse_a_line_are_left_out() -> None:
    assert escape("a\u202eb\x00c\x02d") == "abcd"


def test_long_review_is_cut() -> None:
    short = shorten("word " * 1000)
    assert len(short) <= 400
    assert short.endswith("word…")
    assert shorten("one<br /><br />two\nthree") == "one two three"


def test_classes_are_listed_by_number_and_not_understood() -> None:
    page = markdown_to_safe_html(class_list(["好", "<b>*x*</b>", "1. a\n\nb"]))
    paragraphs = [html.unescape(TAG.sub("", part)).strip() for part in page.split("</p>")]
    assert paragraphs == ["0: 好", "1: <b>*x*</b>", "2: 1. a b", ""]


def test_no_reviews_is_said() -> None:
    assert review_list([], [], [], [], []) == "None."
