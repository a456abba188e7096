"""Reads tables of texts (csv, tsv, json, jsonl, parquet, txt) row by row: one reader for training and prediction.

pandas, which `datasets` reads csv with, takes "n/a" and "None" for missing values, turns 01 into 1, and joins the lines
after a stray quote into one text. Here each value is what the file says, and memory does not grow with the rows (of
json, which is one value, it does).
"""

import csv
import gzip
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Literal, TextIO

from src.system.errors import UserError, one_line
from src.system.locations import expanded

STANDARD = "-"
"""In place of a path: standard input or output."""

Format = Literal["csv", "tsv", "json", "jsonl", "parquet", "txt"]
SUFFIXES: dict[str, Format] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
}
# A quote that is never closed makes the rest of the file one field. This limit ends it; the longest IMDb review has
# 14,000 characters.
_LONGEST_FIELD = 10_000_000
_TOO_LONG = f"has more than {_LONGEST_FIELD:,} characters"
_LARGEST_JSON = 200_000_000  # in characters; a compressed file may hold far more than its size tells


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        number: of its first line, from 1; of the row if the file has no lines.
        fields: column name to value, the text among them; the values of csv, tsv and txt are strings.
        text: the text; empty if it is missing (null).
    """

    number: int
    fields: dict[str, Any]
    text: str


@dataclass(frozen=True)
class BadLine:
    """A row of a table that cannot be read.

    Attributes:
        number: as in `Row`.
        reason: what is wrong with it.
    """

    number: int
    reason: str


class Table:
    """A file of texts, or standard input.

    Args:
        path: of the file, or "-". The name as it was typed: a link to a file of another name is what its own name says.
        file_format: of its content; None goes by the suffix, and reads standard input as a text a line.
        text_column: the column with the texts; the single column of a text file gets this name.

    Raises:
        UserError: the file does not exist, or its format is not known.
    """

    def __init__(self, path: str, file_format: Format | None, text_column: str) -> None:
        self.path = path = path if path == STANDARD else str(expanded(path))
        self.text_column = text_column
        self.format = file_format or _format_of(path)
        self.name = "standard input" if path == STANDARD else path
        if path != STANDARD and not Path(path).is_file():
            raise UserError(f"there is no input file {path}")
        if path == STANDARD and self.format == "parquet":
            raise UserError("parquet cannot be read from standard input: name a file")

    def rows(self) -> Iterator[Row | BadLine]:
        """All rows from the start. Standard input can be read only once.

        Raises:
            UserError: the file cannot be read, or has no such column.
        """
        if self.format == "parquet":
            yield from self._parquet_rows()
            return
        with self._open() as stream:
            try:
                if self.format in ("csv", "tsv"):
                    yield from self._csv_rows(stream)
                elif self.format == "json":
                    yield from self._json_rows(stream)
                else:
                    yield from self._line_rows(stream)
            except (OSError, EOFError) as error:  # gzip raises EOFError for a truncated file
                raise UserError(f"{self.name} cannot be read: {one_line(error)[:200]}") from error

    def survey(self) -> tuple[int | None, list[str]]:
        """The number of rows and the names of all columns; None and an empty list for standard input.

        Lines of JSON may differ in their fields, so all of them are read.

        Raises:
            UserError: as `rows`.
        """
        if self.path == STANDARD:
            return None, []
        if self.format == "parquet":
            with self.parquet() as file:
                return file.metadata.num_rows, list(file.schema_arrow.names)
        columns: dict[str, None] = {}
        count = 0
        if self.format in ("csv", "tsv"):
            with self._open() as stream:
                columns = dict.fromkeys(self._header(self._csv_reader(_Lines(stream))))
        for row in self.rows():
            if isinstance(row, Row):
                columns |= dict.fromkeys(row.fields)
                count += 1
        return count, list(columns)

    # ---- csv -------------------------------------------------------------------------------------------------------

    def _csv_rows(self, stream: TextIO) -> Iterator[Row | BadLine]:
        lines = _Lines(stream)
        reader = self._csv_reader(lines)
        columns = self._header(reader)
        at = columns.index(self.text_column)
        while True:
            number = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield BadLine(number, f"is not {self.format}: {error}")
                continue
            if not values:
                continue  # csv readers skip an empty line
            if lines.cut:
                yield BadLine(number, _TOO_LONG)
            elif len(values) != len(columns):
                yield BadLine(number, f"has {len(values)} fields, but the header has {len(columns)}")
            elif any(map(_is_not_utf8, values)):
                yield BadLine(number, "is not UTF-8")
            elif reader.line_num > number and self._holds_rows(values):
                yield BadLine(
                    number, f"opens a quote that only line {reader.line_num} closes: the lines between are rows"
                )
            else:
                yield Row(number, dict(zip(columns, values, strict=True)), values[at])

    def _csv_reader(self, lines: Iterable[str]) -> Any:  # the type of csv.reader has no name
        csv.field_size_limit(_LONGEST_FIELD)
        return csv.reader(lines, delimiter=self._delimiter, strict=True)

    @property
    def _delimiter(self) -> str:
        return "\t" if self.format == "tsv" else ","

    def _holds_rows(self, values: Sequence[str]) -> bool:
        """Whether the lines within a field look like rows that a stray quote has joined.

        All lines but the last then have as many delimiters as rows have. Prose between quotes may have so too, by
        chance, if a row has one delimiter: then three such lines are asked for. Tabs do not occur in prose.
        """
        delimiters = len(values) - 1
        for place, value in enumerate(values):
            first, *between = value.splitlines()[:-1] or [""]
            if not between and self.format == "csv":
                continue
            like_rows = first.count(self._delimiter) == delimiters - place and all(
                line.count(self._delimiter) == delimiters for line in between
            )
            least = 1 if self.format == "tsv" or delimiters > 1 else 2
            if delimiters and like_rows and len(between) >= least:
                return True
        return False

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        try:
            columns = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{self.name} has no {self.format} header: {error}") from error
        if columns is None:
            raise UserError(f"{self.name} is empty: a {self.format} file begins with the names of its columns")
        self._check_columns(columns)
        return columns

    # ---- json, jsonl and txt ---------------------------------------------------------------------------------------

    def _line_rows(self, stream: TextIO) -> Iterator[Row | BadLine]:
        lines = _Lines(stream)
        for number, line in enumerate(lines, 1):
            text = line.rstrip("\r\n")
            if lines.cut:
                yield BadLine(number, _TOO_LONG)
            elif _is_not_utf8(text):
                yield BadLine(number, "is not UTF-8")
            elif self.format == "txt":
                yield Row(number, {self.text_column: text}, text)
            else:
                yield self._parse_json(number, text)

    def _json_rows(self, stream: TextIO) -> Iterator[Row | BadLine]:
        """The objects of an array; a file that does not begin with "[" has an object a line, as jsonl."""
        text = stream.read(_LARGEST_JSON)
        if len(text) == _LARGEST_JSON:
            raise UserError(f"{self.name} is too large to be read as one json: write an object a line, as jsonl")
        if not text.lstrip().startswith("["):
            yield from self._line_rows(io.StringIO(text, newline="\n"))
            return
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{self.name} is not JSON: {one_line(error)[:200]}") from error
        for number, fields in enumerate(content, 1):
            yield self._json_row(number, fields)

    def _parse_json(self, number: int, line: str) -> Row | BadLine:
        try:
            fields = json.loads(line)
        except ValueError as error:
            return BadLine(number, "is empty" if not line.strip() else f"is not JSON: {error}")
        except RecursionError:
            return BadLine(number, "is JSON too deep to read")
        return self._json_row(number, fields)

    def _json_row(self, number: int, fields: Any) -> Row | BadLine:
        if not isinstance(fields, dict):
            return BadLine(number, f"is a JSON {type(fields).__name__}, not an object")
        if self.text_column not in fields:
            return BadLine(number, f"has no {self.text_column!r}; its fields are {', '.join(map(repr, fields))}"[:200])
        # JSON can spell half a surrogate pair, in any field
        if _is_not_utf8(json.dumps(fields, ensure_ascii=False)):
            return BadLine(number, "is not UTF-8")
        return self._row(number, fields)

    # ---- parquet ---------------------------------------------------------------------------------------------------

    def _parquet_rows(self) -> Iterator[Row | BadLine]:
        self.schema()
        number = 0
        for batch in self.batches(512):
            try:
                rows = batch.to_pylist()
            except ValueError as error:  # times that Python cannot hold
                raise UserError(f"{self.name} is damaged after row {number}: {one_line(error)[:200]}") from error
            for fields in rows:
                number += 1
                yield self._row(number, fields)

    def batches(self, rows: int) -> Iterator[Any]:
        """The record batches of a parquet file, of that many rows at most.

        Raises:
            UserError: the file cannot be read.
        """
        number = 0
        with self.parquet() as file:
            try:
                for batch in file.iter_batches(batch_size=rows):
                    yield batch
                    number += len(batch)
            except (OSError, ValueError) as error:  # the base classes of pyarrow's own
                raise UserError(f"{self.name} is damaged after row {number}: {one_line(error)[:200]}") from error

    def schema(self) -> Any:
        """The Arrow schema of a parquet file.

        Raises:
            UserError: the file cannot be read, or has no such column.
        """
        with self.parquet() as file:
            self._check_columns(file.schema_arrow.names)
            return file.schema_arrow

    def parquet(self) -> Any:
        """The open parquet file, for a reader that needs the types of its columns."""
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(self.path)
        except (OSError, ValueError) as error:
            raise UserError(f"{self.name} cannot be read as parquet: {one_line(error)[:200]}") from error

    # ---- all formats -----------------------------------------------------------------------------------------------

    def _row(self, number: int, fields: dict[str, Any]) -> Row | BadLine:
        text = fields[self.text_column]
        if text is not None and not isinstance(text, str):
            return BadLine(number, f"has {type(text).__name__} in {self.text_column!r}, not text")
        return Row(number, fields, text or "")

    def _check_columns(self, columns: list[str]) -> None:
        if len(set(columns)) < len(columns):
            raise UserError(f"{self.name} has two columns of the same name among {', '.join(map(repr, columns))[:200]}")
        if self.text_column in columns:
            return
        advice = "--text_column (in training --data.text_column) names the one with the texts"
        header = "".join(columns)
        if _is_not_utf8(header) or "\0" in header:
            advice = "it is not UTF-8; iconv converts it"
        elif len(columns) == 1 and (separator := re.search(r"[;|\t]", header)):
            advice = f"it seems to be separated by {separator[0]!r}, but a csv has commas, a tsv tabs"
        found = ", ".join(columns)[:200]
        raise UserError(f"{self.name} has no column {self.text_column!r} (its columns: {found}): {advice}")

    def _open(self) -> TextIO:
        # utf-8-sig drops the byte order mark of Excel's files. Bytes that are not UTF-8 become surrogates, so that one
        # bad line does not end the rest. The csv reader splits lines itself, since fields may hold line breaks.
        standard = self.path == STANDARD
        newline = "" if self.format in ("csv", "tsv") else "\n"
        try:
            if self.path.lower().endswith(".gz"):
                return gzip.open(self.path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline=newline)  # type: ignore[return-value]
            return open(
                sys.stdin.fileno() if standard else self.path,
                encoding="utf-8-sig",
                errors="surrogateescape",
                newline=newline,
                closefd=not standard,
            )
        except OSError as error:
            raise UserError(f"{self.name} cannot be read: {error.strerror}") from error


class _Lines:
    """The lines of a stream, cut at the length of the longest field: a compressed file may hold a line of gigabytes.

    Attributes:
        cut: whether the last line was.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.cut = False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = part = self.stream.readline(_LONGEST_FIELD)
        self.cut = len(line) == _LONGEST_FIELD and line[-1] not in "\r\n"
        while len(part) == _LONGEST_FIELD and part[-1] not in "\r\n":
            part = self.stream.readline(_LONGEST_FIELD)
        if not line:
            raise StopIteration
        return line


def format_by_name(path: str | PurePath) -> Format | None:
    """The format that a file's name tells by its suffix, in capitals too; None if it tells none.

    Text files may be compressed by gzip: reviews.csv.gz is a csv.
    """
    name = PurePath(path).name.lower()
    suffix = Path(name.removesuffix(".gz")).suffix
    return None if suffix == ".parquet" and name.endswith(".gz") else SUFFIXES.get(suffix)


def _format_of(path: str) -> Format:
    if path == STANDARD:
        return "txt"
    if (known := format_by_name(path)) is None:
        raise UserError(
            f"the format of {path} is not known by its suffix ({', '.join(SUFFIXES)} are): name it by --input_format"
        )
    return known


def _is_not_utf8(text: str) -> bool:
    """Whether the text holds surrogates, which stand for bytes that could not be decoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
