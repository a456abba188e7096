"""From rows to labelled rows: a window at a time, sorted within, written in the input's order."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from src.inference.inputs import STANDARD, BadLine, ReviewFile, Row
from src.inference.outputs import (
    Journal,
    PredictionWriter,
    Progress,
    chain_hash,
    hash_files,
    open_output,
    sync,
    write_errors,
)
from src.system.errors import Interrupted, UserError

if TYPE_CHECKING:
    from src.inference.classifier import Classifier

# Rows are sorted by length, and written, a window at a time; a kill loses the work on one at most. With batches of 8,
# 256 IMDb reviews leave 1.5% of padding, 512 leave 0.8%; larger batches take 16 times as many.
_ROWS_A_WINDOW = 256
_BATCHES_A_WINDOW = 16
_CHARACTERS_A_WINDOW = 20_000_000
_CHARACTERS_A_WINDOW_ALL_READ = 1_000_000  # where a model reads all of a text, however long it is
_BAD_LINES_TOLD = 20
BATCH_SIZE_CPU = 8
BATCH_SIZE_GPU = 128


class Prediction:
    """One prediction of a file: windows of rows, sorted within, written in order.

    Args:
        options: of the command, as `src.commands.predict` parses them.
        reviews: the input.
        classifier: labels them.
    """

    def __init__(self, options: Any, reviews: ReviewFile, classifier: "Classifier") -> None:
        self.options = options
        self.reviews = reviews
        self.classifier = classifier
        self.batch_size = options.batch_size or default_batch_size(options.ckpt_path)
        output = Path(options.output)
        # a pipe or a device cannot be gone on with either
        is_file = options.output != STANDARD and (output.is_file() or not output.exists())
        self.journal = Journal(output) if is_file else None
        self.rows_a_window = max(_ROWS_A_WINDOW, _BATCHES_A_WINDOW * self.batch_size)
        all_read = classifier.encoder.truncation == "windows"
        self.characters_a_window = _CHARACTERS_A_WINDOW_ALL_READ if all_read else _CHARACTERS_A_WINDOW
        self.bad: list[int] = []
        self.n_empty = 0
        self.n_done = 0

    def run(self, total: int | None, columns: list[str]) -> int:
        """Predicts what is not done yet; 1 where there were bad lines, else 0."""
        from tqdm import tqdm

        rows = self._rows()
        if not columns:
            # of standard input, the columns are those of its first window
            first = list(islice(rows, self.rows_a_window))
            columns = list(dict.fromkeys(column for row in first for column in row.fields))
            rows = chain(first, rows)
        columns = columns or [self.options.text_column]
        start = Progress(model=self._model_hash(), settings=self._settings(), columns=columns)
        done = self.journal.read(start) if self.journal else start
        self.n_done = done.rows
        if done.rows:
            print(f"{self.options.output} holds {done.rows:,} rows already: going on from there", file=sys.stderr)
        output = self.options.output
        # in a log, a line every ten seconds is enough
        interval = 0.1 if sys.stderr.isatty() else 10
        with (
            self._interrupts(),
            write_errors(output, resumable=self.journal is not None),
            open_output(output, done.size) as stream,
            tqdm(total=total, initial=done.rows, unit=" reviews", file=sys.stderr, mininterval=interval) as bar,
        ):
            self._write(stream, columns, self._remaining(rows, done), done, bar)
        if self.journal:
            self.journal.remove()
        return self._report()

    def _write(
        self,
        stream: BinaryIO,
        columns: list[str],
        rows: Iterator[Row],
        done: Progress,
        bar: Any,
    ) -> None:
        writer = PredictionWriter(stream, self.options.output_format, columns, self.classifier.labels)
        known = {*columns}
        _tell_renamed(columns, writer)
        if self.journal:
            self.journal.write(done)
        if not done.rows:
            writer.header()
        for window in self._windows(rows):
            kept = window
            if self.options.output_format == "csv" and self.reviews.path == STANDARD:
                kept = [row for row in window if self._fits(row, known, bar)]
            writer.write(kept, self._predict_window(kept, bar))
            if self.journal:
                rows_hash = chain_hash(done.rows_hash, window)
                done = replace(done, rows=done.rows + len(window), rows_hash=rows_hash, size=sync(stream))
                self.journal.write(done)
            self.n_done += len(window)

    def _predict_window(self, rows: list[Row], bar: Any) -> list[list[float] | None]:
        """The probabilities of each row; None for one with no text."""
        from src.inference.classifier import probabilities

        filled = [i for i, row in enumerate(rows) if row.text.strip()]
        self.n_empty += len(rows) - len(filled)
        bar.update(len(rows) - len(filled))
        tokens = self.classifier.encoder.encode([rows[i].text for i in filled]) if filled else []
        logits = self.classifier.logits_of_tokens(tokens, self.batch_size, bar.update)
        found: list[list[float] | None] = [None] * len(rows)
        for i, row in zip(filled, probabilities(logits).tolist() if filled else [], strict=True):
            found[i] = row
        return found

    @contextmanager
    def _interrupts(self) -> Iterator[None]:
        """Adds to the message of a signal how far the prediction came."""
        try:
            yield
        except Interrupted as error:
            advice = "; the same command goes on from there" if self.journal else ""
            raise Interrupted(error.signum, f"{error} after {self.n_done:,} rows{advice}") from None

    # ---- rows to windows -------------------------------------------------------------------------------------------

    def _rows(self) -> Iterator[Row]:
        """The rows of the input; bad lines are told and left out."""
        for row in self.reviews.rows():
            if isinstance(row, BadLine):
                self._tell_bad(row)
            else:
                yield row

    def _remaining(self, rows: Iterator[Row], done: Progress) -> Iterator[Row]:
        """The rows after those that are done.

        Raises:
            UserError: those that are done are not those that the input begins with.
        """
        if done.rows and chain_hash("", islice(rows, done.rows)) != done.rows_hash:
            assert self.journal is not None
            raise self.journal.mismatch()
        return rows

    def _windows(self, rows: Iterable[Row]) -> Iterator[list[Row]]:
        window: list[Row] = []
        characters = 0
        for row in rows:
            window.append(row)
            characters += len(row.text)
            if len(window) == self.rows_a_window or characters > self.characters_a_window:
                yield window
                window, characters = [], 0
        if window:
            yield window

    def _fits(self, row: Row, known: set[str], bar: Any) -> bool:
        """Whether the csv, whose header is written, has a column for each field of the row."""
        extra = [column for column in row.fields if column not in known]
        if extra:
            self._tell_bad(BadLine(row.number, f"has the field {extra[0]!r}, for which the csv has no column"))
            bar.update(1)
        return not extra

    # ---- what is said ----------------------------------------------------------------------------------------------

    def _tell_bad(self, line: BadLine) -> None:
        self.bad.append(line.number)
        if len(self.bad) <= _BAD_LINES_TOLD:
            print(f"{self.reviews.name}, line {line.number}: {line.reason}", file=sys.stderr)

    def _report(self) -> int:
        if self.n_empty:
            print(f"{self.n_empty:,} reviews are empty and have no label", file=sys.stderr)
        if not self.bad:
            return 0
        named = ", ".join(map(str, self.bad[:_BAD_LINES_TOLD])) + (", …" if len(self.bad) > _BAD_LINES_TOLD else "")
        count = f"{len(self.bad):,} line{'s' if len(self.bad) > 1 else ''}"
        raise UserError(f"{count} of {self.reviews.name} could not be read and are left out: {named}")

    def _model_hash(self) -> str:
        return hash_files(self.classifier.files) if self.journal else ""

    def _settings(self) -> dict[str, str]:
        return {"text_column": self.options.text_column, "output_format": self.options.output_format}


def _tell_renamed(columns: list[str], writer: PredictionWriter) -> None:
    for column, name in writer.renamed(columns).items():
        if name != column:
            print(f"the input's column {column!r} is kept as {name!r}", file=sys.stderr)


def default_batch_size(ckpt_path: str) -> int:
    """Reviews computed at once, where none is asked for."""
    import torch

    on_gpu = torch.cuda.is_available() and not ckpt_path.endswith(".onnx")
    return BATCH_SIZE_GPU if on_gpu else BATCH_SIZE_CPU
