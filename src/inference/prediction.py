"""Labels a file of reviews: a chunk of rows at a time, sorted by length within it, written in the input's order."""

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from src.data.tables import STANDARD, BadLine, Row, Table
from src.inference.output_files import (
    Journal,
    OutputFormat,
    PredictionWriter,
    Progress,
    chain_hash,
    hash_files,
    open_output,
    sync,
    tell_missing_labels,
    write_errors,
)
from src.inference.ranks import Ranks
from src.system.checksums import file_sha256
from src.system.errors import Interrupted, UserError, printable

if TYPE_CHECKING:
    from src.inference.classifier import Classifier

# A kill loses the work on one chunk. A larger chunk can be sorted into batches with less padding: with batches of 8,
# 256 IMDb reviews leave 1.5%, 512 leave 0.8%. Larger batches need more rows: 16 batches.
ROWS_A_CHUNK = 256
BATCHES_A_CHUNK = 16
CHARACTERS_A_CHUNK = 20_000_000
CHARACTERS_A_CHUNK_OF_WINDOWS = 1_000_000  # of a model that reads all of a text, however long it is
_BAD_LINES_SHOWN = 20
BATCH_SIZE_CPU = 8
BATCH_SIZE_GPU = 128


class _Chunk(NamedTuple):
    """Some rows of the input.

    Attributes:
        rows: all of them.
        fitting: those that the output can hold.
        tokens: of those with a text; None where another rank labels the chunk.
    """

    rows: list[Row]
    fitting: list[Row]
    tokens: Future[list[list[list[int]]]] | None


