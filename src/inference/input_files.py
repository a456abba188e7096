"""Reads reviews from csv, tsv, jsonl, parquet and text files row by row, so that memory use stays flat."""

import csv
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from src.system.errors import UserError, one_line
from src.system.locations import expanded

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
# A quote that is never closed makes the rest of the file one field. This limit ends it; the longest IMDb review has
# 14,000 characters.
_LONGEST_FIELD = 10_000_000


@dataclass(frozen=True)
class Row:
    """A row of the input.

    Attributes:
        number: of its first line, from 1; of the row if the file has no lines.
        fields: column name to value, the text among them.
        text: the review; empty if it is missing (null).
    """

    number: int
    fields: dict[str, Any]
    text: str


@dataclass(frozen=True)
class BadLine:
    """A row of the input that cannot be read.

    Attributes:
        number: as in `Row`.
        reason: what is wrong with it.
    """

    number: int
    reason: str


class ReviewFile:
    """A file of reviews, or standard input.

    Args:
        path: of the file, or "-".
        file_format: of its content; None goes by the suffix, and reads standard input as a review a line.
        text_column: the column with the reviews; the single column of a text file gets this name.

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
            if self.format in ("csv", "tsv"):
                yield from self._csv_rows(stream)
            else:
                yield from self._line_rows(stream)

    def survey(self) -> tuple[int | None, list[str]]:
        """The number of rows and the names of all columns; None and an empty list for standard input.

        Lines of JSON may differ in their fields, so all of them are read.

        Raises:
            UserError: as `rows`.
        """
        if self.path == STANDARD:
            return None, []
        if self.format == "parquet":
            with self._parquet() as file:
                return file.metadata.num_rows, list(file.schema_arrow.names)
        columns: dict[str, None] = {}
        count = 0
        if self.format in ("csv", "tsv"):
            with self._open() as stream:
                columns = dict.fromkeys(self._header(self._csv_reader(stream)))
        for row in self.rows():
            if isinstance(row, Row):
                columns |= dict.fromkeys(row.fields)
                count += 1
        return count, list(columns)

    # ---- csv -------------------------------------------------------------------------------------------------------

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
                continue  # csv readers skip an empty line
            if len(values) != len(columns):
                yield BadLine(number, f"has {len(values)} fields, but the header has {len(columns)}")
            elif any(map(_is_not_utf8, values)):
                yield BadLine(number, "is not UTF-8")
            else:
                yield Row(number, dict(zip(columns, values, strict=True)), values[at])

    def _csv_reader(self, stream: TextIO) -> Any:  # the type of csv.reader has no name
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

    # ---- jsonl and txt ---------------------------------------------------------------------------------------------

    def _line_rows(self, stream: TextIO) -> Iterator[Row | BadLine]:
        for number, line in enumerate(stream, 1):
            text = line.rstrip("\r\n")
            if _is_not_utf8(text):
                yield BadLine(number, "is not UTF-8")
            elif self.format == "txt":
                yield Row(number, {self.text_column: text}, text)
            else:
                yield self._parse_json(number, text)

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
        # JSON can spell half a surrogate pair, in any field
        if "\\u" in line and _is_not_utf8(json.dumps(fields, ensure_ascii=False)):
            return BadLine(number, "is not UTF-8")
        return self._row(number, fields)

    # ---- parquet ---------------------------------------------------------------------------------------------------

    def _parquet_rows(self) -> Iterator[Row | BadLine]:
        with self._parquet() as file:
            self._check_columns(file.schema_arrow.names)
            number = 0
            try:
                for batch in file.iter_batches(batch_size=512):
                    for fields in batch.to_pylist():
                        number += 1
                        yield self._row(number, fields)
            except (OSError, ValueError) as error:  # the base classes of pyarrow's own
                raise UserError(f"{self.name} is damaged after row {number}: {one_line(error)[:200]}") from error

    def _parquet(self) -> Any:
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
        if self.text_column in columns:
            return
        advice = "name the one with the reviews by --text_column"
        header = "".join(columns)
        if _is_not_utf8(header):
            advice = "it is not UTF-8; iconv converts it"
        elif len(columns) == 1 and (separator := re.search(r"[;|\t]", header)):
            advice = f"it seems to be separated by {separator[0]!r}, but a csv has commas, a tsv tabs"
        found = ", ".join(map(repr, columns))[:200]
        raise UserError(f"{self.name} has no column {self.text_column!r}, but {found}: {advice}")

    def _open(self) -> TextIO:
        # utf-8-sig drops the byte order mark of Excel's files. Bytes that are not UTF-8 become surrogates, so that one
        # bad line does not end the rest. The csv reader splits lines itself, since fields may hold line breaks.
        standard = self.path == STANDARD
        try:
            return open(
                sys.stdin.fileno() if standard else self.path,
                encoding="utf-8-sig",
                errors="surrogateescape",
                newline="" if self.format in ("csv", "tsv") else "\n",
                closefd=not standard,
            )
        except OSError as error:
            raise UserError(f"{self.name} cannot be read: {error.strerror}") from error


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
