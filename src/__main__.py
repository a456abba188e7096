"""`python -m src`: runs a subcommand; --help and --version are answered before any heavy import."""

import sys

from src import __version__
from src.system.errors import EXIT_ERROR, UserError, shortage, tell
from src.system.rendezvous import check_launch_variables
from src.system.signals import end_with_a_line, end_with_launcher
from src.system.streams import Streams

_HELP = """\
usage: python -m src COMMAND [options]

Fine-tunes BERT to classify IMDb reviews, or your own texts, with PyTorch Lightning.

commands:
  fit        train a classifier:  python -m src fit --config configs/quickstart.yaml
  validate   evaluate a checkpoint on the validation rows
  test       evaluate a checkpoint on the test rows:  python -m src test --ckpt_path best
  check      look at the data before training:  python -m src check --config my.yaml
  teach      label texts that have no labels, to train on:  python -m src teach --config my.yaml --sentences FILE …
  predict    label the reviews in a file:  python -m src predict --ckpt_path FILE --input reviews.csv --output out.csv
  serve      answer requests over HTTP:  python -m src serve --ckpt_path FILE
  explain    show the words that decide:  python -m src explain --ckpt_path FILE --input reviews.csv --output page.html
  export     write a checkpoint as a Hugging Face folder:  python -m src export --ckpt_path FILE --output DIR

`python -m src COMMAND --help` lists a command's options.
`python -m src fit --print_config` prints the whole configuration.
"""


def main(args: list[str]) -> int:
    """Runs a command line and returns its exit status."""
    if not args or args[0] in ("-h", "--help"):
        print(_HELP, end="")
        return 0
    if args[0] == "--version":
        print(__version__)
        return 0

    from src.system.allocator import keep_freed_memory

    keep_freed_memory()
    if args[0] == "predict":
        from src.commands.predict import main as predict

        return predict(args[1:])
    if args[0] == "serve":
        from src.commands.serve import main as serve

        return serve(args[1:])
    if args[0] == "explain":
        from src.commands.explain import main as explain

        return explain(args[1:])
    if args[0] == "export":
        from src.commands.export import main as export

        return export(args[1:])
    if args[0] == "teach":
        from src.commands.teach import main as teach

        return teach(args[1:])
    if args[0] == "check":
        from src.commands.check import main as check

        return check(args[1:])

    from src.system.imports import quick_imports

    try:
        check_launch_variables()  # Lightning reads them while it is imported
    except UserError as error:
        return tell(error)
    with quick_imports():
        from src.commands.fit import main as fit

    return fit(args)


def run() -> int:
    """Runs the command line of this process, whatever its streams and its limits are."""
    end_with_a_line()
    end_with_launcher()
    streams = Streams()
    try:
        status = main(sys.argv[1:])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else EXIT_ERROR if end.code else 0
    except (MemoryError, OSError, RuntimeError, ImportError) as error:
        if not (reason := shortage(error)):
            raise
        status = tell(UserError(reason))
    if reason := streams.lost():
        status = status or tell(UserError(f"standard output could not be written: {reason}"))
    return status


if __name__ == "__main__":
    sys.exit(run())