class Prediction:
    """One prediction of a file, begun or resumed.

    Args:
        reviews: the input.
        classifier: gives the labels.
        output: path of the output, or "-".
        output_format: of the output.
        batch_size: reviews (or windows of them) computed at once; None takes the default of the classifier's device.
        ranks: the processes that share the work.
        min_score: a label whose probability is lower is left out.
    """

    def __init__(
        self,
        reviews: Table,
        classifier: "Classifier",
        output: str,
        output_format: OutputFormat,
        batch_size: int | None = None,
        ranks: Ranks | None = None,
        min_score: float = 0.0,
    ) -> None:
        self.min_score = min_score
        self.ranks = ranks or Ranks()
        self.reviews = reviews
        self.classifier = classifier
        self.output = output
        self.output_format = output_format
        self.batch_size = batch_size or (BATCH_SIZE_GPU if classifier.on_gpu else BATCH_SIZE_CPU)
        self.rows_a_chunk = max(ROWS_A_CHUNK, BATCHES_A_CHUNK * self.batch_size)
        path = Path(output)
        # a pipe or a device cannot be resumed either
        is_file = output != STANDARD and (path.is_file() or not path.exists())
        self.journal = Journal(path) if is_file else None
        self.done = Progress(model="", settings={})
        self.bad: list[int] = []

    def run(self, total: int | None, columns: list[str]) -> None:
        """Labels the rows that are not done yet, and writes the output.

        Args:
            total: rows of the input, for the progress bar; None if not known.
            columns: of the input; empty takes those of the first chunk.

        Raises:
            UserError: the output cannot be written or is of another prediction; or, once all others are done, lines of
                the input that could not be read.
        """
        from tqdm import tqdm

        rows = self._rows()
        if not columns:
            first = list(islice(rows, self.rows_a_chunk))
            columns = list(dict.fromkeys(column for row in first for column in row.fields))
            rows = chain(first, rows)
        columns = columns or [self.reviews.text_column]
        self.done = self._resume(rows, columns)
        self._agree()
        # in a log, a line every ten seconds is enough
        interval = 0.1 if sys.stderr.isatty() else 10
        try:
            with (
                write_errors(self.output, resumable=self.journal is not None),
                open_output(self.output, self.done.size) as stream,
                tqdm(total=total, initial=self.done.rows, unit=" reviews", mininterval=interval) as bar,
            ):
                self._write(stream, columns, rows, bar)
        except Interrupted as error:
            advice = "; the same command resumes from there" if self.journal else ""
            raise Interrupted(error.signum, f"{error} after {self.done.rows:,} rows{advice}") from None
        if self.journal:
            self.journal.remove()
        self._report()

    def assist(self) -> None:
        """Labels this rank's share of the rows, for rank 0, which writes the output.

        Raises:
            UserError: rank 0 has ended, or has other files.
        """
        rows = (row for row in self.reviews.rows() if isinstance(row, Row))
        for chunk in self._begun(islice(rows, self._agree(), None), None):
            if chunk.tokens is not None:
                self.ranks.send(self.classifier.logits_of_tokens(chunk.tokens.result(), self.batch_size))

    def _agree(self) -> int:
        """The number of rows that are done already, once it is known that all ranks have the same files."""
        if self.ranks.size == 1:
            return self.done.rows
        facts = {
            "model": hash_files(self.classifier.files),
            "input": file_sha256(Path(self.reviews.path)),
            "input format": [self.reviews.format, self.reviews.text_column],
            "batch size": self.batch_size,
        }
        return self.ranks.agree(facts, self.done.rows)

    def _resume(self, rows: Iterator[Row], columns: list[str]) -> Progress:
        """What is done already; takes it from `rows`.

        Raises:
            UserError: the output is of another prediction.
        """
        if not self.journal:
            return self.done
        settings: dict[str, Any] = {
            "columns": columns,
            "text_column": self.reviews.text_column,
            "output_format": self.output_format,
        }
        if self.min_score:
            settings["min_score"] = self.min_score
        done = self.journal.read(Progress(hash_files(self.classifier.files), settings))
        if done.rows:
            if chain_hash("", islice(rows, done.rows)) != done.rows_hash:
                raise self.journal.refusal("was begun from another input")
            print(f"{self.output} holds {done.rows:,} rows already: resuming from there", file=sys.stderr)
        return done

    def _write(self, stream: BinaryIO, columns: list[str], rows: Iterable[Row], bar: Any) -> None:
        writer = PredictionWriter(stream, self.output_format, columns, self.classifier.task, self.min_score)
        for column, name in writer.renamed(columns).items():
            if name != column:
                print(f"the input's column {column!r} is kept as {name!r}", file=sys.stderr)
        if self.journal:
            self.journal.write(self.done)
        if not self.done.rows:
            writer.header()
        for number, chunk in enumerate(self._begun(rows, set(columns))):
            bar.update(len(chunk.rows) - len(chunk.fitting))
            found = self._predict(number, chunk, bar)
            done = replace(
                self.done,
                rows=self.done.rows + len(chunk.rows),
                empty=self.done.empty + found.count(None),
                unsure=self.done.unsure + writer.write(chunk.fitting, found),
            )
            if self.journal:
                done = replace(done, rows_hash=chain_hash(done.rows_hash, chunk.rows), size=sync(stream))
                self.journal.write(done)
            self.done = done

    def _begun(self, rows: Iterable[Row], columns: set[str] | None) -> Iterator[_Chunk]:
        """The chunks; a thread encodes this rank's next one while the one before is labelled.

        Standard input is not read ahead: what is there is labelled first.
        """
        ahead = 0 if self.reviews.path == STANDARD else self.ranks.size
        waiting: deque[_Chunk] = deque()
        with ThreadPoolExecutor(1) as thread:
            for number, chunk in enumerate(self._chunks(rows)):
                fitting = [row for row in chunk if self._fits(row, columns)]
                tokens = None
                if self.ranks.computes(number):
                    tokens = thread.submit(self.classifier.encoder.encode, _texts(fitting))
                waiting.append(_Chunk(chunk, fitting, tokens))
                if len(waiting) > ahead:
                    yield waiting.popleft()
            yield from waiting

    def _predict(self, number: int, chunk: _Chunk, bar: Any) -> list[list[float] | None]:
        """The probabilities of each row that fits; None for one with no text."""
        from src.inference.classifier import probabilities

        n_texts = len(_texts(chunk.fitting))
        bar.update(len(chunk.fitting) - n_texts)
        if chunk.tokens is not None:
            logits = self.classifier.logits_of_tokens(chunk.tokens.result(), self.batch_size, bar.update)
        else:
            logits = self.ranks.receive(number, (n_texts, len(self.classifier.labels)))
            bar.update(n_texts)
        found = iter(probabilities(logits, self.classifier.task).tolist())
        return [next(found) if row.text.strip() else None for row in chunk.fitting]

    # ---- rows ------------------------------------------------------------------------------------------------------

    def _rows(self) -> Iterator[Row]:
        """The rows of the input; bad lines are reported and left out."""
        for row in self.reviews.rows():
            if isinstance(row, BadLine):
                self._leave_out(row)
            else:
                yield row

    def _chunks(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        by_windows = self.classifier.encoder.truncation == "windows"
        most_characters = CHARACTERS_A_CHUNK_OF_WINDOWS if by_windows else CHARACTERS_A_CHUNK
        chunk: list[Row] = []
        characters = 0
        for row in rows:
            chunk.append(row)
            characters += len(row.text)
            if len(chunk) == self.rows_a_chunk or characters > most_characters:
                yield chunk
                chunk, characters = [], 0
        if chunk:
            yield chunk

    def _fits(self, row: Row, columns: set[str] | None) -> bool:
        """Whether the output can hold all fields; standard input may have more after the csv header is written."""
        if columns is None or self.output_format != "csv":
            return True
        extra = [field for field in row.fields if field not in columns]
        if extra:
            self._leave_out(BadLine(row.number, f"has the field {extra[0]!r}, for which the csv has no column"))
        return not extra

    def _leave_out(self, line: BadLine) -> None:
        self.bad.append(line.number)
        if len(self.bad) <= _BAD_LINES_SHOWN:
            print(printable(f"{self.reviews.name}, line {line.number}: {line.reason}"), file=sys.stderr)

    def _report(self) -> None:
        tell_missing_labels(self.done.rows, self.done.empty, self.done.unsure, self.min_score)
        if self.bad:
            named = ", ".join(map(str, self.bad[:_BAD_LINES_SHOWN]))
            named += ", …" if len(self.bad) > _BAD_LINES_SHOWN else ""
            count = f"{len(self.bad):,} line{'s' if len(self.bad) > 1 else ''}"
            raise UserError(f"{count} of {self.reviews.name} could not be read and are left out: {named}")


def _texts(rows: Iterable[Row]) -> list[str]:
    """Those that are not empty."""
    return [row.text for row in rows if row.text.strip()]
