"""Labels a parquet file into another one, which says what it was made from.

A file is labelled by one process, which holds its lock, and gets its name when it is complete. So what is there is
done, a process that dies leaves its file to another one, and the processes need not know of each other.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from src.data.tables import Row, Table
from src.inference.output_files import PredictionWriter, hash_files
from src.inference.prediction import (
    BATCH_SIZE_CPU,
    BATCH_SIZE_GPU,
    BATCHES_A_CHUNK,
    CHARACTERS_A_CHUNK,
    CHARACTERS_A_CHUNK_OF_WINDOWS,
    ROWS_A_CHUNK,
)
from src.system.atomic import atomic_write, remove_unfinished
from src.system.errors import UserError
from src.system.locks import exclusive

if TYPE_CHECKING:
    from src.inference.classifier import Classifier

_ORIGIN = b"bert_imdb"  # the key of a labelled file's metadata that tells what it was made from
_BYTES_A_ROW_GROUP = 32_000_000  # what is written at once


class UnreadableError(UserError):
    """An input file that cannot be labelled, where others can."""


class Job(NamedTuple):
    """A file to label.

    Attributes:
        source: the input.
        target: the output.
    """

    source: Path
    target: Path


class Labelled(NamedTuple):
    """What was done for a job.

    Attributes:
        rows: labelled; 0 if it was done already.
        empty: those of them that have no text, and so no label.
        unsure: those that lack a label because of `min_score`.
    """

    rows: int = 0
    empty: int = 0
    unsure: int = 0


class FileLabeller:
    """Labels parquet files, in this process.

    Args:
        classifier: gives the labels.
        text_column: the column with the reviews.
        batch_size: reviews (or windows of them) computed at once; None takes the default of the classifier's device.
        min_score: a label whose probability is lower is left out.
    """

    def __init__(
        self, classifier: "Classifier", text_column: str, batch_size: int | None = None, min_score: float = 0.0
    ) -> None:
        self.classifier = classifier
        self.min_score = min_score
        self.text_column = text_column
        self.batch_size = batch_size or (BATCH_SIZE_GPU if classifier.on_gpu else BATCH_SIZE_CPU)
        self.model = hash_files(classifier.files)

    def open_jobs(self, jobs: Iterable[Job]) -> list[Job]:
        """Those that are not done.

        Raises:
            UserError: an output is that of another prediction, or no output.
        """
        jobs = list(jobs)
        todo = [job for job in jobs if not self._is_done(job)]
        if len(todo) < len(jobs):
            print(f"{len(jobs) - len(todo):,} of {len(jobs):,} files are labelled already", file=sys.stderr)
        return todo

    def label(self, job: Job, *, wait: bool = False, report: Callable[[int], object] = lambda _rows: None) -> Labelled:
        """Labels a file, unless it is done.

        Args:
            job: the file.
            wait: where another process labels it, waits for its end.
            report: gets the number of rows each time that some are done.

        Raises:
            HeldError: another process labels it, and `wait` is off.
            UnreadableError: it cannot be read.
            OSError: the output cannot be written.
        """
        job.target.parent.mkdir(parents=True, exist_ok=True)
        lock = job.target.with_name(f".{job.target.name}.lock")
        with exclusive(lock, str(job.target), wait=wait):
            if self._is_done(job):
                return Labelled()
            remove_unfinished(job.target)
            return self._write(job, report)

    # ---- what is done ----------------------------------------------------------------------------------------------

    def _origin(self, job: Job) -> dict[str, str | float]:
        return {
            "model": self.model,
            "text_column": self.text_column,
            "min_score": self.min_score,
            "input": _fingerprint(job.source),
        }

    def _is_done(self, job: Job) -> bool:
        import pyarrow.parquet

        if not job.target.exists():
            return False
        try:
            found = json.loads((pyarrow.parquet.read_schema(job.target).metadata or {}).get(_ORIGIN, b"{}"))
        except (OSError, ValueError):
            found = {}
        origin = self._origin(job)
        if not found:
            reason = "is no file that was labelled here"
        elif different := [name for name, value in origin.items() if found.get(name) != value]:
            reason = f"was labelled from another {different[0].replace('_', ' ')}"
        else:
            return True
        raise UserError(f"{job.target} {reason}: delete it, or name another --output")

    # ---- labels ----------------------------------------------------------------------------------------------------

    def _write(self, job: Job, report: Callable[[int], object]) -> Labelled:
        import pyarrow
        import pyarrow.parquet

        table = Table(str(job.source), "parquet", self.text_column)
        schema = self._readable(table)
        task = self.classifier.task
        records = PredictionWriter(BytesIO(), "jsonl", schema.names, task, self.min_score)
        names = records.renamed(schema.names)
        kind = {"label": pyarrow.list_(pyarrow.string()) if task.label_shape else pyarrow.string()}
        kept = [field.with_name(names[field.name]) for field in schema]
        added = [pyarrow.field(name, kind.get(name, pyarrow.float64())) for name in records.added]
        origin = {_ORIGIN: json.dumps(self._origin(job)).encode()}
        written = pyarrow.schema([*kept, *added], metadata=(schema.metadata or {}) | origin)
        rows = empty = unsure = 0
        pending: list[Any] = []
        with (
            atomic_write(job.target) as unfinished,
            unfinished.open("wb") as stream,
            pyarrow.parquet.ParquetWriter(stream, written) as parquet,
        ):
            for batch, probabilities in self._labelled(table):
                answers = [records.record(Row(0, {}, ""), each) for each in probabilities]
                columns = [pyarrow.array([each[field.name] for each in answers], field.type) for field in added]
                pending.append(pyarrow.RecordBatch.from_arrays([*batch.columns, *columns], schema=written))
                if sum(each.nbytes for each in pending) > _BYTES_A_ROW_GROUP:
                    parquet.write_table(pyarrow.Table.from_batches(pending))
                    pending.clear()
                rows += len(batch)
                empty += probabilities.count(None)
                unsure += records.count_unsure(probabilities)
                report(len(batch))
            if pending:
                parquet.write_table(pyarrow.Table.from_batches(pending))
        return Labelled(rows, empty, unsure)

    def _readable(self, table: Table) -> Any:
        """The schema of a file whose column of reviews is text."""
        from pyarrow import types

        try:
            schema = table.schema()
        except UserError as error:
            raise UnreadableError(str(error)) from error
        kind = schema.field(self.text_column).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        if not any(is_text(kind) for is_text in (types.is_string, types.is_large_string, types.is_string_view)):
            raise UnreadableError(f"{table.name} has {kind} in {self.text_column!r}, not text")
        return schema

    def _labelled(self, table: Table) -> Iterator[tuple[Any, list[list[float] | None]]]:
        """Record batches with the probabilities of their rows, None for one with no text; encodes one batch ahead."""
        from src.inference.classifier import probabilities

        with ThreadPoolExecutor(1) as thread:

            def begin(batch: Any) -> tuple[Any, list[bool], Future[list[list[list[int]]]]]:
                texts = [text or "" for text in batch.column(self.text_column).to_pylist()]
                full = [bool(text.strip()) for text in texts]
                return batch, full, thread.submit(self.classifier.encoder.encode, [t for t in texts if t.strip()])

            begun = map(begin, self._batches(table))
            following = next(begun, None)
            while following is not None:
                (batch, full, tokens), following = following, next(begun, None)
                logits = self.classifier.logits_of_tokens(tokens.result(), self.batch_size)
                found = iter(probabilities(logits, self.classifier.task).tolist())
                yield batch, [next(found) if has_text else None for has_text in full]

    def _batches(self, table: Table) -> Iterator[Any]:
        """Record batches as large as the chunks of `Prediction`, so that both give the same bits."""
        by_windows = self.classifier.encoder.truncation == "windows"
        most = CHARACTERS_A_CHUNK_OF_WINDOWS if by_windows else CHARACTERS_A_CHUNK
        try:
            for batch in table.batches(max(ROWS_A_CHUNK, BATCHES_A_CHUNK * self.batch_size)):
                yield from self._pieces(batch, most)
        except UserError as error:
            raise UnreadableError(str(error)) from error

    def _pieces(self, batch: Any, most: int) -> Iterator[Any]:
        """A batch, halved until none has more characters, or more than one row."""
        texts = batch.column(self.text_column).to_pylist()
        if len(texts) <= 1 or sum(len(text or "") for text in texts) <= most:
            yield batch
            return
        half = len(texts) // 2
        for piece in (batch.slice(0, half), batch.slice(half)):
            yield from self._pieces(piece, most)


def _fingerprint(path: Path) -> str:
    """The size of a parquet file and the hash of its footer, which says where each part is and what is in it.

    Reading the whole would take each of the processes that share many files as long as reading all of them.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            length = int.from_bytes(file.read(4), "little")
            file.seek(max(0, size - 8 - length))
            return f"{size} {hashlib.sha256(file.read()).hexdigest()}"
    except OSError:
        return ""  # reading it will say why
