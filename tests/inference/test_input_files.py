"""The reader that `predict` takes rows from: bad lines by number, and no more memory for more rows."""

import re
import tracemalloc
from pathlib import Path

import pytest

from src.inference.input_files import BadLine, ReviewFile, Row
from src.system.errors import UserError


def test_bad_lines_of_a_csv_are_named_by_the_line_they_begin_in(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(
        b'\xef\xbb\xbftext,id\n"two\nlines",1\nonly\n\na,b,c\nr\xe9sum\xe9,2\n"a"b,3\nlast,4\n"never closed,5\nx,6\n'
    )
    rows = list(ReviewFile(str(tmp_path / "in.csv"), None, "text").rows())
    assert [(row.number, row.fields["id"]) for row in rows if isinstance(row, Row)] == [(2, "1"), (9, "4")]
    assert [row.number for row in rows if isinstance(row, BadLine)] == [4, 6, 7, 8, 10]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"id,review\n1,good\n", "'id', 'review': name the one with the reviews by --text_column"),
        (b"id;text\n1;good\n", "separated by ';'"),
        ("id,text\n1,good\n".encode("utf-16"), "not UTF-8"),
    ],
)
def test_a_header_without_the_column_says_what_may_be_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(words)):
        list(ReviewFile(str(tmp_path / "in.csv"), None, "text").rows())


def test_reading_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    with path.open("w") as stream:
        stream.write("text\n")
        stream.writelines(f"{'word ' * 100}{i}\n" for i in range(20_000))
    tracemalloc.start()
    assert sum(1 for _ in ReviewFile(str(path), None, "text").rows()) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 2_000_000
