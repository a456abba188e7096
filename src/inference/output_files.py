"""Writes predictions as csv or jsonl, and keeps the journal by which a killed prediction resumes.

While an output is written, `OUTPUT.partial` lies beside it: the number of input rows that are done, the bytes of output
that they take, and hashes of those rows and of the model. After each chunk of rows the output is flushed to the disk,
then the journal is replaced. On resuming, all bytes after those that the journal counts are cut off and computed again.
So no row is lost or written twice, and the file equals to the byte that of a prediction that was never killed.
"""

import csv
import hashlib
import io
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from src.data.tables import STANDARD, Row
from src.system.atomic import atomic_write, remove_unfinished
from src.system.checksums import file_sha256
from src.system.errors import UserError, why

if TYPE_CHECKING:
    from src.models.tasks.task import Task

OutputFormat = Literal["csv", "jsonl"]
SEPARATOR = "|"
"""Between the labels of a text in a csv; `data.label_separator` reads them again."""


@dataclass(frozen=True)
class Progress:
    """How far a prediction is.

    Attributes:
        model: hash of the model's files.
        settings: the other options that the output depends on (JSON types).
        rows: rows of the input that are done, bad lines not counted.
        rows_hash: chained over those rows.
        size: bytes of the output that they take.
        empty: those of them with no text.
        unsure: those of them that lack a label whose probability is too low.
    """

    model: str
    settings: dict[str, Any]
    rows: int = 0
    rows_hash: str = ""
    size: int = 0
    empty: int = 0
    unsure: int = 0


def chain_hash(previous: str, rows: Iterable[Row]) -> str:
    """The hash of all rows up to the last of `rows`, given that of the rows before them."""
    for row in rows:
        content = json.dumps(row.fields, default=_json_value, sort_keys=True)
        previous = hashlib.sha256(f"{previous}{content}".encode()).hexdigest()
    return previous


def hash_files(paths: Sequence[Path]) -> str:
    """SHA-256 over the contents of the files."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(bytes.fromhex(file_sha256(path)))
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
        """How far the prediction `start` got before it was killed; `start` itself if it is new.

        Raises:
            UserError: the journal is of another prediction, or its output is gone.
        """
        try:
            found = Progress(**json.loads(self.path.read_text()))
        except FileNotFoundError:
            return start
        except (OSError, ValueError, TypeError) as error:
            raise self.refusal(f"was begun, but its journal {self.path} cannot be read") from error
        if found.rows == 0:
            return start
        if found.model != start.model:
            raise self.refusal("was begun with another model")
        if found.settings != start.settings:
            raise self.refusal("was begun with other options or other columns")
        if not self.output.is_file() or self.output.stat().st_size < found.size:
            raise self.refusal("is shorter than when it was last written")
        return found

    def refusal(self, reason: str) -> UserError:
        """The error that says why the output cannot be resumed."""
        return UserError(
            f"{self.output} {reason}: delete {shlex.quote(str(self.path))} to start again, or name another --output"
        )

    def write(self, progress: Progress) -> None:
        """Replaces the file, durably."""
        with atomic_write(self.path) as unfinished:
            unfinished.write_text(json.dumps(asdict(progress)))

    def remove(self) -> None:
        """Deletes the file: the output is complete."""
        self.path.unlink(missing_ok=True)
        remove_unfinished(self.path)


class PredictionWriter:
    """Writes rows with their predictions.

    A row has the columns of the input, then what its task answers (`label`, and with one label a text `score`, its
    probability; several labels are a list in jsonl, and joined in csv) and `probability_NAME` for each label. A column
    of the input that has one of these names is kept as `input_NAME`. A row with no text has no answer and no
    probabilities: empty in csv, null in jsonl.

    Args:
        stream: to write to.
        output_format: csv or jsonl.
        input_columns: of the input, for csv.
        task: what the probabilities mean.
        min_score: a label whose probability is lower is left out.
    """

    def __init__(
        self,
        stream: BinaryIO,
        output_format: OutputFormat,
        input_columns: Sequence[str],
        task: "Task",
        min_score: float = 0.0,
    ) -> None:
        self.min_score = min_score
        self.stream = stream
        self.format = output_format
        self.task = task
        self.added = [*task.answer_fields, *(f"probability_{label}" for label in task.labels)]
        self.columns = [*self.renamed(input_columns).values(), *self.added]

    def renamed(self, columns: Iterable[str]) -> dict[str, str]:
        """Column of the input to its name in the output, in the input's order."""
        names = {column: column for column in columns}
        taken = {*self.added, *names}
        for column in names.keys() & set(self.added):
            while names[column] in taken:
                names[column] = f"input_{names[column]}"
            taken.add(names[column])
        return names

    def header(self) -> None:
        """Writes the header, if the format has one."""
        if self.format == "csv":
            self._write_csv([self.columns])

    def write(self, rows: Sequence[Row], probabilities: Sequence[Sequence[float] | None]) -> int:
        """Writes rows and flushes; the probabilities of a row with no text are None.

        Returns:
            How many of them lack a label because of `min_score`.
        """
        records = [self.record(row, p) for row, p in zip(rows, probabilities, strict=True)]
        if self.format == "csv":
            self._write_csv([[_csv_value(record.get(column)) for column in self.columns] for record in records])
        else:
            lines = (json.dumps(record, ensure_ascii=False, default=_json_value) + "\n" for record in records)
            self.stream.write("".join(lines).encode())
        self.stream.flush()
        return self.count_unsure(probabilities)

    def count_unsure(self, probabilities: Sequence[Sequence[float] | None]) -> int:
        """How many rows lack a label because of `min_score`."""
        if not self.min_score:
            return 0
        return sum(p is not None and self.task.answer(p, self.min_score) != self.task.answer(p) for p in probabilities)

    def record(self, row: Row, probabilities: Sequence[float] | None) -> dict[str, Any]:
        """The columns of a row of the output, by name."""
        kept = {name: row.fields[column] for column, name in self.renamed(row.fields).items()}
        if probabilities is None:
            return kept | dict.fromkeys(self.added)
        answer = self.task.answer(probabilities, self.min_score)
        if self.format == "csv":
            answer = [SEPARATOR.join(value) if isinstance(value, list) else value for value in answer]
        values = [*answer, *probabilities]
        # seven digits are what float32 holds
        rounded = [float(f"{value:.7g}") if isinstance(value, float) else value for value in values]
        return kept | dict(zip(self.added, rounded, strict=True))

    def _write_csv(self, rows: Iterable[Iterable[Any]]) -> None:
        lines: list[str] = []
        # Python before 3.11.9 quotes a field with a lone \r only if the line terminator has one (cpython #67044), so
        # lines get \r\n, and the \r is cut off again
        csv.writer(SimpleNamespace(write=lines.append), lineterminator="\r\n").writerows(rows)
        self.stream.write("".join(line[:-2] + "\n" for line in lines).encode())


