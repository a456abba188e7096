"""The reader of tables: what each format gives, bad lines by number, and no more memory for more rows."""

import gzip
import json
import re
import tracemalloc
from pathlib import Path

import pytest

from src.data.tables import BadLine, Row, Table
from src.system.errors import UserError


def _read(path: Path, content: bytes) -> list[Row | BadLine]:
    path.write_bytes(content)
    return list(Table(str(path), None, "text").rows())


def test_bad_lines_of_a_csv_are_named_by_the_line_they_begin_in(tmp_path: Path) -> None:
    rows = _read(
        tmp_path / "in.csv",
        b'\xef\xbb\xbftext,id\n"two\nlines",1\nonly\n\na,b,c\nr\xe9sum\xe9,2\n"a"b,3\nlast,4\n"never closed,5\nx,6\n',
    )
    assert [(row.number, row.fields["id"]) for row in rows if isinstance(row, Row)] == [(2, "1"), (9, "4")]
    assert [row.number for row in rows if isinstance(row, BadLine)] == [4, 6, 7, 8, 10]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
def test_values_are_what_the_file_says(tmp_path: Path, suffix: str) -> None:
    """pandas takes some of these for missing, and others for numbers."""
    words = ["n/a", "None", "null", "NaN", "NA", "01", "1.0", "1e3", "True", " x ", "#N/A", "-"]
    separator = "," if suffix == ".csv" else "\t"
    rows = _read(tmp_path / f"in{suffix}", "".join(f"{a}{separator}b\n" for a in ["text", *words]).encode())
    assert [row.text for row in rows if isinstance(row, Row)] == words


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("in.JSON", b'[{"text": "a", "n": 1}, {"text": "b"}]'),
        ("in.json", b'{"text": "a", "n": 1}\n{"text": "b"}\n'),
        ("in.NdJson", b'\xef\xbb\xbf{"text": "a", "n": 1}\r\n{"text": "b"}'),
        ("in.jsonl.GZ", gzip.compress(b'{"text": "a", "n": 1}\n{"text": "b"}\n')),
    ],
    ids=["array", "lines", "byte order mark", "compressed"],
)
def test_the_name_tells_the_format(tmp_path: Path, name: str, content: bytes) -> None:
    assert _read(tmp_path / name, content) == [Row(1, {"text": "a", "n": 1}, "a"), Row(2, {"text": "b"}, "b")]


@pytest.mark.parametrize(
    ("name", "header", "lines"),
    [
        ("in.tsv", "text\tlabel", ['"stray\tpos', "next\tneg", 'end"\tpos']),
        ("in.csv", "text,label", ['"stray,pos', "next,neg", "third,neg", 'end ",pos']),
        ("in.csv", "id,text,label", ['1,"stray,pos', "2,next,neg", '3,end ",pos']),
    ],
)
def test_a_stray_quote_that_a_later_line_closes_is_named(
    tmp_path: Path, name: str, header: str, lines: list[str]
) -> None:
    if header.startswith("id"):
        lines = [lines[0], lines[1], "3,third,pos", *lines[2:]]
    first, *_, last = _read(tmp_path / name, "\n".join([header, *lines, *lines[1:2]]).encode())
    assert isinstance(first, BadLine)
    assert f"opens a quote that only line {len(lines) + 1} closes" in first.reason
    assert isinstance(last, Row)


def test_line_breaks_within_quotes_are_text(tmp_path: Path) -> None:
    verses = "Roses are red, it said,\nviolets blue\n\nand sugar, though sweet,\nis not for you"
    rows = _read(tmp_path / "in.csv", f'text,label\n"{verses}",pos\n"one, two\nthree, four",neg\n'.encode())
    assert [row.text for row in rows if isinstance(row, Row)] == [verses, "one, two\nthree, four"]


def test_half_a_surrogate_pair_is_not_text(tmp_path: Path) -> None:
    rows = _read(tmp_path / "in.json", json.dumps([{"text": "a"}, {"text": "b", "id": "\ud83d"}]).encode())
    assert rows == [Row(1, {"text": "a"}, "a"), BadLine(2, "is not UTF-8")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b"id,review\n1,good\n",
            "(its columns: id, review): --text_column (in training --data.text_column) names the one",
        ),
        (b"id;text\n1;good\n", "separated by ';'"),
        ("id,text\n1,good\n".encode("utf-16"), "not UTF-8"),
        (b"text,text\ngood,bad\n", "two columns of the same name"),
        (b"", "is empty: a csv file begins with the names of its columns"),
    ],
)
def test_a_header_says_what_may_be_wrong(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        _read(tmp_path / "in.csv", content)


def test_a_truncated_gzip_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"in\.csv\.gz cannot be read: "):
        _read(tmp_path / "in.csv.gz", gzip.compress(b"text\n" + b"good film\n" * 1000)[:-20])


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "txt"])
def test_a_line_of_any_length_takes_bounded_memory(tmp_path: Path, suffix: str) -> None:
    """A zip bomb: gigabytes of one line in megabytes of a file; here a tenth of that."""
    path = tmp_path / f"in.{suffix}.gz"
    with gzip.open(path, "wt", compresslevel=1) as stream:
        stream.write("text\n" if suffix == "csv" else "")
        stream.writelines("x" * 1_000_000 for _ in range(100))
        stream.write("\n")
    tracemalloc.start()
    (row,) = Table(str(path), None, "text").rows()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert isinstance(row, BadLine)
    assert peak < 100_000_000


def test_reading_takes_no_more_memory_for_more_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    with path.open("w") as stream:
        stream.write("text\n")
        stream.writelines(f"{'word ' * 100}{i}\n" for i in range(20_000))
    tracemalloc.start()
    assert sum(1 for _ in Table(str(path), None, "text").rows()) == 20_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 10_000_000
    assert peak < 2_000_000
