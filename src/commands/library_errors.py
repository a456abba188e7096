"""Library errors about the user's input or machine, turned into user errors: one line that says what to do."""

import difflib
import inspect
import itertools
import os
import re
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from src.data.imdb import ImdbDataModule
from src.data.pretraining import PretrainingDataModule
from src.models.classifier import BertClassifier
from src.models.pretrainer import BertPretrainer
from src.system.errors import UsageError, UserError, one_line, os_error_in, shortage

# gloo and NCCL raise no exception type of their own
_PEER_LOST = re.compile(r"Connection (closed|reset) by peer|Timed out waiting|Socket Timeout|NCCL|Broken pipe|aborted")
_RENDEZVOUS = "all must run, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE, and a RANK of its own each"
_CLASSES = {
    "data": (ImdbDataModule, PretrainingDataModule),
    "model": (BertClassifier, BertPretrainer),
    "trainer": (Trainer,),
}


def as_user_error(error: Exception, args: Sequence[str]) -> Exception:
    """A UserError if the user can fix what a library refuses; an OSError as such; any other, which is a bug, unchanged.

    Args:
        error: raised while the command ran.
        args: the command line. It may hold a misspelt option.
    """
    text, cause = one_line(error), error.__cause__
    if isinstance(cause, UserError):
        return cause  # one of our classes raised it while jsonargparse made an instance
    if isinstance(error, ArgumentError):
        meant = _option_meant(text, args)
        hint = f"; did you mean --{meant}?" if meant else ""
        return UsageError(f"{_innermost(str(error))}{hint} (`python -m src fit --help` lists the options)")
    if reason := shortage(error):
        return UserError(reason)
    if isinstance(error, MisconfigurationException):
        return UserError(text)
    if found := os_error_in(error):
        return found
    if isinstance(error, torch.OutOfMemoryError):
        return UserError(f"out of GPU memory: lower --data.batch_size or --data.max_length ({text[:100]})")
    if text.startswith("DataLoader "):
        return UserError(f"a process that loads batches has died or hangs ({text[:100]}): set --data.num_workers=0")
    if torch.distributed.is_available():
        if isinstance(error, torch.distributed.DistError) and not torch.distributed.is_initialized():
            return UserError(f"the processes of this run could not connect ({text[:200]}): {_RENDEZVOUS}")
        if torch.distributed.is_initialized() and _PEER_LOST.search(text):
            return UserError(
                f"another process of this run has died or hangs ({text[:100]}); when all have ended, resume with: "
                "python -m src fit --ckpt_path last"
            )
    frame, _ = list(traceback.walk_tb(error.__traceback__))[-1]
    module, function = frame.f_globals["__name__"], frame.f_code.co_name
    if isinstance(error, ValueError) and module.startswith("jsonargparse."):  # a class refused its arguments
        return UserError(_innermost(str(cause or "") or str(error)))
    checks = ("lightning.pytorch.callbacks.",) if isinstance(error, RuntimeError) else ("lightning.",)
    if isinstance(error, ValueError | RuntimeError) and module.startswith(checks):
        return UserError(f"{text} ({function} in {module})")
    return error


def _innermost(message: str) -> str:
    """The most deeply indented lines of a message and the lines that lead to them, as one line.

    jsonargparse indents what is wrong with a value below the option and the class that it was given to.
    """
    lines = [line for line in message.splitlines() if line.strip()]
    depth = [len(line) - len(line.lstrip()) for line in lines]
    first = depth.index(max(depth))
    kept = list(itertools.takewhile(lambda i: depth[i] == depth[first], range(first, len(lines))))
    for i in reversed(range(first)):
        if depth[i] < depth[kept[0]]:
            kept.insert(0, i)
    parts = [lines[i].strip().removeprefix("- ") for i in kept]
    return " ".join(part for part in parts if " " in part or len(parts) == 1)[:400]  # "Errors:" is only a heading


def _option_meant(message: str, args: Sequence[str]) -> str | None:
    """The option that is spelt like one that was typed, does not exist and is named in the parser's message."""
    options = ["config", "ckpt_path", "seed_everything"]
    for group, classes in _CLASSES.items():
        options += [f"{group}.{name}" for c in classes for name in inspect.signature(c).parameters]
    by_name = {option.rpartition(".")[2]: option for option in reversed(options)}

    flags = [arg[2:].partition("=")[0].replace(".init_args.", ".") for arg in args if arg.startswith("--")]
    unknown = [flag for flag in flags if flag not in options and flag.count(".") < 2]
    configs = [value for flag, value in itertools.pairwise(args) if flag == "--config"]
    read = (Path(config).read_text("utf-8") if os.path.isfile(config) else config for config in configs)  # noqa: PTH113
    keys = re.findall(r"([\w-]+):", "\n".join(read))
    unknown += [key for key in keys if key not in (*by_name, *_CLASSES, "class_path", "init_args")]

    named = set(re.findall(r"\w[\w-]*", message))
    for name in (option.rpartition(".")[2] for option in unknown):
        begun = [option for option in by_name if option.startswith(name)]
        near = begun if len(begun) == 1 else difflib.get_close_matches(name.replace("-", "_"), by_name, 1, cutoff=0.8)
        if near and name in named:
            return by_name[near[0]]
    return None