def tell_missing_labels(rows: int, empty: int, unsure: int, min_score: float) -> None:
    """Says on stderr how many of `rows` have no text, and how many lack a label because of `min_score`."""
    if empty:
        print(f"{empty:,} reviews are empty and have no label", file=sys.stderr)
    if min_score:
        lack = f"{unsure:,} of {rows - empty:,} reviews lack a label whose probability is below {min_score:g}"
        print(lack, file=sys.stderr)


@contextmanager
def open_output(path: str, size: int) -> Iterator[BinaryIO]:
    """Opens standard output, or a file of which the first `size` bytes are kept."""
    if path == STANDARD:
        sys.stdout.flush()
        if isinstance(sys.stdout.buffer, io.BufferedWriter):
            # not sys.stdout itself, which hides that it cannot be written: see src.system.streams
            with open(sys.stdout.fileno(), "wb", closefd=False) as stream:
                yield stream
        else:
            yield sys.stdout.buffer  # in a notebook or a test
        return
    with open(path, "r+b" if size else "wb") as stream:
        if size:
            stream.truncate(size)
            stream.seek(size)
        yield stream


def sync(stream: BinaryIO) -> int:
    """Flushes a file to the disk; returns its size in bytes."""
    stream.flush()
    os.fsync(stream.fileno())
    return stream.tell()


@contextmanager
def write_errors(output: str, resumable: bool) -> Iterator[None]:
    """Turns an OSError, such as that of a full disk, into a UserError.

    When nobody reads a pipe any more, the command ends without a word, as if by SIGPIPE, which Python ignores.
    """
    try:
        yield
    except BrokenPipeError:
        raise SystemExit(128 + signal.SIGPIPE) from None
    except OSError as error:
        advice = "; fix that, and the same command resumes where it stopped" if resumable else ""
        name = "standard output" if output == STANDARD else output
        raise UserError(f"{name} could not be written: {why(error)}{advice}") from error


def _csv_value(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False, default=_json_value) if isinstance(value, dict | list) else value


def _json_value(value: Any) -> str:
    """What JSON has no type for: dates, decimals and bytes from parquet."""
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
