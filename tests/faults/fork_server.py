"""Runs `python -m src …` in forks of one process that has imported everything, and makes one of their writes fail.

`failing_writes.c` is preloaded into it. Each line on standard input is a command, as JSON; each line on standard output
the exit status of one. A process of its own, since the other tests' fork server runs without the library.
"""

import ctypes
import importlib
import json
import multiprocessing
import os
import sys

from src.__main__ import main

_IMPORTED_LATE = (
    *("src.commands.fit", "src.commands.predict", "src.commands.export"),
    *("src.callbacks.report_figures", "src.exporting.classifier", "src.inference.prediction"),
    *("matplotlib.backends.backend_agg", "torch.utils.tensorboard", "tensorboard.plugins.pr_curve.summary"),
    *("transformers.models.bert.modeling_bert", "transformers.models.align"),
)


def _run(args: list[str], log: str, trace: str, fault: list[str | int]) -> None:
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    operation, pattern, nth, code = fault
    words = (os.environ["WRITES_BELOW"], trace, operation, pattern)
    ctypes.CDLL(None).arm_writes(*(str(word).encode() for word in words), nth, code)
    sys.exit(main(args))


if __name__ == "__main__":
    for module in _IMPORTED_LATE:
        importlib.import_module(module)
    for line in sys.stdin:
        # ends without taking the interpreter apart, which takes longer than most commands
        child = multiprocessing.get_context("fork").Process(target=_run, kwargs=json.loads(line))
        child.start()
        child.join()
        print(child.exitcode, flush=True)
