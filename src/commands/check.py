"""`python -m src check`: looks at the data of a training before it begins."""

import json
import shlex
from pathlib import Path
from typing import Any

from src.system.errors import Interrupted, UsageError, UserError, tell
from src.system.imports import quick_imports
from src.system.locations import expanded

_HELP = """\
usage: python -m src check [--output FILE] [the options of fit]

Looks at the data of a training before it begins, in about a minute on a CPU, and trains nothing. It prints, and writes
to check.json: the rows and labels of each split, empty texts, equal and nearly equal texts, texts in two splits, equal
texts with different labels, lengths in tokens and what max_length cuts, the accuracy of a linear probe on the frozen
encoder (what training must beat), and the likeliest wrong labels.

  --output FILE  where the report is written (default: check.json)

All other options are those of fit, as in
  python -m src check --config configs/quickstart.yaml --data.train_size 500
`python -m src fit --help` lists them.
"""


def main(args: list[str]) -> int:
    """Runs `check ARGS` and returns its exit status."""
    if {"--help", "-h"} & set(args):
        print(_HELP, end="")
        return 0
    try:
        output, options = _output(args)
        _check(output, options)
    except (UserError, Interrupted, OSError) as error:
        return tell(error)
    return 0


def _output(args: list[str]) -> tuple[Path, list[str]]:
    """The file of --output, and the other arguments."""
    from src.commands.arguments import split_options

    outputs, rest = split_options(args, ("--output",))
    if any(arg.partition("=")[0] == "--ckpt_path" for arg in rest):
        raise UsageError("`check` takes no --ckpt_path: it looks at data before they train anything")
    output = expanded(outputs[-1] if outputs else "check.json")
    if output.is_dir() or not output.name:
        raise UsageError(f"--output {output} is a folder: name a file")
    if not (above := next(path for path in output.absolute().parents if path.exists())).is_dir():
        raise UserError(f"--output {output} cannot be written: {above} is no folder")
    return output, rest


def _check(output: Path, options: list[str]) -> None:
    with quick_imports():
        from src.checking.report import examine
        from src.commands.model_and_data import model_and_data
        from src.system.atomic import atomic_write, remove_unfinished
        from src.system.signals import interrupted_by_signals

    with interrupted_by_signals():
        data, origin, device = model_and_data(options)
        report: dict[str, Any] = {}
        for part, lines in examine(data, origin, device):
            report |= part
            print(*lines, sep="\n", flush=True)
        output.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(output)
        with atomic_write(output) as unfinished:
            unfinished.write_text(json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
    print(f"\nWritten to {output}\nTrain it:        python -m src fit {shlex.join(options)}".rstrip())
