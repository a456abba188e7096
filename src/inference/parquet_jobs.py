"""Many parquet files: which are to be labelled, their labelling in this process, and what is told of them all."""

import sys
from collections import deque
from collections.abc import Iterable
from glob import escape, iglob
from itertools import takewhile
from pathlib import Path

from src.data.tables import STANDARD, format_by_name
from src.inference.output_files import tell_missing_labels, write_errors
from src.inference.parquet_files import FileLabeller, Job, Labelled, UnreadableError
from src.system.errors import Interrupted, UserError, printable
from src.system.locations import expanded
from src.system.locks import HeldError


def find_jobs(source: str, output: str) -> list[Job] | None:
    """The files of a folder or of a pattern, and where each of them goes; None if `source` is a single file.

    A name that has characters of a pattern means the file of that name, if there is one. Files in folders keep the
    folders that the pattern leaves open.

    Raises:
        UserError: there are none, or one is no parquet file; or the output cannot be their folder.
    """
    path = expanded(source)
    if source == STANDARD or (path.exists() and not path.is_dir()):
        return None
    if path.is_dir():
        base, pattern = path, str(Path(escape(str(path))) / "*.parquet")
    elif escape(str(path)) != str(path):
        base, pattern = Path(*takewhile(lambda part: escape(part) == part, path.parts[:-1])), str(path)
    else:
        return None
    folder = Path(output)
    if output == STANDARD or folder.is_file() or (format_by_name(folder) and not folder.is_dir()):
        raise UserError(f"--input {source} names several files: --output must name a folder, not {output}")
    if folder.resolve() == base.resolve():
        raise UserError(f"--output {output} is the folder of the input itself: name another one")
    found = sorted(map(Path, iglob(pattern, recursive=True)))  # noqa: PTH207  Path.glob finds hidden files
    found = [file for file in found if folder.resolve() not in file.resolve().parents]
    if not found:
        raise UserError(f"there is no {'.parquet file in' if path.is_dir() else 'file'} {source}")
    for file in found:
        if format_by_name(file) != "parquet" or not file.is_file():
            raise UserError(f"{file} is no .parquet file: several files are labelled if all of them are parquet")
    return [Job(file, folder / file.relative_to(base)) for file in found]


def label_files(labeller: FileLabeller, jobs: Iterable[Job], output: str) -> None:
    """Labels the files that no other process is labelling, waits for the others, and labels what those leave.

    Raises:
        UserError: a file cannot be written or is of another prediction; or, once all others are done, files that could
            not be read.
    """
    from tqdm import tqdm

    waiting = deque((job, False) for job in labeller.open_jobs(jobs))
    outcomes: list[Labelled | UnreadableError] = []
    interval = 0.1 if sys.stderr.isatty() else 10  # in a log, a line every ten seconds is enough
    try:
        with write_errors(output, resumable=True), tqdm(unit=" reviews", mininterval=interval) as bar:
            while waiting:
                bar.set_postfix_str(f"{len(waiting):,} files to do", refresh=False)
                job, wait = waiting.popleft()
                try:
                    outcomes.append(labeller.label(job, wait=wait, report=bar.update))
                except HeldError:
                    waiting.append((job, True))
                except UnreadableError as error:
                    outcomes.append(error)
    except Interrupted as error:
        advice = f"{error} after {len(outcomes):,} files; the same command resumes from there"
        raise Interrupted(error.signum, advice) from None
    tell_outcomes(outcomes, labeller.min_score)


def tell_outcomes(outcomes: Iterable[Labelled | UnreadableError], min_score: float) -> None:
    """Says what was not labelled.

    Raises:
        UserError: files could not be read.
    """
    outcomes = list(outcomes)
    done = [Labelled(), *(each for each in outcomes if isinstance(each, Labelled))]
    rows, empty, unsure = (sum(counts) for counts in zip(*done, strict=True))
    tell_missing_labels(rows, empty, unsure, min_score)
    bad = [each for each in outcomes if isinstance(each, UnreadableError)]
    if len(bad) == 1:
        raise bad[0]
    for error in bad:
        print(printable(str(error)), file=sys.stderr)
    if bad:
        raise UserError(f"{len(bad):,} of {len(outcomes):,} files could not be read and are left out")
