"""Predictions to csv or jsonl, and the journal by which a killed prediction goes on.

While a file is being written, `OUTPUT.partial` lies beside it. It says how many rows of the input are done, how many
bytes of the output they are, and a hash of those rows and of the model. After each window of rows the output is
flushed to the disk, then the journal is replaced. So whatever a kill leaves behind the bytes that the journal vouches
for is cut off and computed again: no row is there twice, none is lost, and the file is the same to the byte as that of
a prediction that was never killed.
"""

import csv
import errno
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, Literal, cast

from src.inference.inputs import STANDARD, Row
from src.system.atomic import atomic_write, remove_unfinished
from src.system.errors import UserError

OutputFormat = Literal["csv", "jsonl"]


@dataclass(frozen=True)
class Progress:
    """What is done of a prediction.

    Attributes:
        model: hash of the model's files.
        settings: the other options that the output depends on.
        columns: of the csv.
        rows: of the input that are done, bad lines not counted.
        rows_hash: chained over those rows.
        size: bytes of the output that they take.
    """

    model: str
    settings: dict[str, str]
    columns: list[str]
    rows: int = 0
    rows_hash: str = ""
    size: int = 0


def chain_hash(previous: str, rows: Iterable[Row]) -> str:
    """Hash of all rows up to these, from the one of those before them."""
    for row in rows:
        content = json.dumps(row.fields, default=_json_value, sort_keys=True)
        previous = hashlib.sha256(f"{previous}{content}".encode()).hexdigest()
    return previous


def hash_files(paths: Sequence[Path]) -> str:
    """SHA-256 over the contents of the files (1.3 GB/s here)."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


class Journal:
    """The file `OUTPUT.partial`.

    Args:
        output: the file that is being written.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.path = output.with_name(output.name + ".partial")

    def read(self, start: Progress) -> Progress:
        """Where the prediction `start` got to before it was killed; `start` itself where it is new.

        Raises:
            UserError: the journal is of another prediction, or its output is not there any more.
        """
        try:
            found = Progress(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return start
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.path} is no journal of a prediction: {self._advice}") from error
        if found.rows == 0:
            return start
        if found.model != start.model:
            raise UserError(f"{self.output} was begun with another model: {self._advice}")
        if found.settings != start.settings or found.columns != start.columns:
            raise UserError(f"{self.output} was begun with other options or other columns: {self._advice}")
        if not self.output.is_file() or self.output.stat().st_size < found.size:
            raise UserError(f"{self.output} is shorter than when it was last written: {self._advice}")
        return found

    @property
    def _advice(self) -> str:
        return f"delete {self.path} to begin anew, or name another --output"

    def write(self, progress: Progress) -> None:
        """Records what is done; whole or not at all."""
        with atomic_write(self.path) as unfinished:
            unfinished.write_text(json.dumps(asdict(progress)))

    def remove(self) -> None:
        """The output is whole."""
        self.path.unlink(missing_ok=True)
        remove_unfinished(self.path)

    def mismatch(self) -> UserError:
        """The rows that were done are not those that the input begins with."""
        return UserError(f"{self.output} was begun from another input: {self._advice}")


class PredictionWriter:
    """Rows with their predictions to a stream.

    Each has the columns of the input, then `label`, `score` (the label's probability) and `probability_NAME` of each
    class. A column of the input that has one of these names is kept as `input_NAME`. A row with no text has no
    label and no probabilities: empty in csv, null in jsonl.

    Args:
        stream: where to.
        output_format: csv or jsonl.
        input_columns: of the input, for csv.
        labels: names of the classes, in the order of the probabilities.
    """

    def __init__(
        self, stream: BinaryIO, output_format: OutputFormat, input_columns: Sequence[str], labels: Sequence[str]
    ) -> None:
        self.stream = stream
        self.format = output_format
        self.labels = list(labels)
        self.added = ["label", "score", *(f"probability_{label}" for label in labels)]
        self.columns = [*self.renamed(input_columns).values(), *self.added]

    def renamed(self, columns: Iterable[str]) -> dict[str, str]:
        """The names that the columns of the input have in the output, in their order."""
        names = {column: column for column in columns}
        taken = {*self.added, *names}
        for column in names.keys() & set(self.added):
            while names[column] in taken:
                names[column] = f"input_{names[column]}"
            taken.add(names[column])
        return names

    def header(self) -> None:
        """Writes the names of the columns, where the format has them."""
        if self.format == "csv":
            self._write_csv([self.columns])

    def write(self, rows: Sequence[Row], probabilities: Sequence[Sequence[float] | None]) -> None:
        """Writes rows and flushes; None stands for a row with no text."""
        records = [self._record(row, p) for row, p in zip(rows, probabilities, strict=True)]
        if self.format == "csv":
            self._write_csv([[_csv_value(record.get(column)) for column in self.columns] for record in records])
        else:
            lines = (json.dumps(record, ensure_ascii=False, default=_json_value) + "\n" for record in records)
            self.stream.write("".join(lines).encode())
        self.stream.flush()

    def _record(self, row: Row, probabilities: Sequence[float] | None) -> dict[str, Any]:
        kept = {name: row.fields[column] for column, name in self.renamed(row.fields).items()}
        if probabilities is None:
            return kept | dict.fromkeys(self.added)
        # seven digits are what float32 holds
        rounded = [float(f"{p:.7g}") for p in probabilities]
        best = max(range(len(rounded)), key=lambda i: probabilities[i])
        return kept | dict(zip(self.added, [self.labels[best], rounded[best], *rounded], strict=True))

    def _write_csv(self, rows: Iterable[Iterable[Any]]) -> None:
        lines: list[str] = []
        # Python before 3.11.9 quotes a field with a lone \r only where that is in the line terminator (cpython #67044):
        # so lines get \r\n, which is cut off again
        csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n").writerows(rows)
        self.stream.write("".join(line[:-2] + "\n" for line in lines).encode())


@contextmanager
def open_output(path: str, size: int) -> Iterator[BinaryIO]:
    """Standard output, or a file of which the first `size` bytes are kept.

    Raises:
        UserError: it cannot be written.
    """
    if path == STANDARD:
        yield cast(BinaryIO, sys.stdout.buffer)
        return
    try:
        stream = open(path, "r+b" if size else "wb")  # noqa: SIM115  (closed below; only opening it is in the try)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error
    with stream:
        if size:
            stream.truncate(size)
            stream.seek(size)
        yield stream


def sync(stream: BinaryIO) -> int:
    """Has what was written reach the disk; the size of the file."""
    stream.flush()
    os.fsync(stream.fileno())
    return stream.tell()


@contextmanager
def write_errors(output: str, resumable: bool) -> Iterator[None]:
    """Tells a full disk, or a pipe that nobody reads any more, in one line.

    Raises:
        UserError: in place of such an OSError.
    """
    try:
        yield
    except BrokenPipeError as error:
        # Python flushes standard output once more when it ends, and would complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise UserError("standard output was closed before the prediction was done") from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
        reason = "no space left on the device" if full else (error.strerror or str(error))
        advice = "; once that is mended, the same command goes on where it stopped" if resumable else ""
        raise UserError(f"{output} could not be written: {reason}{advice}") from error


def _csv_value(value: Any) -> Any:
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=_json_value)
    return repr(value) if isinstance(value, float) else value


def _json_value(value: Any) -> Any:
    """What JSON has no type for: dates, decimals and bytes from parquet."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
