"""The rows of local tables as Arrow files on disk, so that any number of rows takes no memory."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow

from src.data.row_selection import ROWS_AT_ONCE, no_such_column
from src.data.tables import BadLine, Row, Table, format_by_name
from src.system.errors import UserError, one_line


def write_arrow(target: Path, files: Sequence[Path], columns: Sequence[str], dataset: str) -> None:
    """Writes some columns of tables, one after another, as an Arrow file that `datasets.Dataset.from_file` maps.

    Values of parquet keep their types, and a `ClassLabel` its names. Those of the other formats become strings: 1, "1"
    and, in json, true are "1", "1" and "True".

    Args:
        files: all of one format.
        columns: to be written, the one with the texts first.
        dataset: its name, for messages.

    Raises:
        UserError: a file or one of its rows cannot be read, or there is no such column.
    """
    is_parquet = format_by_name(files[0]) == "parquet"
    batches = (_parquet_batches if is_parquet else _text_batches)(files, columns, dataset)
    first = next(batches)
    with pyarrow.OSFile(str(target), "wb") as sink, pyarrow.ipc.new_stream(sink, first.schema) as writer:
        for batch in chain([first], batches):
            writer.write_batch(batch)


def _parquet_batches(files: Sequence[Path], columns: Sequence[str], dataset: str) -> Iterator[pyarrow.RecordBatch]:
    schema = None
    for path in files:
        with Table(str(path), None, columns[0]).parquet() as file:
            there = file.schema_arrow.names
            for column in columns:
                if column not in there:
                    raise no_such_column(dataset, column, there)
            if schema is None:
                features = datasets.Features.from_arrow_schema(file.schema_arrow)
                schema = datasets.Features({column: features[column] for column in columns}).arrow_schema
                yield pyarrow.RecordBatch.from_pylist([], schema)
            try:
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=list(columns)):
                    table = pyarrow.Table.from_batches([batch]).select(columns).cast(schema)
                    table.validate(full=True)  # refuses bytes that are not UTF-8
                    yield from table.to_batches()
            except (OSError, ValueError) as error:  # the base classes of pyarrow's own
                raise UserError(
                    f"the data set {dataset!r} cannot be read: {path.name}: {one_line(error)[:200]}"
                ) from error


def _text_batches(files: Sequence[Path], columns: Sequence[str], dataset: str) -> Iterator[pyarrow.RecordBatch]:
    rows = _rows(files, columns[0])
    first = next(rows, None)
    # json has lists: the first row tells in which columns
    lists = {column for column in columns if first and isinstance(first[1].fields.get(column), list)}
    kinds = [(column, pyarrow.list_(pyarrow.string()) if column in lists else pyarrow.string()) for column in columns]
    schema = pyarrow.schema(kinds)
    yield pyarrow.RecordBatch.from_pylist([], schema)
    seen: dict[str, None] = {}
    read: list[dict[str, Any]] = []
    for name, row in chain([first] if first else [], rows):
        seen |= dict.fromkeys(row.fields)
        place = f"{name}, line {row.number}"
        read.append(
            {column: (_list if column in lists else _string)(row.fields.get(column), place) for column in columns}
        )
        if len(read) == ROWS_AT_ONCE:
            yield pyarrow.RecordBatch.from_pylist(read, schema)
            read = []
    yield pyarrow.RecordBatch.from_pylist(read, schema)
    for column in columns:
        if seen and column not in seen:
            raise no_such_column(dataset, column, list(seen))


def _rows(files: Sequence[Path], text_column: str) -> Iterator[tuple[str, Row]]:
    """All rows, each with the name of its file."""
    for path in files:
        table = Table(str(path), None, text_column)
        for row in table.rows():
            if isinstance(row, BadLine):
                raise UserError(f"{table.name}, line {row.number}: {row.reason}")
            yield table.name, row


def _string(value: Any, place: str) -> str | None:
    if value is None or isinstance(value, str | int | float):
        return None if value is None else str(value)
    raise UserError(f"{place}: has a {type(value).__name__} where a text, a label or a value of data.where belongs")


def _list(value: Any, place: str) -> list[str | None] | None:
    if value is None or isinstance(value, list):
        return None if value is None else [_string(each, place) for each in value]
    raise UserError(f"{place}: has a {type(value).__name__} where the first row has a list")
