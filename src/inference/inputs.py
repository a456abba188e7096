"""Reviews from csv, jsonl, parquet and text files, row by row: memory stays flat however long the file is."""

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from src.system.errors import UserError, one_line

STANDARD = "-"
"""In place of a path: standard input or output."""

Format = Literal["csv", "tsv", "jsonl", "parquet", "txt"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
}
# A quote that is never closed makes the rest of the file one field; this ends it. The longest IMDb review has 14,000
# characters.
_LONGEST_FIELD = 10_000_000


@dataclass(frozen=True)
class Row:
    """A review with all that its line holds.

    Attributes:
        number: of the row from 1, and of its first line where the file has lines.
        fields: column name to value; the text among them.
        text: the review; empty where it is missing (null).
    """

    number: int
    fields: dict[str, Any]
    text: str


@dataclass(frozen=True)
class BadLine:
    """A line that holds no review.

    Attributes:
        number: as in `Row`.
        reason: what is wrong with it.
    """

    number: int
    reason: str


class ReviewFile:
    """A file, or standard input, of reviews.

    Args:
        path: of the file, or "-".
        file_format: of its content; None goes by the suffix, and takes standard input for a review a line.
        text_column: where the reviews are; text files have no columns, theirs gets this name.

    Raises:
        UserError: there is no such file, its format is not known, or it has no such column.
    """

    def __init__(self, path: str, file_format: Format | None, text_column: str) -> None:
        self.path = path
        self.text_column = text_column
        self.format = file_format or _format_of(path)
        if path != STANDARD and not Path(path).is_file():
            raise UserError(f"there is no input file {path}")
        if path == STANDARD and self.format == "parquet":
            raise UserError("parquet cannot be read from standard input: give it as a file")

    @property
    def name(self) -> str:
        """For messages."""
        return "standard input" if self.path == STANDARD else self.path

    def rows(self) -> Iterator[Row | BadLine]:
        """All rows from the start. Standard input can be read once only."""
        if self.format == "parquet":
            yield from self._parquet_rows()
            return
        with self._open() as stream:
            if self.format in ("csv", "tsv"):
                yield from self._csv_rows(stream)
            else:
                parse = self._parse_json if self.format == "jsonl" else self._parse_line
                for number, line in enumerate(stream, 1):
                    text = line.rstrip("\r\n")
                    yield BadLine(number, "is not UTF-8") if _is_not_utf8(text) else parse(number, text)

    def survey(self) -> tuple[int | None, list[str]]:
        """How many rows there are, None for standard input; and all columns, for a table that needs them up front.

        Lines of JSON may differ in their fields, so they are all looked at; of standard input, the columns are only
        found as they come, and the list is empty.
        """
        if self.path == STANDARD:
            return None, []
        columns: dict[str, None] = {}
        count = 0
        if self.format == "parquet":
            with self._parquet() as file:
                return file.metadata.num_rows, list(file.schema_arrow.names)
        if self.format in ("csv", "tsv"):
            with self._open() as stream:
                columns = dict.fromkeys(self._header(self._csv_reader(stream)))
        for row in self.rows():
            if isinstance(row, Row):
                columns |= dict.fromkeys(row.fields)
                count += 1
        return count, list(columns)

    # ---- one format each -------------------------------------------------------------------------------------------

    def _csv_rows(self, stream: TextIO) -> Iterator[Row | BadLine]:
        reader = self._csv_reader(stream)
        columns = self._header(reader)
        at = columns.index(self.text_column)
        while True:
            number = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadLine(number, f"is not csv: {error}")
                continue
            if not values:
                continue  # an empty line, which csv readers skip
            if len(values) != len(columns):
                yield BadLine(number, f"has {len(values)} fields, but the header has {len(columns)}")
            elif any(map(_is_not_utf8, values)):
                yield BadLine(number, "is not UTF-8")
            else:
                yield Row(number, dict(zip(columns, values, strict=True)), values[at])

    def _csv_reader(self, stream: TextIO) -> Any:
        csv.field_size_limit(_LONGEST_FIELD)
        return csv.reader(stream, delimiter="\t" if self.format == "tsv" else ",", strict=True)

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        try:
            columns = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{self.name} has no csv header: {error}") from error
        if columns is None:
            raise UserError(f"{self.name} is empty: a csv file begins with the names of its columns")
        self._check_columns(columns)
        if len(set(columns)) < len(columns):
            raise UserError(f"{self.name} has two columns of the same name among {', '.join(columns)}")
        return columns

    def _parse_json(self, number: int, line: str) -> Row | BadLine:
        try:
            fields = json.loads(line)
        except ValueError as error:
            return BadLine(number, "is empty" if not line.strip() else f"is not JSON: {error}")
        except RecursionError:
            return BadLine(number, "is JSON too deep to read")
        if not isinstance(fields, dict):
            return BadLine(number, f"is a JSON {type(fields).__name__}, not an object")
        if self.text_column not in fields:
            return BadLine(number, f"has no {self.text_column!r}; its fields are {', '.join(map(repr, fields))}"[:200])
        # JSON can spell half a surrogate pair, in a field that is only handed on too
        if _is_not_utf8(line) or ("\\u" in line and _is_not_utf8(json.dumps(fields, ensure_ascii=False))):
            return BadLine(number, "is not UTF-8")
        return self._row(number, fields)

    def _parse_line(self, number: int, line: str) -> Row:
        return Row(number, {self.text_column: line}, line)

    def _parquet_rows(self) -> Iterator[Row | BadLine]:
        with self._parquet() as file:
            self._check_columns(file.schema_arrow.names)
            number = 0
            try:
                for batch in file.iter_batches(batch_size=512):
                    for fields in batch.to_pylist():
                        number += 1
                        yield self._row(number, fields)
            except (OSError, ValueError) as error:  # pyarrow's own classes are subclasses of these
                raise UserError(f"{self.name} is damaged after row {number}: {one_line(error)[:200]}") from error

    @contextmanager
    def _parquet(self) -> Iterator[Any]:
        import pyarrow.parquet

        try:
            file = pyarrow.parquet.ParquetFile(self.path)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.name} cannot be read as parquet: {one_line(error)[:200]}") from error
        with file:
            yield file

    # ---- what they share -------------------------------------------------------------------------------------------

    def _row(self, number: int, fields: dict[str, Any]) -> Row | BadLine:
        text = fields[self.text_column]
        if text is None:
            return Row(number, fields, "")
        if not isinstance(text, str):
            return BadLine(number, f"has {type(text).__name__} in {self.text_column!r}, not text")
        return Row(number, fields, text)

    def _check_columns(self, columns: list[str]) -> None:
        if self.text_column in columns:
            return
        advice = "name the one with the reviews by --text_column"
        header = "".join(columns)
        if re.search("[\ud800-\udfff]", header):  # what `_open` makes of other bytes
            advice = "it is not UTF-8: iconv makes that of it"
        elif len(columns) == 1 and (separator := re.search(r"[;|\t]", header)):
            advice = f"it seems to be separated by {separator[0]!r}, but a csv has commas, a tsv tabs"
        found = ", ".join(map(repr, columns))[:200]
        raise UserError(f"{self.name} has no column {self.text_column!r}, but {found}: {advice}")

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        # utf-8-sig drops the mark that Excel begins its files with; what is not UTF-8 becomes surrogates, so that
        # one bad line does not end the rest; csv finds its own line ends, since fields may hold some
        options: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape"}
        options["newline"] = "" if self.format in ("csv", "tsv") else "\n"
        if self.path == STANDARD:
            stream = io.TextIOWrapper(sys.stdin.buffer, **options)
            yield stream
            stream.detach()  # else standard input would be closed with it
        else:
            try:
                stream = open(self.path, **options)  # noqa: SIM115  (closed below; only opening it is in the try)
            except OSError as error:
                raise UserError(f"{self.path} cannot be read: {error.strerror}") from error
            with stream:
                yield stream


def _format_of(path: str) -> Format:
    if path == STANDARD:
        return "txt"
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(
            f"the format of {path} is not known by its suffix ({', '.join(SUFFIXES)} are): name it by --input_format"
        )
    return SUFFIXES[suffix]


def _is_not_utf8(text: str) -> bool:
    """Whether the text holds surrogates, which stand for bytes that could not be decoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
