"""`python -m src predict`: labels a file of reviews with a checkpoint, an exported folder or an ONNX file."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from jsonargparse import ArgumentError, ArgumentParser

from src.data.tables import STANDARD, Format, Table
from src.inference.output_files import OutputFormat
from src.inference.parquet_files import FileLabeller
from src.inference.parquet_jobs import find_jobs, label_files
from src.inference.prediction import BATCH_SIZE_CPU, BATCH_SIZE_GPU, Prediction
from src.inference.ranks import Ranks, together
from src.system.errors import Interrupted, UsageError, UserError, tell
from src.system.imports import quick_imports
from src.system.locations import expanded
from src.system.locks import exclusive
from src.system.rendezvous import let_first_rank_tell
from src.system.signals import interrupted_by_signals

if TYPE_CHECKING:
    from src.inference.classifier import Classifier

_DESCRIPTION = """\
Labels the reviews of a file, or of many.

Each row of the input is written with all its columns, then `label`, `score` (the probability of that label) and
`probability_NAME` for each class. Of a model that may give a text several labels, `label` is a list (in csv, its names
joined by "|"; empty for no label), and there is no `score`. A column of the input that has one of these names is kept
as `input_NAME`. Rows keep their order. A review over the model's length is cut, or read in windows, as in training. An
empty review gets no label.
A line that cannot be read is named on stderr and left out, and the exit status is 1. If a prediction to a file is
killed, the same command resumes it. Under torchrun, its processes share the work, each on a GPU of its own.
Of many parquet files, each is labelled into a parquet file of the same name, and those that are there are done. Several
of these commands may run at the same time, also on several machines that share the folders: each file is labelled once.
"""
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl"}


def main(args: list[str]) -> int:
    """Runs `predict ARGS` and returns its exit status."""
    try:
        _predict(_parse(args))
    except Interrupted as error:
        return tell(error)
    except (UserError, OSError) as error:
        let_first_rank_tell()
        return tell(error)
    return 0


def _parse(args: list[str]) -> Any:
    parser = ArgumentParser(
        prog="python -m src predict", description=_DESCRIPTION, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument(
        "--ckpt_path",
        required=True,
        help="a checkpoint (a file, or `best` or `last` of the newest run), a folder written by `export`, or an .onnx "
        "file in one",
    )
    parser.add_argument(
        "--input",
        required=True,
        help="a .csv, .tsv, .jsonl, .parquet or .txt file, or - for stdin; or many .parquet files: their folder, or a "
        "pattern between quotes, such as 'reviews/*.parquet'",
    )
    parser.add_argument(
        "--output", required=True, help="a .csv or .jsonl file, or - for stdout; of many files, the folder to write"
    )
    parser.add_argument("--text_column", default="text", help="the column with the reviews")
    parser.add_argument(
        "--input_format",
        choices=get_args(Format),
        help="in place of the suffix; stdin is read as txt, a review a line",
    )
    parser.add_argument(
        "--output_format", choices=get_args(OutputFormat), help="in place of the suffix; stdout is written as csv"
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        help=f"reviews (or windows of them) computed at once; null is {BATCH_SIZE_CPU}, and {BATCH_SIZE_GPU} on a GPU",
    )
    parser.add_argument(
        "--min_score",
        type=float,
        default=0.0,
        help="leave out a label whose probability is lower, from 0 to 1; how many reviews that changes is told. Of a "
        "model exported with --calibrate, 0.9 leaves labels of which about nine in ten or more are right",
    )
    parser.add_argument(
        "--engine",
        choices=["ray"],
        help="of many files: a Ray cluster labels them, or a Ray that is started on this machine; null is this process",
    )
    try:
        options = parser.parse_args(args)
    except ArgumentError as error:
        raise UsageError(str(error)) from error
    if not 0 <= options.min_score <= 1:  # NaN too
        raise UsageError(f"--min_score is {options.min_score}; it must be a probability, from 0 to 1")
    if options.batch_size is not None and options.batch_size < 1:
        raise UsageError(f"--batch_size is {options.batch_size}; it must be 1 or more")
    if options.output != STANDARD:
        options.output = str(expanded(options.output))
    options.jobs = find_jobs(options.input, options.output)
    if options.jobs is None and options.engine:
        raise UsageError("--engine ray labels many parquet files: --input names a folder of them, or a pattern")
    if options.jobs is not None:
        if options.output_format or options.input_format not in (None, "parquet"):
            raise UsageError(
                "many files are parquet, and their output too: leave out --input_format and --output_format"
            )
        return options
    if options.output_format is None:
        options.output_format = (
            "csv" if options.output == STANDARD else _SUFFIXES.get(Path(options.output).suffix.lower())
        )
        if options.output_format is None:
            raise UsageError(
                f"--output {options.output} ends neither in .csv nor in .jsonl: name its format by --output_format"
            )
    return options


def _predict(options: Any) -> None:
    if options.engine == "ray":
        from src.inference.ray_engine import label_on_ray

        with interrupted_by_signals():
            settings = (options.text_column, options.batch_size, options.min_score)
            label_on_ray(options.jobs, _find(options.ckpt_path), *settings)
        return
    # the input and the output are checked first, since the model takes seconds to load
    reviews = Table(options.input, options.input_format, options.text_column) if options.jobs is None else None
    with together() as ranks, interrupted_by_signals():
        if reviews is None:
            classifier = _load(options.ckpt_path)
            labeller = FileLabeller(classifier, options.text_column, options.batch_size, options.min_score)
            label_files(labeller, options.jobs, options.output)
            return
        if ranks.size > 1 and options.input == STANDARD:
            raise UserError("several processes cannot share standard input: name a file as --input")
        if ranks.rank:
            _prediction(options, reviews, ranks).assist()
            return
        if options.output != STANDARD:
            _check_output(options.output, options.input)
        with _lock(options.output):
            total, columns = reviews.survey()
            _prediction(options, reviews, ranks).run(total, columns)


def _prediction(options: Any, reviews: Table, ranks: Ranks) -> Prediction:
    classifier = _load(options.ckpt_path)
    return Prediction(
        reviews, classifier, options.output, options.output_format, options.batch_size, ranks, options.min_score
    )


def _lock(output: str) -> AbstractContextManager[None]:
    """Keeps two predictions from mixing their rows in one file."""
    path = Path(output)
    regular = output != STANDARD and (path.is_file() or not path.exists())  # /dev/stdout and pipes have no lock
    return exclusive(path.with_name(f".{path.name}.lock"), output) if regular else nullcontext()


def _check_output(output: str, source: str) -> None:
    path = Path(output)
    if source != STANDARD and path.exists() and path.samefile(source):
        raise UserError(f"--output {output} is the input itself: name another file")
    if path.is_dir():
        raise UserError(f"--output {output} is a folder: name a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder of --output {output} cannot be made: {error.strerror}") from error


def _load(name: str) -> "Classifier":
    with quick_imports():
        from src.inference.classifier import load

    return load(_find(name))


def _find(name: str) -> Path:
    with quick_imports():
        from src.runs.directories import find_model

    return find_model(name)
