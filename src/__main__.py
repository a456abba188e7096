"""`python -m src`: only dispatches, and answers --help and --version before anything heavy is imported."""

import sys

from src import __version__

_HELP = """\
usage: python -m src COMMAND [options]

Fine-tunes BERT on IMDb reviews, or on yours, with PyTorch Lightning.

commands:
  fit        train:  python -m src fit --config configs/quickstart.yaml
  validate   evaluate a checkpoint on the validation rows
  test       evaluate a checkpoint on the test rows:  python -m src test --ckpt_path best
  predict    label the reviews of a file:  python -m src predict --ckpt_path FILE --input reviews.csv --output out.csv
  export     write a checkpoint as a Hugging Face folder:  python -m src export --ckpt_path FILE --output DIR

`python -m src COMMAND --help` lists the options; `fit --print_config` prints the whole configuration.
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
    if args[0] == "export":
        from src.commands.export import main as export

        return export(args[1:])

    from src.system.imports import quick_imports

    with quick_imports():
        from src.commands.fit import main as cli

    return cli(args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
